"""Writing files completely or not at all, and errors that name the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part"  # suffix of files that are still being written


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an ``OSError`` name ``path`` if it names no file, or only the temporary one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).endswith(PART):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def in_words(error: OSError) -> str:
    """Return an ``OSError`` as text that can begin a sentence."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return reason if error.filename is None else f"{str(error.filename)!r} cannot be read or written: {reason}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which then replaces ``path``; a crash leaves the old or the new file.

    Raises:
        OSError: it cannot be written; ``path`` is unchanged.
    """
    with _beside(path) as beside:
        yield beside
        beside.replace(path)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which then becomes ``path``; an existing file is not replaced.

    Raises:
        FileExistsError: ``path`` exists.
        OSError: it cannot be written.
    """
    with _beside(path) as beside:
        yield beside
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:
            # Not every file system has hard links: an empty file reserves the name, and is then replaced.
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
