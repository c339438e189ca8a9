"""Statistics of episodes, one function each, and confidence intervals of their means.

The functions in ``STATISTICS`` are part of every evaluation: of its table, its JSON and the metrics of validation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts

LEVEL = 0.95
RESAMPLES = 2000
SuccessAt = Literal["any", "last"]
SUCCESS_INFO = ("success", "is_success")  # as Meta-World and stable-baselines3 name it


def number_infos(
    info: dict[str, Any], running: NDArray[np.bool_], record: Sequence[str] = ()
) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a vector environment's ``info`` that the statistics need, by name; those that any tells.

    Args:
        info: with arrays ``[sub-environment]``.
        running: ``[sub-environment]``, whose episode is running; the others, and those that do not tell, have NaN.
        record: names of entries that are kept besides those of success.
    """
    kept = {}
    for name in (*SUCCESS_INFO, *record):
        found = info.get(name)
        if isinstance(found, np.ndarray) and found.shape == running.shape and found.dtype.kind in "biuf":
            told = running & np.asarray(info.get(f"_{name}", True), dtype=np.bool_)
            kept[name] = np.where(told, found.astype(np.float64), np.nan)
    return kept


def episode_return(rollouts: Rollouts) -> Tensor:
    """Return the undiscounted return of every episode, ``[task, episode]``."""
    return rollouts.episode_returns()


def episode_length(rollouts: Rollouts) -> Tensor:
    """Return how many environment steps every episode took, ``[task, episode]``."""
    return rollouts.mask.sum(dim=2)


def episode_success(rollouts: Rollouts, when: SuccessAt = "any") -> Tensor | None:
    """Return 1 for every episode in which ``info`` reported success, else 0: ``[task, episode]``.

    None if no ``info`` has an entry for success (``SUCCESS_INFO``).

    Args:
        rollouts: of the episodes.
        when: ``any``: at some step, as Meta-World counts; ``last``: at the last step of which ``info`` told, as
            stable-baselines3 counts.
    """
    told = [rollouts.infos[name] for name in SUCCESS_INFO if name in rollouts.infos]
    if not told or all(bool(torch.isnan(part).all()) for part in told):
        return None
    at = [(part > 0).any(dim=2) if when == "any" else _last_told(part) > 0 for part in told]
    return torch.stack(at).any(dim=0).to(rollouts.rewards.dtype)


def _last_told(values: Tensor) -> Tensor:
    """Return the last of each episode's values ``[task, episode, time]`` that is a number; 0 where none is."""
    known = ~torch.isnan(values)
    last = (known * torch.arange(1, values.shape[2] + 1)).argmax(dim=2, keepdim=True)
    return torch.where(known.any(dim=2), values.gather(2, last)[..., 0], 0.0)


def episode_info(rollouts: Rollouts, name: str) -> Tensor | None:
    """Return the mean over every episode's steps of an entry of ``info``, ``[task, episode]``; NaN where none told it.

    None if no ``info`` has it.
    """
    told = rollouts.infos.get(name)
    return None if told is None or bool(torch.isnan(told).all()) else told.nanmean(dim=2)


STATISTICS: dict[str, Callable[[Rollouts], Tensor | None]] = {
    "return": episode_return,
    "length": episode_length,
    "success": episode_success,
}


def statistics_of(success: SuccessAt, record: Sequence[str]) -> dict[str, Callable[[Rollouts], Tensor | None]]:
    """Return the statistics of an evaluation by name: those of ``STATISTICS``, and means of entries of ``info``.

    Args:
        success: when an episode counts as a success.
        record: the names of the entries.
    """
    further = {name: functools.partial(episode_info, name=name) for name in record}
    return {**STATISTICS, "success": functools.partial(episode_success, when=success), **further}


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
