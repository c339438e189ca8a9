"""Figures of single tasks: the return before and after adaptation by the task's parameters, and a map of places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.experiments.reporting.drawing import COLOURS, INK, Picture, legend, new_figure, style
from metarl.experiments.reporting.experience import number
from metarl.results import Evaluation

PANELS = 3  # parameters that are drawn, at most
MOST = 400  # tasks that are drawn, at most


def task_picture(name: str, label: str, evaluation: Evaluation) -> Picture | None:
    """Return the figure of a row's tasks; None if the tasks are not known, have no numbers, or there is one point.

    Tasks that are two numbers, as places in the plane, become a map; others a panel for each parameter.
    """
    parameters = task_numbers(evaluation)
    means = evaluation.means().reshape(-1, len(evaluation.points))
    before, after = means[:, 0], means[:, -1]
    if not parameters or means.shape[1] < 2 or np.isnan(before + after).any():
        return None
    shown = np.unique(np.linspace(0, len(before) - 1, min(MOST, len(before))).astype(np.int64))
    is_map = list(parameters) == ["task[0]", "task[1]"]
    names = list(parameters)[:PANELS]
    with style():
        figure = new_figure(3.7 if is_map else 3.4)
        drawn = {name: values[shown] for name, values in parameters.items()}
        if is_map:
            _draw_map(figure, drawn, before[shown], after[shown])
        else:
            _draw_panels(figure, {name: drawn[name] for name in names}, before[shown], after[shown])
    return Picture(
        name=name,
        title=f"{'Map of tasks' if is_map else 'Return by task'}: {label}",
        finding=_finding(label, parameters, before, after),
        reading=_reading(is_map=is_map, parameters=list(parameters), drawn=len(shown), of=len(before)),
        figure=figure,
    )


def task_numbers(evaluation: Evaluation) -> dict[str, NDArray[np.float64]]:
    """Return the numbers that tasks consist of, by name, each ``[seed * task]``; those that vary, none if unknown."""
    tasks = [task for run in evaluation.runs for task in run.tasks or ()]
    if len(tasks) < evaluation.n_tasks * len(evaluation.runs):
        return {}
    rows = [dict(_numbers(task, "task")) for task in tasks]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    found = {name: np.array([row[name] for row in rows]) for name in names}
    return {name: values for name, values in found.items() if np.ptp(values) > 0}


def _numbers(task: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(task, dict):
        for key, value in task.items():
            yield from _numbers(value, key if name == "task" else f"{name}.{key}")
    elif isinstance(task, list | tuple):
        for place, value in enumerate(task):
            yield from _numbers(value, name if len(task) == 1 else f"{name}[{place}]")
    elif isinstance(task, int | float):
        yield name, float(task)


def _draw_panels(
    figure: Figure, parameters: dict[str, NDArray[np.float64]], before: NDArray[np.float64], after: NDArray[np.float64]
) -> None:
    panels: list[Axes] = list(figure.subplots(1, len(parameters), sharey=True, squeeze=False)[0])
    for axes, (name, values) in zip(panels, parameters.items(), strict=True):
        axes.plot(
            values, before, "o", markerfacecolor="none", color=COLOURS[1], markersize=4, label="before adaptation"
        )
        axes.plot(values, after, "s", color=COLOURS[0], markersize=4, alpha=0.8, label="after adaptation")
        axes.set_xlabel(name)
    panels[0].set_ylabel("return")
    legend(figure, panels[0])


def _draw_map(
    figure: Figure, places: dict[str, NDArray[np.float64]], before: NDArray[np.float64], after: NDArray[np.float64]
) -> None:
    panels: list[Axes] = list(figure.subplots(1, 2, sharex=True, sharey=True))
    both = np.concatenate([before, after])
    norm = mpl.colors.Normalize(float(both.min()), float(both.max()))
    colours = mpl.colormaps["viridis"].resampled(24)
    first, second = places.values()
    for axes, values, title in zip(panels, (before, after), ("before adaptation", "after adaptation"), strict=True):
        dots = axes.scatter(first, second, c=values, cmap=colours, norm=norm, s=26, edgecolors=INK, linewidths=0.5)
        axes.set_title(title)
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel("task[0]")
    panels[0].set_ylabel("task[1]")
    figure.colorbar(dots, ax=panels, label="return", shrink=0.9)


def _finding(
    label: str, parameters: dict[str, NDArray[np.float64]], before: NDArray[np.float64], after: NDArray[np.float64]
) -> str:
    gain = after - before
    better = int((gain > 0).sum())
    worst = int(after.argmin())
    where = ", ".join(f"{name} = {number(float(values[worst]))}" for name, values in list(parameters.items())[:PANELS])
    text = (
        f"{label}: on {better} of {len(gain)} tasks ({better / len(gain):.0%}) the return is higher after adaptation "
        f"than before; the median gain is {number(float(np.median(gain)))}. The lowest return after "
        f"adaptation is {number(float(after[worst]))}, at {where}."
    )
    related = {name: _correlation(values, gain) for name, values in parameters.items()}
    name = max(related, key=lambda name: abs(related[name]))
    return f"{text} Of the parameters, {name} goes with the gain most (correlation {related[name]:+.2f})."


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0


def _reading(*, is_map: bool, parameters: list[str], drawn: int, of: int) -> str:
    text = (
        "Each dot is a task of a seed, at the place that the task is; its colour is the mean return of its episodes."
        if is_map
        else "Each task of each seed has two marks: the mean return of its episodes before (rings) and after (squares) "
        "adaptation."
    )
    if not is_map and len(parameters) > PANELS:
        text += f" The first {PANELS} of {len(parameters)} parameters are drawn."
    return text if drawn == of else f"{text} {drawn} of {of} tasks are drawn, the words are of all."
