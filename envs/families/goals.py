"""The goals of locomotion tasks: a direction, or a speed."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Directions:
    """Tasks that are directions.

    Args:
        kind: ``two``: tasks are 0, along x, and 1, against it; ``any``: tasks are angles to x in [0, 2 pi] radians.

    Raises:
        ValueError: ``kind`` is neither.
    """

    def __init__(self, kind: str) -> None:
        if kind not in ("two", "any"):
            raise ValueError(f"directions is {kind!r}; expected 'two' or 'any'")
        self.finite = kind == "two"
        self.space = spaces.Discrete(2) if self.finite else spaces.Box(0.0, 2 * np.pi, (), np.float64)
        self.default = np.int64(0) if self.finite else np.array(0.0)

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[Any]:
        """Draw n tasks ``[n]``; each of two directions comes n / 2 times, rounded at random, in random order."""
        if self.finite:
            return rng.permutation((np.arange(n) + rng.integers(2)) % 2)
        return rng.uniform(0.0, 2 * np.pi, n)

    def vectors(self, tasks: NDArray[Any]) -> NDArray[np.float64]:
        """Return the unit vectors ``[task, 2]`` of tasks ``[task]``."""
        if self.finite:
            return np.stack([1.0 - 2.0 * tasks, np.zeros(len(tasks))], axis=1)
        return np.stack([np.cos(tasks), np.sin(tasks)], axis=1)


def check_max_velocity(value: Any) -> float:
    """Return the upper end of a range of velocities (m/s) as a float.

    Raises:
        ValueError: the value is not a finite number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < np.inf:
        raise ValueError(f"max_velocity is {value!r}; expected a finite number above 0")
    return float(value)
