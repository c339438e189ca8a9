"""Curves of a score by the experience of a task: the mean, with a band of its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from metarl.experiments.reporting.drawing import INK, Picture, legend, look, new_figure, style
from metarl.results import Evaluation
from metarl.results.aggregates import mean_interval, tasks_of
from metarl.results.kept import DETERMINISTIC
from metarl.results.selection import region
from metarl.statistics import LEVEL

_FAR = 30.0  # times the smallest step of the axis at which it becomes logarithmic


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric of a row by experience.

    Attributes:
        label: of the row; of its tasks too, where it has regions.
        seeds: how many.
        tasks: how many a seed.
        experience: ``[point]``, episodes of the task before, mean over seeds and tasks.
        means: ``[point]``, over seeds and tasks.
        bounds: ``[point, 2]``, of the mean's interval.
        gain: the interval of the difference of the last point to the first, task by task.
        optimum: the best expected return, or None.
    """

    label: str
    seeds: int
    tasks: int
    experience: NDArray[np.float64]
    means: NDArray[np.float64]
    bounds: NDArray[np.float64]
    gain: tuple[float, float]
    optimum: float | None


def by_region(tested: Sequence[tuple[str, Evaluation]]) -> list[tuple[str, Evaluation]]:
    """Return labels and evaluations, each in its regions if it has some; labels say where scores are deterministic."""
    found = []
    for row, evaluation in tested:
        label = f"{row} (deterministic)" if evaluation.metric.endswith(DETERMINISTIC) else row
        names = dict.fromkeys(evaluation.regions or ())
        found += [(f"{label}, {name}", region(evaluation, name)) for name in names] or [(label, evaluation)]
    return found


def curves(tested: Sequence[tuple[str, Evaluation]], metric: str | None = None) -> list[Curve]:
    """Return the curves of a metric, of the rows that have it.

    Args:
        tested: labels and evaluations.
        metric: a name of ``Evaluation.metrics``, where scores are deterministic of what the most likely actions gave;
            default: the score of each.
    """
    found = []
    for label, evaluation in by_region(tested):
        ending = DETERMINISTIC if evaluation.metric.endswith(DETERMINISTIC) else ""
        name = evaluation.metric if metric is None else f"{metric}{ending}"
        if name not in evaluation.metrics:
            continue
        means = evaluation.means(name)
        tasks = tasks_of(evaluation)
        known = np.flatnonzero(~np.isnan(means).any(axis=(0, 1)))
        if not len(known):
            continue
        found.append(
            Curve(
                label=label,
                seeds=len(evaluation.seeds),
                tasks=evaluation.n_tasks,
                experience=evaluation.episodes_before.mean(axis=(0, 1))[known],
                means=means.mean(axis=(0, 1))[known],
                bounds=np.array([mean_interval(means[:, :, at], tasks) for at in known]),
                gain=mean_interval(means[:, :, known[-1]] - means[:, :, known[0]], tasks),
                optimum=float(evaluation.oracle.mean()) if metric is None and evaluation.oracle is not None else None,
            )
        )
    return found


def number(value: float, *, share: bool = False) -> str:
    """Return a number as the report writes it.

    >>> number(-3.14159), number(0.5, share=True), number(0.00012)
    ('-3.14', '50 %', '0.00012')
    """
    if share:
        return f"{100 * value:.0f} %"
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def with_interval(mean: float, bounds: Sequence[float] | NDArray[np.float64], *, share: bool = False) -> str:
    """Return a mean and its interval in brackets."""
    low, high = (number(float(bound), share=share) for bound in bounds)
    return f"{number(mean, share=share)} [{low}, {high}]"


def experience_picture(name: str, metric: str, found: Sequence[Curve]) -> Picture:
    """Return the figure of curves by experience.

    Args:
        name: of the picture.
        metric: what the curves are of, in words.
        found: at least one.
    """
    share = metric == "success rate"
    with style():
        figure = new_figure(4.2)
        axes = figure.subplots()
        for place, curve in enumerate(found):
            looks = look(place)
            axes.plot(curve.experience, curve.means, label=curve.label, markersize=5, linewidth=1.6, **looks)
            axes.fill_between(curve.experience, *curve.bounds.T, color=looks["color"], alpha=0.2, linewidth=0)
        optimum = _optimum(found)
        if optimum is not None:
            axes.axhline(optimum, color=INK, linestyle="--", linewidth=1.0, label="optimum")
        every = np.unique(np.concatenate([curve.experience for curve in found]))
        if len(every) > 2 and every[-1] > _FAR * every[every > 0][0]:
            axes.set_xscale("symlog", linthresh=float(every[every > 0][0]))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if share:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("episodes of the task before")
        axes.set_ylabel(metric)
        legend(figure, axes)
    return Picture(
        name=name,
        title=f"{metric.capitalize()} by experience",
        finding=_finding(metric, found, optimum),
        reading=f"Lines are means over seeds and tasks, bands their {LEVEL:.0%} intervals by bootstrap; of one seed "
        "they are over its tasks only.",
        figure=figure,
    )


def _optimum(found: Sequence[Curve]) -> float | None:
    known = [curve.optimum for curve in found if curve.optimum is not None]
    return float(np.mean(known)) if len(known) == len(found) else None


def _finding(metric: str, found: Sequence[Curve], optimum: float | None) -> str:
    share = metric == "success rate"
    parts = []
    for curve in found:
        first, last = (with_interval(curve.means[at], curve.bounds[at], share=share) for at in (0, -1))
        if len(curve.means) == 1:
            parts.append(f"{curve.label}: {first} after {_episodes(curve, 0)} of the task")
            continue
        begin = "at first" if curve.experience[0] == 0 else f"after {_episodes(curve, 0)}"
        low, high = curve.gain
        verb = "rises from" if low > 0 else "falls from" if high < 0 else "does not clearly change: from"
        parts.append(f"{curve.label} {verb} {first} {begin} to {last} after {_episodes(curve, -1)} of a task")
    text = f"{metric.capitalize()}: {'; '.join(parts)}."
    if len(found) > 1:
        best = max(found, key=lambda curve: float(curve.means[-1]))
        text += f" {best.label} ends highest."
    return text if optimum is None else f"{text} The optimum is {number(optimum)}."


def _episodes(curve: Curve, at: int) -> str:
    count = f"{curve.experience[at]:.0f}"
    return f"{count} episode{'' if count == '1' else 's'}"
