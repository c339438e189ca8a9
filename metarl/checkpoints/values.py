"""The numbers in a checkpoint's tensors: finite, and where they are counts or mean squares, not negative."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Of optimizers and of ProMP's penalty, by the first part of the names of own tensors.
_MOMENTS = ("adam_mean", "adam_square", "adam_steps")
_NOT_NEGATIVE = ("adam_square", "adam_steps", "kl_coefficient")
_NOT_NEGATIVE_STATISTICS = ("variance", "count")


def check_values(parts: Mapping[str, Mapping[str, Tensor]], *, own_learner: bool) -> None:
    """Check the numbers of all tensors.

    Args:
        parts: tensors by part and name, as in a checkpoint.
        own_learner: whether the learner is one of metarl's. Only a learner's author knows what its own tensors may be,
            so those of others are not looked at, but for the moments of metarl's optimizers.

    Raises:
        ValueError: a tensor has other numbers; the message names it.
    """
    for part, tensors in parts.items():
        kind = part.removeprefix("best_")
        for name, value in tensors.items():
            first, last = name.partition("/")[0], name.rpartition("/")[2]
            numbers = value.detach()
            if kind == "buffers":  # a mask may be infinite
                _refuse(f"{part}/{name}", "numbers that are none (NaN)", bool(numbers.isnan().any()))
            elif kind != "extra" or own_learner or first in _MOMENTS:
                _refuse(f"{part}/{name}", "numbers that are not finite", not bool(torch.isfinite(numbers).all()))
            bounded = (kind == "normalizer" and last in _NOT_NEGATIVE_STATISTICS) or (
                kind == "extra" and (own_learner or first in _MOMENTS) and first in _NOT_NEGATIVE
            )
            _refuse(f"{part}/{name}", "negative numbers", bounded and bool((numbers < 0).any()))


def _refuse(name: str, what: str, found: bool) -> None:
    if found:
        raise ValueError(f"the tensor {name!r} has {what}")
