"""Standard output and standard error, which may be closed, or cut off by a reader that has seen enough."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO


def open_missing() -> None:
    """Let closed standard streams lead nowhere; else the next file that is opened would take the number of one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Paths and tables may have characters that a terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def say(text: str) -> None:
    """Print a line to standard output; a reader that has seen enough stops nothing.

    Raises:
        OSError: it cannot be written for another reason, as where it is a file on a full disk.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        _let_go(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error


def complain(text: str) -> None:
    """Write a sentence to standard error; one that is gone stops nothing."""
    try:
        sys.stderr.write(f"metarl: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _let_go(sys.stderr)


def flush() -> None:
    """Write what is left of both streams; what cannot be written is dropped, so that the interpreter ends quietly."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Let a stream lead nowhere from now on, what it still holds included."""
    with contextlib.suppress(OSError, ValueError), _nowhere() as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
