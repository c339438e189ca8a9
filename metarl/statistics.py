"""Statistics of episodes, one function each, and confidence intervals of their means.

The functions in ``STATISTICS`` are part of every evaluation: of its table, its JSON and the metrics of validation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts

LEVEL = 0.95
RESAMPLES = 2000
SUCCESS_INFO = ("success", "is_success")  # as Meta-World and stable-baselines3 name it


def number_infos(info: dict[str, Any], running: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a vector environment's ``info`` that the statistics need, by name; those that any tells.

    Args:
        info: with arrays ``[sub-environment]``.
        running: ``[sub-environment]``, whose episode is running; the others, and those that do not tell, have NaN.
    """
    kept = {}
    for name in SUCCESS_INFO:
        found = info.get(name)
        if isinstance(found, np.ndarray) and found.shape == running.shape and found.dtype.kind in "biuf":
            told = running & np.asarray(info.get(f"_{name}", True), dtype=np.bool_)
            kept[name] = np.where(told, found.astype(np.float64), np.nan)
    return kept


def episode_return(rollouts: Rollouts) -> Tensor:
    """Return the undiscounted return of every episode, ``[task, episode]``."""
    return rollouts.episode_returns()


def episode_success(rollouts: Rollouts) -> Tensor | None:
    """Return 1 for every episode in which ``info`` reported success at some step, else 0: ``[task, episode]``.

    None if no ``info`` has an entry for success (``SUCCESS_INFO``).
    """
    told = [rollouts.infos[name] for name in SUCCESS_INFO if name in rollouts.infos]
    if not told or all(bool(torch.isnan(part).all()) for part in told):
        return None
    return torch.stack([(part > 0).any(dim=2) for part in told]).any(dim=0).to(rollouts.rewards.dtype)


STATISTICS: dict[str, Callable[[Rollouts], Tensor | None]] = {
    "return": episode_return,
    "success": episode_success,
}


def bootstrap_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values; it is a deterministic function of them.

    If there are several seeds, seeds are resampled with replacement, and then tasks within each resampled seed.

    Args:
        values: ``[task]`` or ``[seed, task]``.
        level: of the interval.

    Source: Efron 1979; for two levels Davison and Hinkley 1997, section 3.8. The resampling is seeded with a constant.
    """
    rng = np.random.default_rng(0)
    by_seed = np.atleast_2d(values)
    seeds, tasks = by_seed.shape
    means = np.zeros(RESAMPLES)
    for _ in range(seeds):
        chosen = rng.integers(seeds, size=(RESAMPLES, 1)) if seeds > 1 else np.zeros((RESAMPLES, 1), dtype=np.int64)
        means += by_seed[chosen, rng.integers(tasks, size=(RESAMPLES, tasks))].mean(axis=1) / seeds
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
