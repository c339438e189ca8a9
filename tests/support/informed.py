"""Policies of one who knows the task, for families whose optimum is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import metarl

Act = Callable[[Any, int], Any]  # observations [episode, ...] and the step to actions [episode, ...]


def head_for(goal: Any, step_length: float) -> Act:
    return lambda observations, step: (np.asarray(goal, dtype=np.float64) - observations) / step_length


def pull(task: Any) -> Act:
    return lambda observations, step: np.full(len(observations), int(np.argmax(task)))


def plan(task: Any, horizon: int = 10) -> Act:
    """Return the best action of each state at each step, by recursion over the steps that are left."""
    chance, mean = task["transitions"].astype(np.float64), task["rewards"].astype(np.float64)

    def values(left: int) -> Any:
        worth = [0.0] * 10 if left == 1 else values(left - 1).max(axis=1)
        return np.array(
            [[mean[s, a] + sum(chance[s, a, n] * worth[n] for n in range(10)) for a in range(5)] for s in range(10)]
        )

    best = [values(horizon - step).argmax(axis=1) for step in range(horizon)]
    return lambda observations, step: best[step][observations.argmax(axis=1)]


def prescribe(task: Any) -> Act:
    """Return the best doses, planned by the family, as actions."""
    doses = metarl.make("metarl/Dosing-v0").get_wrapper_attr("oracle_doses")(task)
    return lambda observations, step: np.full((len(observations), 1), doses[step] / 7.5 - 1.0, np.float32)


POLICIES: dict[str, Callable[[Any], Act]] = {
    "metarl/Navigation2D-v0": lambda task: head_for(task, 0.1),
    "metarl/HalfCircleNavigation2D-v0": lambda task: head_for([np.cos(task), np.sin(task)], 0.1),
    "metarl/CornerNavigation2D-v0": lambda task: head_for([[2, 2], [-2, 2], [-2, -2], [2, -2]][int(task)], 0.2),
    "metarl/BernoulliBandit-v0": pull,
    "metarl/GaussianBandit-v0": pull,
    "metarl/TabularMDP-v0": plan,
    "metarl/Dosing-v0": prescribe,
    "metarl/Recommend-v0": lambda task: lambda observations, step: np.tile(task, (len(observations), 1)),
}
