"""Reading a file of ``torch.save`` with a dict of tensors, without running anything in it.

``torch.load(weights_only=True)`` runs no code either, but trusts the sizes that a file declares: a damaged one can make
it read outside of its memory or fill it. Here every size is compared with what is stored.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.untrusted import open_zip, read_member, shown

_LISTING_BYTES = 1 << 19  # of the pickled names and shapes: some 2,000 tensors
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: torch.dtype
    numbers: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor as it is written: a part of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """Something that a pickle names, as "module name"; it is only compared, never imported."""

    text: str


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 16:
        raise ValueError("a tensor in it is none")
    if not all(isinstance(number, int) and 0 <= number < 2**48 for number in numbers):
        raise ValueError("a tensor in it has a size that is none")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.numbers or (math.prod(shape) > 0 and last >= storage.numbers):
        raise ValueError(f"a tensor in it is of shape {tuple(shape)}, more than the {storage.numbers} numbers stored")
    return _View(storage, offset, tuple(shape), tuple(strides))


class _Listing:
    """Reads names and shapes from a pickle: a stack of plain values, and three calls that it understands."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, raw: bytes) -> Any:
        """Return what a pickle describes."""
        for operation, argument, _ in pickletools.genops(raw):
            self._do(operation.name, argument)
        return self._stack.pop()

    def _marked(self) -> list[Any]:
        """Take from the stack what was put there since the last mark."""
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _last(self, count: int) -> list[Any]:
        """Take so many values from the stack."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(["EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"].index(name))))
            case "TUPLE":
                stack.append(tuple(self._marked()))
            case "SETITEM":
                key, value = self._last(2)
                stack[-1][key] = value
            case "SETITEMS":
                pairs = self._marked()
                stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "NONE":
                stack.append(None)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "REDUCE":
                function, arguments = self._last(2)
                stack.append(_called(function, arguments))
            case "BUILD":  # the dict's attributes, of which torch needs none for the weights
                stack.pop()
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case _:
                raise ValueError(f"it has the operation {name}, and a dict of tensors does not need that")


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what stands for the result of a call that torch writes."""
    match function:
        case _Name("collections OrderedDict") if not arguments:
            return {}
        case _Name("torch._utils _rebuild_tensor_v2"):
            return _view(*arguments)
        case _Name("torch._utils _rebuild_parameter"):
            return arguments[0]
    raise ValueError(f"it calls {shown(function)}, and a dict of tensors does not need that")


def _storage(saved: Any) -> _Storage:
    """Return the storage that a reference stands for."""
    match saved:
        case ("storage", _Name(str(kind)), str(key), _, int(numbers)) if 0 <= numbers < 2**48:
            module, _, name = kind.partition(" ")
            if module == "torch" and name in _STORAGES:
                return _Storage(key, _STORAGES[name], numbers)
    raise ValueError("a storage in it is none")


def read_tensors(raw: bytes) -> dict[str, Tensor]:
    """Return the tensors of a dict that ``torch.save`` wrote, on the CPU; some may share their memory.

    Args:
        raw: the file, in the zip format that torch has written since 1.6.

    Raises:
        Exception: of whatever type, for anything else, or sizes that are not those of what is stored.
    """
    if not raw.startswith(b"PK"):
        raise ValueError("its weights are not in the format that torch has written since version 1.6; save it again")
    with open_zip(raw) as archive:
        listings = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(listings) != 1:
            raise zipfile.BadZipFile("its weights have no data.pkl")
        folder = listings[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and read_member(archive, order, 16) != b"little":
            raise ValueError("its numbers are stored in an order of bytes other than little-endian")
        views = _listing(read_member(archive, listings[0], _LISTING_BYTES))
        storages = {view.storage.key: view.storage for view in views.values()}
        stored = {key: _numbers(archive, f"{folder}data/{key}", storage) for key, storage in storages.items()}
    if any(view.storage != storages[view.storage.key] for view in views.values()):
        raise ValueError("two tensors in it disagree about what is stored")
    if sum(math.prod(view.shape) for view in views.values()) > 4 * sum(map(len, stored.values())):
        raise ValueError("its tensors are more numbers than it stores")
    return {
        name: torch.as_strided(stored[view.storage.key], view.shape, view.strides, view.offset)
        for name, view in views.items()
    }


def _listing(raw: bytes) -> Mapping[str, _View]:
    views = _Listing().read(raw)
    if not isinstance(views, dict) or not all(isinstance(name, str) for name in views):
        raise ValueError("its weights are no dict of tensors")
    if not all(isinstance(view, _View) for view in views.values()):
        raise ValueError("its weights hold something that is no tensor")
    return views


def _numbers(archive: zipfile.ZipFile, name: str, storage: _Storage) -> Tensor:
    raw = read_member(archive, name)
    if len(raw) != storage.numbers * storage.dtype.itemsize:
        raise ValueError(f"{name!r} has {len(raw)} bytes and not {storage.numbers * storage.dtype.itemsize}")
    return torch.frombuffer(bytearray(raw), dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
