"""Writing files completely or not at all and to the disk, reading JSON, errors that name the file, and leftovers."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PART = ".part"  # suffix of files that are still being written
_WRITTEN = re.compile(r"(.+)\.(\d+)\.part")
_NO_FOLDER_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


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
    if error.filename is None:
        return reason
    # TensorBoard names its files by bytes.
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else str(error.filename)
    return f"{name!r} cannot be read or written: {reason}"


def flush_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; file systems that cannot do so are left alone."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which then replaces ``path``; a crash leaves the old or the new file.

    Contents reach the disk before the name does, so that this holds for a loss of power too.

    Raises:
        OSError: it cannot be written; ``path`` is unchanged.
    """
    with _beside(path) as beside:
        yield beside
        flush_file(beside)
        beside.replace(path)
        flush_folder(path.parent)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which then becomes ``path``; an existing file is not replaced.

    Raises:
        FileExistsError: ``path`` exists.
        OSError: it cannot be written.
    """
    with _beside(path) as beside:
        yield beside
        flush_file(beside)
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
        flush_folder(path.parent)


def refuse_existing(path: Path) -> None:
    """Raise a ``ValueError`` if something has this path."""
    if os.path.lexists(path):
        raise ValueError(f"{str(path)!r} exists and is not overwritten; name another file or delete it")


@contextlib.contextmanager
def writing(path: Path, what: str) -> Iterator[Path]:
    """Yield a temporary path, as ``new_file`` does; folders that are missing are made, and errors are sentences.

    Args:
        path: of the new file.
        what: it is, for errors: ``the replay``.

    Raises:
        ValueError: it exists or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{what} {str(path)!r} cannot be written: {in_words(error)}") from error
    try:
        with new_file(path) as beside:
            yield beside
    except FileExistsError as error:
        raise ValueError(f"{str(path)!r} exists and is not overwritten; name another file or delete it") from error
    except OSError as error:
        raise ValueError(f"{what} {str(path)!r} cannot be written: {in_words(error)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: the file is missing, empty or damaged; the message is the end of a sentence.
    """
    if not os.path.lexists(path):
        raise ValueError("is missing")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError("is a link to nothing") from error
    except IsADirectoryError as error:
        raise ValueError("is a folder") from error
    except ValueError as error:
        raise ValueError("is damaged") from error
    try:
        found = json.loads(text) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise ValueError("is damaged") from error
    if not isinstance(found, dict):
        raise ValueError("is empty" if found is None else "is damaged")
    return found


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with naming(path):
            yield beside
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def sweep_parts(folder: Path, names: re.Pattern[str]) -> None:
    """Delete what killed processes left of files that they were writing; processes that still run keep theirs.

    Args:
        folder: which may be missing.
        names: of the files that were written; other files are left alone.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        found = _WRITTEN.fullmatch(path.name)
        if found is not None and names.fullmatch(found[1]) and not _runs(int(found[2])):
            with contextlib.suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return process != os.getpid()
