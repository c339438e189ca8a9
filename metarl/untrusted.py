"""Reading files that may be damaged or made by somebody else: within bounds that do not depend on what they declare.

Nothing here runs code of a file. Every function raises some exception for what it refuses; readers turn it into one
``ValueError`` that names the file, with ``in_words``.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 18
JSON_BYTES = 4 << 20  # settings are a few kilobytes
TABLE_BYTES = 1 << 20  # of a zip file's table of members
_ENTRIES = 500_000  # values in a JSON text
_DIGITS = 400  # of a whole number
_DEPTH = 64  # tables and lists within each other
# What a compressed member may hold: this many bytes, or this many times its own size. Networks hardly compress.
_UNPACKED_BYTES = 32 << 20
_UNPACKED_RATIO = 20
_MESSAGE = 500  # characters


def in_words(error: BaseException) -> str:
    """Return an error's message in one line of readable characters, shortened in its middle; or what kind it is."""
    text = str(error) if isinstance(error, ValueError | OSError | zipfile.BadZipFile) else ""
    if isinstance(error, KeyError):
        text = f"{error} is missing"
    elif not text:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return shown(text)


def shown(value: Any, most: int = _MESSAGE) -> str:
    r"""Return text, or how Python writes any other value, for a message: one line, no more than ``most`` characters.

    >>> shown("a\nb\x00" + "c" * 9, 10)
    'a b?...ccc'
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > 4 * most:  # before anything that takes long
        text = f"{text[: 2 * most]}{text[-2 * most :]}"
    text = " ".join("".join(sign if sign.isprintable() or sign.isspace() else "?" for sign in text).split())
    kept = most - 3
    return text if len(text) <= most else f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"


class _Guarded(io.RawIOBase):
    """A file whose reads are no longer than a zip file's table of members may be.

    ``zipfile`` reads that table at once, before anybody can ask how long it is.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, or all that are left."""
        left = max(self._size - self._file.tell(), 0)
        size = left if size < 0 else min(size, left)
        if size > TABLE_BYTES:
            raise zipfile.BadZipFile("its table of members is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("it refers to a place before its beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return that positions can be moved to."""
        return True

    def readable(self) -> bool:
        """Return that it can be read."""
        return True


@contextlib.contextmanager
def open_zip(source: Path | bytes) -> Iterator[zipfile.ZipFile]:
    """Open a zip file, or the bytes of one, to read its members by ``read_member``.

    Raises:
        zipfile.BadZipFile: it is none, its table of members is too long, or two members have the same name.
    """
    with contextlib.ExitStack() as stack:
        file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(source.open("rb"))
        archive = stack.enter_context(zipfile.ZipFile(_Guarded(file)))
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise zipfile.BadZipFile("two of its members have the same name")
        yield archive


def member_size(archive: zipfile.ZipFile, name: str, most: int | None = None) -> int:
    """Return how many bytes a member holds, after a check that this is no more than it may.

    Args:
        archive: from ``open_zip``.
        name: of the member.
        most: bytes; None: as many as the file itself has, and in a compressed member some times as many.

    Raises:
        KeyError: there is no such member.
        ValueError: it is too large, or compressed in a way other than "deflated".
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} is packed in a way that is not read")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise ValueError(f"{name!r} has two sizes, {info.file_size} and {info.compress_size} bytes")
    if most is None and info.compress_type == zipfile.ZIP_DEFLATED:
        most = max(_UNPACKED_BYTES, _UNPACKED_RATIO * info.compress_size)
    if most is not None and info.file_size > most:
        raise ValueError(f"{name!r} would unpack to {info.file_size} bytes, and at most {most} are read")
    return info.file_size


def member_chunks(archive: zipfile.ZipFile, name: str, most: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of a member, a part at a time; see ``member_size``.

    Raises:
        zipfile.BadZipFile: the bytes are not those of which the archive has a checksum.
    """
    left = member_size(archive, name, most)
    with archive.open(name) as file:
        while chunk := file.read(CHUNK):
            left -= len(chunk)
            yield chunk
    if left != 0:
        raise zipfile.BadZipFile(f"{name!r} has not the size that is written of it")


def read_member(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytes:
    """Return the bytes of a member; see ``member_chunks``."""
    buffer = io.BytesIO()
    for chunk in member_chunks(archive, name, most):
        buffer.write(chunk)
    return buffer.getvalue()


def read_json(raw: bytes, *, finite: bool = True) -> Any:
    """Return what a JSON text says.

    Args:
        raw: in UTF-8.
        finite: refuse numbers that are not finite, which strict JSON does not have.

    Raises:
        ValueError: it is no JSON, names a key twice, or has too many values, digits or levels.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _ENTRIES:
        raise ValueError(f"its JSON has more than {_ENTRIES} values")

    def number(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise ValueError(f"its JSON has the number {shown(text, 40)}, which is not finite")
        return value

    try:
        text = raw.decode("utf-8")
        found = json.loads(
            text, object_pairs_hook=_table, parse_float=number, parse_constant=number, parse_int=_whole_number
        )
    except UnicodeDecodeError as error:
        raise ValueError("its JSON is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"its JSON has more than {_DEPTH} tables and lists within each other") from error
    for _ in walk(found):
        pass
    return found


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"its JSON has a whole number of {len(text)} digits")
    return int(text)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its JSON has a key twice")
    return table


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all values in tables and lists of JSON that are no tables or lists, each with the nearest key above it.

    Raises:
        ValueError: tables and lists lie too deep within each other.
    """
    waiting: list[tuple[int, str, Any]] = [(0, "", value)]
    while waiting:
        depth, key, entry = waiting.pop()
        if isinstance(entry, dict | list):
            if depth == _DEPTH:
                raise ValueError(f"its JSON has more than {_DEPTH} tables and lists within each other")
            inner: Collection[tuple[str, Any]]
            inner = entry.items() if isinstance(entry, dict) else [(key, one) for one in entry]
            waiting.extend((depth + 1, str(name), one) for name, one in inner)
        else:
            yield key, entry
