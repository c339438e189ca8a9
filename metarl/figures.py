"""Pictures of adaptation: paths in the plane before and after each adaptation step, and the return after each step.

A family whose observations are positions in a plane has two methods on its environment: ``positions(observations)``,
arrays ``[..., 2]``, and ``landmarks(task)``, the task's points ``[point, 2]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from torch import Tensor

from metarl.agents import Rollouts
from metarl.envs import tasks as task_tools
from metarl.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPISODES = 5
_COLOURS = ("#9aa5b1", "#f0a202", "#2e5cb8", "#1b7f4f", "#7b2d8b", "#d1495b")


def has_paths(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether a family's observations are positions in a plane."""
    return task_tools.attribute(env, "positions") is not None and task_tools.attribute(env, "landmarks") is not None


def paths_figure(
    env: gymnasium.Env[Any, Any],
    tasks: Sequence[Any],
    rollouts: Sequence[Rollouts],
    evaluation: Evaluation | None = None,
    counted: str = "adaptation steps",
) -> Figure:
    """Draw some episodes of each task: a row for each task, a column for each adaptation step.

    Args:
        env: of a family with ``positions`` and ``landmarks``.
        tasks: the tasks to draw, the first ones of the rollouts.
        rollouts: after 0, 1, ... adaptation steps.
        evaluation: its returns are drawn in a further row; None for no such row.
        counted: what the columns count, as in ``Evaluation``; that of the evaluation if one is given.
    """
    # matplotlib is slow to import, and most uses of metarl draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counted = counted if evaluation is None else evaluation.counted
    rows, columns = len(tasks), len(rollouts)
    height = 2.0 * rows + (2.6 if evaluation is not None else 0.3)
    figure = Figure(figsize=(2.0 * columns + 0.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows + (evaluation is not None), columns, height_ratios=None)
    positions, landmarks = task_tools.attribute(env, "positions"), task_tools.attribute(env, "landmarks")
    for row, task in enumerate(tasks):
        paths = [[_path(positions, part, row, episode) for episode in range(_shown(part))] for part in rollouts]
        points = np.asarray(landmarks(task))
        every = np.concatenate([*[path for column in paths for path in column], points])
        centre, extent = (every.max(axis=0) + every.min(axis=0)) / 2, float(np.ptp(every, axis=0).max()) * 0.55 + 1e-3
        for column, drawn in enumerate(paths):
            axes = figure.add_subplot(grid[row, column])
            for path in drawn:
                axes.plot(path[:, 0], path[:, 1], color=_colour(column), linewidth=0.8, alpha=0.8)
            axes.plot(*drawn[0][0], marker="o", color="#333333", markersize=3)
            axes.plot(points[:, 0], points[:, 1], marker="*", color="#d64541", markersize=9, linestyle="none")
            axes.set(xlim=(centre[0] - extent, centre[0] + extent), ylim=(centre[1] - extent, centre[1] + extent))
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(step_name(column, counted), fontsize=9)
    if evaluation is not None:
        _draw_returns(figure.add_subplot(grid[rows, :]), evaluation)
    return figure


def _shown(rollouts: Rollouts) -> int:
    return min(EPISODES, rollouts.mask.shape[1])


def _path(positions: Any, rollouts: Rollouts, task: int, episode: int) -> Any:
    assert isinstance(rollouts.observations, Tensor)
    length = int(rollouts.mask[task, episode].sum()) + 1
    return positions(rollouts.observations[task, episode, :length].numpy())


def _colour(step: int) -> str:
    return _COLOURS[min(step, len(_COLOURS) - 1)]


def step_name(step: int, counted: str) -> str:
    """Return a point of adaptation in words.

    Args:
        step: how many adaptation steps, or earlier episodes, there were.
        counted: which of the two, as in ``Evaluation``.
    """
    if counted == "adaptation steps":
        return {0: "before adaptation", 1: "after 1 step"}.get(step, f"after {step} steps")
    return {0: "first episode", 1: "after 1 episode"}.get(step, f"after {step} episodes")


def _draw_returns(axes: Any, evaluation: Evaluation) -> None:
    entries = evaluation.to_json()["adaptation"]
    steps = [entry["step"] for entry in entries]
    means = np.array([entry["mean"] for entry in entries])
    spread = np.array([[entry["mean"] - entry["low"], entry["high"] - entry["mean"]] for entry in entries]).T
    axes.plot(steps, means, color="#777777", linewidth=1.0, zorder=1)
    for step, mean in zip(steps, means, strict=True):
        axes.errorbar(
            step, mean, spread[:, step : step + 1], fmt="o", color=_colour(step), markersize=6, capsize=4, zorder=2
        )
        axes.annotate(f"{mean:.1f}", (step, mean), textcoords="offset points", xytext=(9, -3), fontsize=8)
    if evaluation.oracle is not None:
        axes.axhline(float(evaluation.oracle.mean()), color="#1b7f4f", linestyle="--", linewidth=1.0)
        axes.annotate("optimum", (0, float(evaluation.oracle.mean())), textcoords="offset points", xytext=(0, -10),
                      fontsize=8, color="#1b7f4f")  # fmt: skip
    axes.set_xticks(steps, [step_name(step, evaluation.counted) for step in steps], fontsize=8)
    axes.set_xlim(-0.4, len(steps) - 0.6)
    axes.set_ylabel("mean return", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    tasks = len(entries[0]["per_task"])
    unit = "episodes a step" if evaluation.counted == "adaptation steps" else "trials each"
    axes.set_title(f"{tasks} {evaluation.split} tasks, {evaluation.episodes} {unit}", fontsize=8)
