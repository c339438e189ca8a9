"""Standard output and standard error, which may be closed, or whose reader may be gone."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def open_missing() -> None:
    """Open closed standard streams on the null device; else the next opened file would get one of their numbers."""
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
        # Paths and tables may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def say(text: str) -> None:
    """Print a line to standard output; a closed pipe is no error.

    Raises:
        OSError: it cannot be written for another reason, for example because the disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        _let_go(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error


def complain(text: str) -> None:
    """Write a sentence to standard error; if that fails, it is dropped."""
    try:
        sys.stderr.write(f"metarl: {text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _let_go(sys.stderr)


@contextlib.contextmanager
def warnings_in_sentences() -> Iterator[None]:
    """Write each ``UserWarning`` as one sentence to standard error, without the place in the code that raised it."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, UserWarning) and file is None:
                text = _COLOUR.sub("", " ".join(str(message).split()))
                complain(f"warning: {text.removeprefix('WARN: ')}")
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def flush() -> None:
    """Flush both streams; text that cannot be written is dropped, so that the interpreter ends without an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _let_go(stream)


@contextlib.contextmanager
def others_to_stderr() -> Iterator[None]:
    """Let what other code prints meanwhile, in Python or C, go to standard error instead of standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)  # C keeps what it prints in a buffer of its own
        os.dup2(kept, 1)
        os.close(kept)


def _let_go(stream: TextIO) -> None:
    """Redirect a stream to the null device, including the text that it still buffers."""
    with contextlib.suppress(OSError, ValueError), _nowhere() as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
