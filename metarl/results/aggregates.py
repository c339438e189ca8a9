"""Statistics of results over seeds and tasks, with intervals (Agarwal et al. 2021), as pure functions of arrays.

Scores are ``[seed, task]``: each is the mean over the episodes of one task (``Kept.means`` at one point).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.results.kept import Kept
from metarl.statistics import LEVEL, RESAMPLES, bootstrap_interval

Scores = NDArray[np.float64]
TasksOfSeeds = Literal["own", "common", "fixed"]
_AT_ONCE = 2_000_000  # numbers of resampled scores in memory


def mean(scores: Scores) -> Any:
    """Return the mean over the last two axes, seeds and tasks."""
    return scores.mean(axis=(-2, -1))


def median(scores: Scores) -> Any:
    """Return the median over tasks of the mean over seeds, of the last two axes ``[..., seed, task]``.

    Source: Agarwal et al. 2021, section 4. With tasks of their own for each seed, task i of one seed has nothing to do
    with task i of another; ``interquartile_mean`` does not put them together.
    """
    return np.median(scores.mean(axis=-2), axis=-1)


def interquartile_mean(scores: Scores) -> Any:
    """Return the mean of the middle half of all scores, of the last two axes ``[..., seed, task]``.

    The lowest and the highest quarter are left out, each rounded down to whole scores. It is less swayed by few scores
    than the mean, and less by chance than the median.

    Source: Agarwal et al. 2021, section 4.2 (as ``scipy.stats.trim_mean`` with 0.25).

    >>> float(interquartile_mean(np.array([[0.0, 1.0, 2.0, 100.0]])))
    1.5
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def share_of_the_way(scores: Scores, before: Scores, optimum: Scores) -> Any:
    """Return which share of the way from no adaptation to the optimum was made, over the last two axes.

    It is (mean score - mean before) / (mean optimum - mean before): 0 without gain, 1 at the optimum, below 0 if
    adaptation made it worse. It is a ratio of means over seeds and tasks, so that tasks on which there is hardly
    anything to gain do not blow it up. NaN where the mean before adaptation reaches that of the optimum already.

    Args:
        scores: after adaptation, ``[..., seed, task]``.
        before: before it, of the same tasks.
        optimum: the best expected return of each task.
    """
    room = mean(optimum) - mean(before)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(room > 0, (mean(scores) - mean(before)) / room, np.nan)


def optimality_gap(scores: Scores, before: Scores, optimum: Scores) -> Any:
    """Return which share of the way from no adaptation to the optimum is missing: 1 minus ``share_of_the_way``.

    It is 0 at the optimum and 1 without gain; above 1 if adaptation made it worse, and below 0 by chance only.
    """
    return 1.0 - share_of_the_way(scores, before, optimum)


def probability_of_improvement(ours: Scores, theirs: Scores, *, same_tasks: bool = False) -> Any:
    """Return how probable it is that ours beats theirs on the same task; a tie counts half.

    Source: Agarwal et al. 2021, section 4.3 (Mann-Whitney's U, mean over tasks).

    Args:
        ours: ``[..., seed, task]``.
        theirs: ``[..., seed, task]``.
        same_tasks: True where all seeds have the same tasks: every seed of ours is compared with every one of theirs.
            False where each seed has tasks of its own: it is compared with the same seed of theirs.

    Raises:
        ValueError: the numbers of tasks differ, or those of seeds where each has tasks of its own.
    """
    if ours.shape[-1] != theirs.shape[-1] or (not same_tasks and ours.shape != theirs.shape):
        raise ValueError(f"the shapes are {ours.shape} and {theirs.shape}; expected the same tasks, and seeds in pairs")
    if same_tasks:
        ours, theirs = ours[..., :, None, :], theirs[..., None, :, :]
    won = (ours > theirs) + 0.5 * (ours == theirs)
    return won.mean(axis=(-3, -2, -1) if same_tasks else (-2, -1))


def performance_profile(scores: Scores, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of scores ``[..., seed, task]`` above each threshold, ``[..., threshold]``.

    Source: Agarwal et al. 2021, section 4.1 (the run-score distribution).

    >>> performance_profile(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([-1.0, 0.0, 2.5])).tolist()
    [1.0, 0.75, 0.25]
    """
    shares: NDArray[np.float64] = (scores[..., None] > thresholds).mean(axis=(-3, -2))
    return shares


def resampled(
    count: int, seeds: int, n_tasks: int, tasks: TasksOfSeeds = "own"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return seeds ``[resample, seed, task]`` and tasks of the same shape, drawn with replacement.

    Args:
        count: the number of resamples.
        seeds: how many there are; a single one stays.
        n_tasks: how many tasks each seed has.
        tasks: ``own``: each seed has tasks of its own; seeds are drawn, and tasks within each drawn seed (Davison and
            Hinkley 1997, section 3.8). ``common``: all seeds have the same tasks; seeds are drawn, and tasks for all
            seeds at once. ``fixed``: the tasks are all that there are and stay, and seeds are drawn for each of them,
            the stratified bootstrap of Agarwal et al. 2021, section 3 (of a single seed, tasks are drawn).
    """
    rng, shape = np.random.default_rng(0), (count, seeds, n_tasks)
    if tasks == "fixed" and seeds > 1:
        return rng.integers(seeds, size=shape), np.broadcast_to(np.arange(n_tasks), shape)
    if tasks == "common":
        drawn = rng.integers(seeds, size=(count, seeds, 1)), rng.integers(n_tasks, size=(count, 1, n_tasks))
        return np.broadcast_to(drawn[0], shape), np.broadcast_to(drawn[1], shape)
    drawn_seeds, drawn_tasks = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for slot in range(seeds):  # in the order of ``bootstrap_interval``
        if seeds > 1:
            drawn_seeds[:, slot] = rng.integers(seeds, size=(count, 1))
        drawn_tasks[:, slot] = rng.integers(n_tasks, size=(count, n_tasks))
    return drawn_seeds, drawn_tasks


def interval(
    statistic: Callable[..., Any], *scores: Scores, tasks: TasksOfSeeds = "own", level: float = LEVEL
) -> tuple[Any, Any]:
    """Return the percentile bootstrap interval of a statistic; it is a deterministic function of the scores.

    Args:
        statistic: of the last two axes of one array or of several, which are resampled together.
        scores: the arrays ``[seed, task]``, of one shape.
        tasks: which tasks the seeds have, see ``resampled``.
        level: of the interval.

    Returns:
        the lower and the upper end, of the statistic's shape.
    """
    seeds, n_tasks = scores[0].shape
    picks = resampled(RESAMPLES, seeds, n_tasks, tasks)
    size = max(1, _AT_ONCE // (seeds * n_tasks))
    parts = [tuple(pick[start : start + size] for pick in picks) for start in range(0, RESAMPLES, size)]
    found = np.concatenate([np.asarray(statistic(*(part[chosen] for part in scores))) for chosen in parts])
    ends = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (float(ends[0]), float(ends[1])) if ends.ndim == 1 else (ends[0], ends[1])


def mean_interval(scores: Scores, tasks: TasksOfSeeds) -> tuple[float, float]:
    """Return the interval of the mean of scores ``[seed, task]``; ``tasks`` as for ``resampled``."""
    if tasks == "own" or len(scores) == 1:
        return bootstrap_interval(scores)
    low, high = interval(mean, scores, tasks=tasks)
    return low, high


def tasks_of(kept: Kept) -> TasksOfSeeds:
    """Return whether the seeds of an evaluation have tasks of their own or common ones."""
    return "common" if kept.has_same_tasks else "own"


def statistics_at(kept: Kept, point: int) -> dict[str, dict[str, float | None]]:
    """Return ``value``, ``low`` and ``high`` of the score's further statistics at a point.

    They are ``median`` and ``interquartile_mean``, and where the family knows the optimum ``optimality_gap``, from the
    first point; of that they are None where it has no room.

    Args:
        kept: of the evaluation.
        point: its number.
    """
    means, oracle, tasks = kept.means(), kept.oracle, tasks_of(kept)
    now = means[:, :, point]
    found = {name: _with_interval(statistic, now, tasks=tasks) for name, statistic in _OF_SCORES.items()}
    if oracle is not None:
        found["optimality_gap"] = _with_interval(optimality_gap, now, means[:, :, 0], oracle, tasks=tasks)
    return found


_OF_SCORES: dict[str, Callable[[Scores], Any]] = {"median": median, "interquartile_mean": interquartile_mean}


def _with_interval(statistic: Callable[..., Any], *scores: Scores, tasks: TasksOfSeeds) -> dict[str, float | None]:
    low, high = interval(statistic, *scores, tasks=tasks)
    values = {"value": float(statistic(*scores)), "low": low, "high": high}
    return {name: None if np.isnan(value) else value for name, value in values.items()}
