"""Bounds on the networks that a file describes: no larger than the tensors that the same file holds.

A few bytes can describe a network that fills the memory. So its description is compared with the tensors beside it
before it is built, and whatever is built is stopped when it asks for more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Numbers that a network may need besides its own weights while it is built.
_SPARE = 1 << 25
# Layers that cost little, since a policy of one's own may have other layers than its settings describe.
_SMALL, _FEW = 1 << 20, 200
_MOST = 800  # layers, since more take longer than a second to build
_MAKERS = {"empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "new_empty", "new_zeros", "new_ones"}
_MAKERS |= {"new_full", "eye", "arange", "linspace", "randperm"}


def refuse_larger(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse hidden layers that are more or wider than tensors can be the weights of.

    Args:
        arguments: of a policy; ``hidden_sizes`` and ``net_arch`` are looked at.
        tensors: all that the file holds.

    Raises:
        ValueError: there are such layers.
    """
    numbers = max(sum(value.numel() for value in tensors.values()), _SMALL)
    layers = max(len(tensors), _FEW)
    for key in ("hidden_sizes", "net_arch"):
        for sizes in _lists(arguments.get(key)):
            widths = [size for size in sizes if isinstance(size, int)]
            weights = sum(one * other for one, other in itertools.pairwise(widths))
            if len(widths) > _MOST:
                raise ValueError(f"{key} describes {len(widths)} layers, and a file may have {_MOST} at most")
            if len(widths) > layers or max(widths, default=0) > numbers or weights > numbers:
                raise ValueError(
                    f"its tensors do not fit its policy: {key} describes {len(widths)} layers, more or larger ones "
                    f"than its {len(tensors)} tensors can hold"
                )


def _lists(value: Any) -> Iterator[list[Any]]:
    """Yield the lists in a description of layers: a list, or a table of lists, or a list that ends with a table."""
    if isinstance(value, dict):
        for entry in value.values():
            yield from _lists(entry)
    elif isinstance(value, list | tuple):
        yield list(value)
        for entry in value:
            yield from _lists(entry)


class Bounded(TorchFunctionMode):
    """Within it, torch makes no more new numbers than a file's tensors allow for.

    Args:
        tensors: all that the file holds.

    Raises:
        ValueError: in what runs within it, which made too many.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._left = _SPARE + 8 * sum(value.numel() for value in tensors.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count the numbers that are about to be made."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _MAKERS:
            given = [one for one in (*args, *kwargs.values()) if not isinstance(one, Tensor)]
            sizes = next((one for one in given if isinstance(one, list | tuple)), given)
            counts = [one for one in sizes if isinstance(one, int) and not isinstance(one, bool)]
            self._left -= math.prod(counts) ** (2 if func is torch.eye and len(counts) == 1 else 1)
            if self._left < 0:
                raise ValueError("its tensors do not fit its policy, which would be far larger than they are")
        return func(*args, **kwargs)
