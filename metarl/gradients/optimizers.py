"""First-order optimisers as pure functions: their state is a dict of tensors, which a checkpoint can hold."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Optimizer = Literal["adam", "sgd"]
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8


def first_moments(optimizer: Optimizer, vector: Tensor) -> dict[str, Tensor]:
    """Return an optimiser's state before its first step on a flat vector; for ``sgd`` it is empty."""
    if optimizer == "sgd":
        return {}
    return {
        "adam_mean": torch.zeros_like(vector),
        "adam_square": torch.zeros_like(vector),
        "adam_steps": torch.zeros((), dtype=torch.int64, device=vector.device),
    }


def ascend(
    vector: Tensor, gradient: Tensor, state: dict[str, Tensor], learning_rate: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a vector after one step of gradient ascent, and the optimiser's state after it.

    Args:
        vector: ``[parameter]``.
        gradient: ``[parameter]``.
        state: from ``first_moments`` or the last step; if it is empty, the step is a plain gradient step.
        learning_rate: of the step.

    Source: Kingma and Ba 2015 (Adam), algorithm 1.
    """
    if "adam_mean" not in state:
        return vector + learning_rate * gradient, {}
    mean = _DECAYS[0] * state["adam_mean"] + (1 - _DECAYS[0]) * gradient
    square = _DECAYS[1] * state["adam_square"] + (1 - _DECAYS[1]) * gradient.square()
    steps = state["adam_steps"] + 1
    unbiased = mean / (1 - _DECAYS[0] ** steps.double()).to(mean.dtype)
    spread = (square / (1 - _DECAYS[1] ** steps.double()).to(square.dtype)).sqrt()
    moved = vector + learning_rate * unbiased / (spread + _EPSILON)
    return moved, {"adam_mean": mean, "adam_square": square, "adam_steps": steps}
