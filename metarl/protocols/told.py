"""The numbers of episodes that an evaluation keeps of what was played, put together from all shares of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts
from metarl.gradients import task_axis
from metarl.protocols.protocol import Point
from metarl.results.kept import DETERMINISTIC

Statistics = Mapping[str, Callable[[Rollouts], Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is kept of a point.

    Attributes:
        label: how many adaptation steps or episodes were before.
        episodes_before: how many episodes of each task were seen before.
        steps_before: ``[task]``, their environment steps.
        episodes: how many were played of each task, by the ending of their statistics' names: none for those of the
            policy as it draws actions, ``DETERMINISTIC`` for its most likely ones.
        values: statistics by name with that ending, ``[task, episode]``; those that the episodes tell.
    """

    label: int
    episodes_before: int
    steps_before: NDArray[np.float64]
    episodes: Mapping[str, int]
    values: Mapping[str, NDArray[np.float32]]


def told_of(point: Point, statistics: Statistics) -> Told:
    """Return what is kept of a point.

    Args:
        point: what was played.
        statistics: by name.
    """
    played = {"": point.rollouts, DETERMINISTIC: point.deterministic}
    given = {ending: rollouts for ending, rollouts in played.items() if rollouts is not None}
    found = {
        name + ending: statistic(rollouts)
        for ending, rollouts in given.items()
        for name, statistic in statistics.items()
    }
    return Told(
        label=point.label,
        episodes_before=point.episodes_before,
        steps_before=point.steps_before,
        episodes={ending: rollouts.mask.shape[1] for ending, rollouts in given.items()},
        values={name: value.float().numpy() for name, value in found.items() if value is not None},
    )


def of_all_shares(own: list[list[Told]], groups: Sequence[range]) -> list[list[Told]]:
    """Return what is kept of all tasks, ``[group][point]``, from what is kept of this share's tasks."""
    if not task_axis.is_dealt():
        return own
    named: dict[str, NDArray[Any]] = {}
    for number, of_points in enumerate(own):
        for place, told in enumerate(of_points):
            start = f"{number} {place} "
            named |= {start: told.steps_before, **{start + name: values for name, values in told.values.items()}}
    shares = task_axis.gather_arrays(named)
    return [
        [
            _joined(told, [len(part) for part in task_axis.parts(group)], shares, f"{number} {place} ")
            for place, told in enumerate(of_points)
        ]
        for number, (of_points, group) in enumerate(zip(own, groups, strict=True))
    ]


def _joined(own: Told, tasks: Sequence[int], shares: Sequence[Mapping[str, NDArray[Any]]], start: str) -> Told:
    """Return what is kept of a point of all shares, of which those with no tasks played others' tasks."""
    with_tasks = [(count, share) for count, share in zip(tasks, shares, strict=True) if count]
    names = dict.fromkeys(
        name.removeprefix(start) for _, share in with_tasks for name in share if name.startswith(start)
    )
    episodes = {name: own.episodes[DETERMINISTIC if name.endswith(DETERMINISTIC) else ""] for name in names if name}

    def part(name: str, count: int, share: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        # What a share's episodes do not tell is what the statistics of all tasks would say of its tasks.
        nothing = 0.0 if name.startswith("success") else np.nan
        return share.get(start + name, np.full((count, episodes.get(name, 0)), nothing, dtype=np.float32))

    whole = {name: np.concatenate([part(name, count, share) for count, share in with_tasks]) for name in names}
    return replace(own, steps_before=whole.pop(""), values=whole)


def metrics_of(played: Sequence[Sequence[Told]], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return statistics of all episodes by name, ``[seed, task, point, episode]`` of a single seed.

    Those of the most likely actions have a name of their own. A statistic that tells nothing of any episodes is left
    out.

    Args:
        played: for each group of tasks, what is kept of each point.
        names: of the statistics.
    """
    every = [told for of_points in played for told in of_points]
    found: dict[str, NDArray[np.float32]] = {}
    for ending in ("", DETERMINISTIC):
        for name in (name + ending for name in names):
            if not any(name in told.values for told in every):
                continue
            longest = max(told.episodes[ending] for told in every if ending in told.episodes)
            by_group = [
                np.stack([_filled(told, name, ending, longest) for told in of_points], axis=1) for of_points in played
            ]
            found[name] = np.concatenate(by_group)[None]
    width = max(values.shape[3] for values in found.values())
    return {name: _padded(values, width) for name, values in found.items()}


def _filled(told: Told, name: str, ending: str, episodes: int) -> NDArray[np.float32]:
    """Return values ``[task, episode]``: 0 where a point does not tell what others tell, NaN where none is played."""
    if name in told.values:
        return _padded(told.values[name], episodes)
    nothing = 0.0 if ending in told.episodes else np.nan
    return np.full((len(told.steps_before), episodes), nothing, dtype=np.float32)


def _padded(values: NDArray[np.float32], episodes: int) -> NDArray[np.float32]:
    """Return values ``[..., episode]`` with NaN for the episodes that are missing."""
    missing = episodes - values.shape[-1]
    return np.concatenate([values, np.full((*values.shape[:-1], missing), np.nan, np.float32)], axis=-1)
