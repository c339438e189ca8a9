"""The action spaces that policies see: [-1, 1] instead of another bounded box, discrete actions that start at 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

Mapping = Callable[[Any], Any]


def standard_actions(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], Mapping] | None:
    """Return the space that policies see and the map from it to the environment's, or None where it is the same.

    Actions outside [-1, 1] are clipped before they are mapped, so no environment gets one outside its box. An unbounded
    box has no scale to map and stays. The map takes one action or a batch of them, and raises a ``ValueError`` for one
    that is not finite.
    """
    if isinstance(space, spaces.Box) and space.dtype.kind == "f" and space.is_bounded("both"):
        if is_standard(space):
            return space, lambda action: np.asarray(_clipped(action), space.dtype)
        low, high, dtype = space.low.astype(np.float64), space.high.astype(np.float64), space.dtype
        return (
            spaces.Box(-1.0, 1.0, space.shape, np.float32),
            lambda action: np.asarray(low + (_clipped(action) + 1.0) / 2.0 * (high - low), dtype),
        )
    if isinstance(space, spaces.Discrete) and space.start != 0:
        start = space.start
        return spaces.Discrete(int(space.n)), lambda action: action + start
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start != 0):
        starts = space.start
        return spaces.MultiDiscrete(space.nvec), lambda action: action + starts
    return None


def _clipped(action: Any) -> Any:
    if not np.isfinite(action).all():
        raise ValueError(f"the action is {action}; expected finite numbers")
    return np.clip(action, -1.0, 1.0)


def is_standard(space: spaces.Space[Any]) -> bool:
    """Whether a space is a box of real numbers in [-1, 1]."""
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return False
    return bool((space.low == -1.0).all() and (space.high == 1.0).all())
