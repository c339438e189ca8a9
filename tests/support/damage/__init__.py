"""Damaged, edited and hostile checkpoints, made from a whole one by a random generator with a fixed seed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

STATE, TENSORS, DIGEST = "state.json", "tensors.safetensors", "digest.sha256"
Members = dict[str, bytes]
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**70, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "maml", "x" * 100_000, "no:Such",
    "os:system", [], [[]], [1e9], [10**9, 10**9], [2] * 5000, {}, {"a": 1}, {"torch": "Linear"}, {"dict": 3},
)  # fmt: skip


def members_of(raw: bytes) -> Members:
    """Return the members of a zip file by name."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def with_digest(members: Mapping[str, bytes]) -> Members:
    """Return members with a digest that fits them, as somebody who knows how it is computed would write it."""
    rest = {name: content for name, content in members.items() if name != DIGEST}
    digest = hashlib.sha256()
    for name in sorted(rest):
        digest.update(f"{name}\0{len(rest[name])}\0".encode() + rest[name])
    return {**rest, DIGEST: digest.hexdigest().encode()}


def without_digest(members: Mapping[str, bytes]) -> Members:
    """Return members as older versions wrote them."""
    return {name: content for name, content in members.items() if name != DIGEST}


def flipped(raw: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with some bits flipped."""
    found = bytearray(raw)
    for place in rng.integers(len(raw), size=rng.integers(1, 9)):
        found[place] ^= 1 << int(rng.integers(8))
    return bytes(found)


def cut(raw: bytes, rng: np.random.Generator) -> bytes:
    """Return a file of which a part is missing, is zero, or stands twice."""
    start, end = sorted(int(place) for place in rng.integers(len(raw), size=2))
    return [
        raw[:start],
        raw[start:],
        raw[:start] + raw[end:],
        raw[:start] + bytes(end - start) + raw[end:],
        raw[:end] + raw[start:],
        raw + raw[start:end],
    ][int(rng.integers(6))]


def resealed(members: Members, rng: np.random.Generator) -> bytes:
    """Return a file of edited members, with a digest that fits or without one."""
    return zipped(with_digest(members) if rng.integers(2) else without_digest(members))


def swapped(members: Members, other: Members, rng: np.random.Generator) -> bytes:
    """Return a file with members that do not belong together."""
    found = [
        {STATE: members[TENSORS], TENSORS: members[STATE]},
        {STATE: other[STATE], TENSORS: members[TENSORS]},
        {STATE: members[STATE], TENSORS: other[TENSORS]},
        {STATE: members[STATE], TENSORS: members[TENSORS], "more": b"1"},
        {STATE: members[STATE]},
    ][int(rng.integers(5))]
    return resealed(found, rng)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys to each value in tables and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, entry in inner for way in [(*above, key), *places(entry, (*above, key))]]


def edited_facts(members: Members, rng: np.random.Generator) -> bytes:
    """Return a file in whose JSON one value is another one, is missing, or is new."""
    facts = json.loads(members[STATE])
    ways = places(facts)
    way = ways[int(rng.integers(len(ways)))]
    table = facts
    for key in way[:-1]:
        table = table[key]
    match int(rng.integers(4)):
        case 0:
            del table[way[-1]]
        case 1 if isinstance(table, dict):
            table[f"{way[-1]}2"] = table[way[-1]]
        case _:
            table[way[-1]] = WRONG[int(rng.integers(len(WRONG)))]
    return resealed({**members, STATE: json.dumps(facts).encode()}, rng)


def edited_tensors(members: Members, rng: np.random.Generator) -> bytes:
    """Return a file in which a tensor has other numbers, another type, shape or name, is missing, or is another one."""
    tensors = safetensors.torch.load(members[TENSORS])
    names = sorted(name for name, value in tensors.items() if value.numel() > 0)
    name, other = (names[int(place)] for place in rng.integers(len(names), size=2))
    value = tensors[name]
    number = (float("nan"), float("inf"), -float("inf"), -1.0, 0.5)[int(rng.integers(5))]
    changes: list[Callable[[], Mapping[str, Tensor]]] = [
        lambda: {name: _with(value, number, rng)},
        lambda: {name: value.to([torch.float16, torch.float64, torch.int64, torch.bool][int(rng.integers(4))])},
        lambda: {name: value.reshape(1, *value.shape)},
        lambda: {name: value.flatten()[:-1].clone()},
        lambda: {name: tensors[other], other: value},
        lambda: {f"{name}2": value},
        lambda: {f"junk/{name}": value},
    ]
    kind = int(rng.integers(len(changes) + 1))
    edited = {**tensors, **(changes[kind]() if kind < len(changes) else {})}
    if kind == len(changes):
        del edited[name]
    whole = {key: part.contiguous().clone() for key, part in edited.items()}
    return resealed({**members, TENSORS: safetensors.torch.save(whole)}, rng)


def _with(value: Tensor, number: float, rng: np.random.Generator) -> Tensor:
    changed = value.clone() if value.is_floating_point() else value.double()
    changed.view(-1)[int(rng.integers(changed.numel()))] = number
    return changed.to(value.dtype) if np.isfinite(number) or value.is_floating_point() else changed


def header(shapes: Mapping[str, Any], size: int) -> bytes:
    """Return the beginning of a file of tensors that declares these shapes, in so many bytes."""
    text = json.dumps(
        {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]} for name, shape in shapes.items()}
    ).encode()
    return len(text).to_bytes(8, "little") + text


def bomb(members: Members, rng: np.random.Generator) -> bytes:
    """Return a small file that declares, or unpacks to, far more than it holds."""
    facts = json.loads(members[STATE])

    def setting(section: str, **values: Any) -> bytes:
        table = {**facts["settings"][section], **values}
        changed = {**facts, "settings": {**facts["settings"], section: table}}
        return resealed({**members, STATE: json.dumps(changed).encode()}, rng)

    zeros = bytes(200 << 20)
    match int(rng.integers(14)):
        case 0:
            return zipped({**members, TENSORS: zeros}, zipfile.ZIP_DEFLATED)
        case 1:
            return zipped({**members, STATE: zeros}, zipfile.ZIP_DEFLATED)
        case 2:
            whole = header({"parameters/log_std": [50 << 20]}, 200 << 20) + zeros
            return zipped(without_digest({**members, TENSORS: whole}), zipfile.ZIP_DEFLATED)
        case 3:
            return resealed({**members, TENSORS: header({"parameters/log_std": [2**40, 2**40]}, 2**40)}, rng)
        case 4:
            return resealed({**members, TENSORS: (2**62).to_bytes(8, "little") + members[TENSORS][8:]}, rng)
        case 5:
            shapes = {f"parameters/{number}": [0] for number in range(50_000)}
            return resealed({**members, TENSORS: header(shapes, 0)}, rng)
        case 6:
            nested = (b'{"a":' if rng.integers(2) else b"[") * 300_000
            return resealed({**members, STATE: nested}, rng)
        case 7:
            return resealed({**members, STATE: b"[" + b"[]," * 1_300_000 + b"1]"}, rng)
        case 8:
            return resealed({**members, STATE: b'{"iteration": ' + b"9" * 1_000_000 + b"}"}, rng)
        case 9:
            return setting("policy", hidden_sizes=[4] * int(rng.integers(3000, 100_000)))
        case 10:
            return setting("policy", hidden_sizes=[int(rng.integers(2**20, 2**40))] * 2)
        case 11:
            return setting("family_kwargs", arms=10**9, pulls=10**9)
        case 12:
            return setting("outer", components=10**9)
        case _:
            return zipped({f"{number}": b"" for number in range(30_000)})
