"""Tasks as vectors of numbers, for networks that are told the task."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools


def has_vectors(space: spaces.Space[Any]) -> bool:
    """Whether tasks of a space can be turned into vectors of numbers of a fixed length."""
    try:
        return not task_tools.has_texts(space) and isinstance(spaces.flatten_space(space), spaces.Box)
    except NotImplementedError:
        return False


def scaled_vectors(space: spaces.Space[Any], batch: Any) -> NDArray[np.float64]:
    """Return a batch of tasks as vectors ``[task, number]``, with each entry that has limits scaled to [-1, 1].

    Raises:
        ValueError: see ``to_vectors``.
    """
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    low, high = flat.low.astype(np.float64), flat.high.astype(np.float64)
    bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    scaled: NDArray[np.float64] = (task_tools.to_vectors(space, batch) - (low + high) / 2) / ((high - low) / 2)
    return scaled
