"""Maps the actions of policies to those of environments.

Policies see [-1, 1] instead of another bounded box, and discrete actions that start at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Mapping = Callable[[Any], Any]


@dataclass(frozen=True)
class BoxMapping:
    """Maps actions, one or a batch, from the box that policies see to the environment's box.

    Attributes:
        seen: the box that policies see.
        own: the environment's.
        mapped: which entries are mapped from [-1, 1]; the others are only clipped.
        low: the lower ends of the mapped entries, and 0 for the others.
        width: the distances between the ends of the mapped entries, and 1 for the others.
    """

    seen: spaces.Box
    own: spaces.Box
    mapped: NDArray[np.bool_]
    low: NDArray[np.float64]
    width: NDArray[np.float64]

    def __call__(self, action: Any) -> NDArray[Any]:
        """Return the environment's action as an array.

        Raises:
            ValueError: the action is not finite.
        """
        if not np.isfinite(action).all():
            raise ValueError(f"the action is {action}; expected finite numbers")
        clipped = np.clip(action, self.seen.low, self.seen.high)
        result = np.where(self.mapped, self.low + (clipped + 1.0) / 2.0 * self.width, clipped)
        # Rounding may end just outside the box, and clipping again keeps it inside.
        return np.asarray(np.clip(result, self.own.low, self.own.high), self.own.dtype)


@dataclass(frozen=True)
class ClippedToUnits:
    """Clips actions, one or a batch, to the environment's own box of [-1, 1]."""

    dtype: np.dtype[Any]

    def __call__(self, action: Any) -> NDArray[Any]:
        """Return the clipped action as an array.

        Raises:
            ValueError: the action is not finite.
        """
        if not np.isfinite(action).all():
            raise ValueError(f"the action is {action}; expected finite numbers")
        return np.asarray(np.clip(action, -1.0, 1.0), self.dtype)


@dataclass(frozen=True)
class Shift:
    """Adds the first element of a discrete space to actions that start at 0."""

    start: Any

    def __call__(self, action: Any) -> Any:
        """Return the environment's action."""
        return action + self.start


def standard_actions(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], Mapping] | None:
    """Return the space that policies see and the map from it to the environment's, or None where it is the same.

    In a box of real numbers, entries with two finite ends become [-1, 1] and the others keep their ends. Actions are
    clipped to what the policy sees before they are mapped, so no environment gets one outside its box. A box without
    any finite end stays as it is. The map takes one action or a batch of them, and raises a ``ValueError`` for one that
    is not finite.
    """
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        if is_standard(space):
            return space, ClippedToUnits(space.dtype)
        return _mapped_box(space) if space.bounded_below.any() or space.bounded_above.any() else None
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(int(space.n)), Shift(space.start)
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start != 0):
        return spaces.MultiDiscrete(space.nvec), Shift(space.start)
    return None


def _mapped_box(space: spaces.Box) -> tuple[spaces.Space[Any], Mapping]:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    mapped = np.asarray(space.bounded_below & space.bounded_above)
    seen = space
    if mapped.any():
        # In single precision, as policies compute. It may not hold an end exactly, so the map clips to the exact one.
        ends = np.where(mapped, -1.0, low).astype(np.float32), np.where(mapped, 1.0, high).astype(np.float32)
        seen = spaces.Box(*ends, space.shape, np.float32)
    width = np.subtract(high, low, out=np.ones(space.shape), where=mapped)
    return seen, BoxMapping(seen, space, mapped, np.where(mapped, low, 0.0), width)


def is_standard(space: spaces.Space[Any]) -> bool:
    """Whether a space is a box of real numbers in [-1, 1]."""
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return False
    return bool((space.low == -1.0).all() and (space.high == 1.0).all())
