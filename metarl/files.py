"""Files that are written whole or not at all, and errors that name theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # what the name of a file ends in that is not whole yet


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the operating system name ``path`` where it names no file, or only the part of one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).endswith(PART):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def in_words(error: OSError) -> str:
    """Return what the operating system refused as a sentence's beginning."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return reason if error.filename is None else f"{str(error.filename)!r} cannot be read or written: {reason}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which then takes the place of ``path``; a crash leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    with _beside(path) as beside:
        yield beside
        beside.replace(path)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which then becomes ``path``, whole or not at all; an existing file stays.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    with _beside(path) as beside:
        yield beside
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:
            # Not every file system has hard links: the name is taken with an empty file, which this one replaces.
            path.touch(exist_ok=False)
            try:
                beside.replace(path)
            except OSError:
                path.unlink()
                raise


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with naming(path):
            yield beside
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
