"""Weights in fewer bits, as tensors by name: whole numbers of 8 bits, half precision, or a table of shared values.

``pack`` takes a weight to its packed parts and ``unpack`` takes these back, to single precision. Packing what was
unpacked changes nothing, so a network that is saved, loaded and saved again keeps its bits; weights that are 0 stay 0.
Beside a dict of tensors, the parts of ``name`` are called ``name:part``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

Form = Literal["int8", "half", "bfloat16", "shared"]
FORMS: tuple[str, ...] = get_args(Form)
_FLOATS = {"half": torch.float16, "bfloat16": torch.bfloat16}
_MOST_BITS = 8
_LEVELS = 127  # of an int8 on each side of 0
_SCALE_BITS = 4096  # of a scale's mantissa, few enough that a level times a scale is exact in single precision
_ROUNDS = 50  # of k-means, which mostly ends sooner
_ZEROS = 8  # times as many zeros as other numbers may be in a file


@dataclass(frozen=True)
class Packing:
    """How weights are packed.

    Attributes:
        form: ``int8``, whole numbers from -127 to 127 and a scale for each output of a layer (channel of a
            convolution); ``half`` or ``bfloat16``; or ``shared``, numbers of places in a table of each layer.
        bits: of a place in a ``shared`` table, which has 2 to the power of ``bits`` values.

    Raises:
        ValueError: there is no such form, or no such number of bits.
    """

    form: str
    bits: int = 4

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"weights are to be {self.form!r}; expected one of {', '.join(FORMS)}")
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= _MOST_BITS:
            raise ValueError(
                f"bits is {self.bits!r}; expected a whole number from 1 to {_MOST_BITS}, of the places in a table of "
                "shared weights"
            )


def pack(weight: Tensor, packing: Packing) -> dict[str, Tensor]:
    """Return the packed parts of a weight of two axes or more, the first that of the outputs.

    Raises:
        ValueError: a number is beyond those of half precision.
    """
    given = weight.detach().float()
    if packing.form == "int8":
        codes, scale = _levels(given.flatten(1))
        return {"int8": codes.reshape(given.shape), "scale": scale}
    if packing.form == "shared":
        table = shared_values(given, packing.bits)
        places = torch.bucketize(given.flatten(), (table[1:] + table[:-1]) / 2)
        shape = torch.tensor(given.shape, dtype=torch.int64)
        return {"places": _in_bits(places, packing.bits), "table": table, "shape": shape}
    rounded = given.to(_FLOATS[packing.form])
    if not bool(rounded.isfinite().all()):
        raise ValueError(
            f"a weight is {float(given.abs().max()):.6g}, more than the 65504 of half precision; use 'bfloat16'"
        )
    return {packing.form: rounded}


def unpack(parts: Mapping[str, Tensor]) -> Tensor:
    """Return the weight, in single precision, of packed parts.

    Raises:
        ValueError: they are none that ``pack`` returns.
    """
    if "int8" in parts and "scale" in parts:
        codes, scale = parts["int8"], parts["scale"]
        if codes.dtype == torch.int8 and codes.dim() >= 2 and scale.shape == codes.shape[:1]:
            return codes.float() * scale.reshape(-1, *(1,) * (codes.dim() - 1))
    for name in _FLOATS:
        if name in parts:
            return parts[name].float()
    if {"places", "table", "shape"} <= parts.keys():
        return _looked_up(parts["places"], parts["table"], parts["shape"])
    raise ValueError(f"the parts {', '.join(parts)} are none of a packed weight; the file was damaged or edited")


def packed_tensors(tensors: Mapping[str, Tensor], packing: Packing) -> dict[str, Tensor]:
    """Return a dict of tensors in which weights are packed, and of those that are 0 only the shape is kept.

    Weights are those in single precision with two axes or more, but for masks.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        parts: Mapping[str, Tensor] = {"": value}
        single = value.dtype == torch.float32
        if single and value.dim() >= 2 and not name.endswith(".mask"):
            parts = pack(value, packing)
        elif single and value.numel() > 1 and not bool(value.any()):
            parts = {"zeros": torch.tensor(value.shape, dtype=torch.int64)}
        found |= {f"{name}:{part}" if part else name: tensor for part, tensor in parts.items()}
    return found


def unpacked_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the dict of tensors of which ``packed_tensors`` returned this.

    Raises:
        ValueError: parts are missing, or are of a tensor far larger than they.
    """
    found: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, separator, part = key.rpartition(":")
        if separator:
            packed.setdefault(name, {})[part] = value
            found.setdefault(name, value)  # keeps the order
        else:
            found[key] = value
    zeros = {name: parts["zeros"] for name, parts in packed.items() if "zeros" in parts}
    for name, parts in packed.items():
        if name not in zeros:
            found[name] = unpack(parts)
    numbers = sum(value.numel() for value in found.values())
    for name, shape in zeros.items():
        sizes = _sizes(shape)
        if math.prod(sizes) > _ZEROS * max(numbers, 1 << 20):
            raise ValueError(f"the tensor {name!r} would be far larger than all others; the file was damaged or edited")
        found[name] = torch.zeros(sizes)
    return found


def _levels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows ``[row, number]`` as int8, and the scale of each row: the least that reaches its largest number."""
    mantissa, exponent = torch.frexp(rows.abs().amax(dim=1) / _LEVELS)
    scale = torch.ldexp((mantissa * _SCALE_BITS).ceil() / _SCALE_BITS, exponent)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (rows / scale[:, None]).round().clamp(-_LEVELS, _LEVELS).to(torch.int8), scale


def int8_product(given: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """Return ``given @ (scale * codes).T`` with ``given`` rounded to int8, each row with its own scale.

    The products are summed as whole numbers, so a row does not depend on the rows beside it.

    Args:
        given: ``[row, input]``.
        codes: ``[output, input]``, int8.
        scale: ``[output]``.
    """
    rows, own = _levels(given)
    return torch._int_mm(rows, codes.t()).float() * own[:, None] * scale


def shared_values(weight: Tensor, bits: int) -> Tensor:
    """Return a sorted table of ``2 ** bits`` values that are near all numbers of a weight, ``[place]``.

    K-means in one dimension from evenly spaced values (Han et al. 2016, section 3). Where the weight has zeros, 0 is
    in the table, so that what is pruned stays so.
    """
    count = 2**bits
    distinct = torch.unique(weight)
    if len(distinct) <= count:
        return torch.cat([distinct, distinct[-1:].expand(count - len(distinct))])
    numbers = weight[weight != 0].double().flatten()
    has_zeros = len(numbers) < weight.numel()
    values = torch.linspace(float(numbers.min()), float(numbers.max()), count - has_zeros, dtype=torch.float64)
    for _ in range(_ROUNDS):
        nearest = torch.bucketize(numbers, (values[1:] + values[:-1]) / 2)
        counts = torch.bincount(nearest, minlength=len(values))
        sums = torch.bincount(nearest, weights=numbers, minlength=len(values))
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), values)
        if torch.equal(moved, values):
            break
        values = moved
    return torch.cat([values, values.new_zeros(int(has_zeros))]).sort().values.float()


def _in_bits(places: Tensor, bits: int) -> Tensor:
    """Return whole numbers below ``2 ** bits`` written one after the other, as bytes."""
    each = np.unpackbits(places.to(torch.uint8).numpy()[:, None], axis=1)[:, _MOST_BITS - bits :]
    return torch.from_numpy(np.packbits(each.flatten()))


def _looked_up(places: Tensor, table: Tensor, shape: Tensor) -> Tensor:
    sizes, bits = _sizes(shape), len(table).bit_length() - 1
    count = math.prod(sizes)
    if places.dtype != torch.uint8 or len(table) != 2**bits or not 1 <= bits <= _MOST_BITS:
        raise ValueError("a table of shared weights is none; the file was damaged or edited")
    if places.numel() != -(-count * bits // _MOST_BITS):
        raise ValueError(f"{places.numel()} bytes are no {count} places of {bits} bits; the file was damaged or edited")
    each = np.unpackbits(places.cpu().numpy(), count=count * bits).reshape(count, bits)
    padded = np.zeros((count, _MOST_BITS), np.uint8)
    padded[:, _MOST_BITS - bits :] = each
    found = torch.from_numpy(np.packbits(padded, axis=1)[:, 0].astype(np.int64)).to(table.device)
    return table.float()[found].reshape(sizes)


def _sizes(shape: Tensor) -> list[int]:
    sizes: list[Any] = shape.tolist() if shape.dtype == torch.int64 and shape.dim() == 1 else [-1]
    if min(sizes, default=0) < 0 or len(sizes) > 16:
        raise ValueError("the shape of a tensor is none; the file was damaged or edited")
    return sizes
