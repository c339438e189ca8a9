"""Curves of training: the return on validation tasks after adaptation, by environment steps and by time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from metarl.experiments.reporting.drawing import Picture, legend, look, new_figure, style
from metarl.experiments.reporting.experience import number
from metarl.experiments.reporting.gather import Found
from metarl.experiments.reporting.rows import Row

Axis = Literal["environment steps", "seconds"]
_VALIDATION = re.compile(r"validation/return_step_(\d+)")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The validation of a row in training, after its last adaptation step.

    Attributes:
        label: of the row.
        at: ``[seed, validation]``, environment steps or seconds of training before.
        returns: ``[seed, validation]``.
    """

    label: str
    at: NDArray[np.float64]
    returns: NDArray[np.float64]


def trained(rows: Sequence[Row], axis: Axis) -> tuple[list[Trained], list[str]]:
    """Return what can be drawn of the training of rows, and the labels of those of which nothing can.

    Of seeds that are not equally far, the validations that all have are kept.
    """
    found, without = [], []
    for row in rows:
        parts = [part for run in row.runs if (part := _validations(run, axis)) is not None]
        count = min((part.shape[1] for part in parts), default=0)
        if not count:
            without.append(row.label)
            continue
        both = np.stack([part[:, :count] for part in parts])
        found.append(Trained(label=row.label, at=both[:, 0], returns=both[:, 1]))
    return found, without


def _validations(run: Found, axis: Axis) -> NDArray[np.float64] | None:
    """Return where the validations of a run are on the axis and their returns, ``[2, validation]``."""
    steps = [(int(match[1]), name) for name in run.progress if (match := _VALIDATION.fullmatch(name))]
    at = run.progress.get("rollout/timesteps")
    if not steps or at is None:
        return None
    returns = run.progress[max(steps)[1]]
    known = ~np.isnan(returns) & ~np.isnan(at)
    at, returns = at[known], returns[known]
    if axis == "seconds":
        seconds, total = run.cost.get("seconds"), run.cost.get("environment_steps")
        if not seconds or not total:
            return None
        at = at * (float(seconds) / float(total))
    return np.stack([at, returns]) if len(at) else None


def training_picture(name: str, axis: Axis, found: Sequence[Trained], without: Sequence[str]) -> Picture:
    """Return the figure of the training of rows, at least one, by steps or by time."""
    with style():
        figure = new_figure(3.9)
        axes = figure.subplots()
        for place, part in enumerate(found):
            looks = look(place)
            middle = part.at.mean(axis=0)
            axes.plot(middle, part.returns.mean(axis=0), label=part.label, markersize=4, linewidth=1.6, **looks)
            for at, returns in zip(part.at, part.returns, strict=True):
                axes.plot(at, returns, color=looks["color"], linewidth=0.7, alpha=0.7)
            ends = part.returns.min(axis=0), part.returns.max(axis=0)
            axes.fill_between(middle, *ends, color=looks["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("environment steps of training" if axis == "environment steps" else "time of training")
        axes.xaxis.set_major_formatter(FuncFormatter(_steps if axis == "environment steps" else _time))
        axes.set_xlim(left=0)
        axes.set_ylabel("return after adaptation")
        legend(figure, axes)
    return Picture(
        name=name,
        title=f"Training by {'environment steps' if axis == 'environment steps' else 'wall time'}",
        finding=_finding(axis, found),
        reading=_reading(axis, without),
        figure=figure,
    )


def _reading(axis: Axis, without: Sequence[str]) -> str:
    text = (
        "The return on validation tasks after the last adaptation step: thick lines are means over seeds, thin lines "
        "single seeds, bands reach from the lowest to the highest seed."
    )
    if axis == "seconds":
        text += " The time is that of the whole training (cost.json), spread evenly over its environment steps."
    return f"{text} Without training, or without a record of it: {', '.join(without)}." if without else text


def _finding(axis: Axis, found: Sequence[Trained]) -> str:
    parts = []
    for part in found:
        first, last = (number(float(part.returns[:, at].mean())) for at in (0, -1))
        end = float(part.at[:, -1].mean())
        spent = f"{end:,.0f} environment steps" if axis == "environment steps" else _time(end, 0)
        parts.append(
            f"{part.label} is at {first} at its first validation and at {last} after {spent}"
            f" (mean of {len(part.at)} seed{'' if len(part.at) == 1 else 's'})"
        )
    return f"Return on validation tasks after adaptation: {'; '.join(parts)}."


def _steps(value: float, place: int) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _time(value: float, place: int) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if abs(value) >= 2 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"
