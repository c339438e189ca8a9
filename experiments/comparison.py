"""The results of a comparison: intervals over seeds and tasks, paired differences, tables and a picture."""

from __future__ import annotations

import csv
import functools
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from metarl.files import replacing
from metarl.results.aggregates import TasksOfSeeds, mean_interval
from metarl.statistics import LEVEL

BASELINES = ("pretrained", "scratch")
UNKNOWN = "–"
STEPS = "adaptation steps"
FILES = ("comparison.csv", "differences.csv", "comparison.md", "comparison.png", "comparison.html")
_SIZES, _RETURNS = ["learner", "seeds", "tasks", "episodes"], ["step", "mean", "low", "high"]
_SUCCESS = ["success", "success_low", "success_high"]
_COLUMNS = [*_SIZES, *_RETURNS, "environment_steps", "training_seconds", "earlier_episodes", *_SUCCESS]
_KNOWN_COLUMNS = [_COLUMNS[:length] for length in (len(_COLUMNS), -3, -4)]  # those of older versions are fewer


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a comparison.

    Attributes:
        label: the row's name.
        learner: the learner's name.
        seeds: in the order of ``returns``.
        returns: ``[seed, step, task]``; a seed's tasks are the same for all rows.
        episodes: for each adaptation step and task.
        optimum: the best expected return, mean over seeds and tasks; None if the family does not define it.
        environment_steps: of training, mean over seeds; None if not measured.
        seconds: of training, mean over seeds; None if not measured.
        counted: what the axis ``step`` of ``returns`` counts, as in ``Evaluation``.
        tasks: whether the seeds have common tasks or each its own, see ``aggregates.resampled``.
        successes: ``[seed, step, task]``, the share of episodes with success; None if ``info`` does not tell.
    """

    label: str
    learner: str
    seeds: tuple[int, ...]
    returns: NDArray[np.float64]
    episodes: int
    optimum: float | None
    environment_steps: float | None
    seconds: float | None
    counted: str = STEPS
    tasks: TasksOfSeeds = "own"
    successes: NDArray[np.float64] | None = None

    @property
    def experience(self) -> NDArray[np.int64]:
        """The number of earlier episodes of a task after 0, 1, ... steps."""
        return np.arange(self.steps + 1) * (self.episodes if self.counted == STEPS else 1)

    @property
    def steps(self) -> int:
        """The number of adaptation steps."""
        return int(self.returns.shape[1]) - 1

    @functools.cached_property
    def means(self) -> NDArray[np.float64]:
        """The mean return after 0, 1, ... steps."""
        means: NDArray[np.float64] = self.returns.mean(axis=(0, 2))
        return means

    @functools.cached_property
    def intervals(self) -> NDArray[np.float64]:
        """The bounds of the means' intervals, ``[step, 2]``."""
        return np.array([mean_interval(self.returns[:, step], self.tasks) for step in range(self.steps + 1)])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of one row's return to a baseline's after given steps: the mean over tasks, and its interval.

    It is paired: differences are computed task by task, for the seeds that both rows have.
    """

    learner: str
    step: int
    baseline: str
    baseline_step: int
    seeds: int
    tasks: int
    mean: float
    low: float
    high: float


def difference(entry: Entry, baseline: Entry, step: int, baseline_step: int) -> Difference | None:
    """Return the difference of two rows' returns after given steps; None if they have no seed in common."""
    common = [seed for seed in entry.seeds if seed in baseline.seeds]
    if not common:
        return None
    ours, theirs = (
        part.returns[[part.seeds.index(seed) for seed in common], at]
        for part, at in ((entry, step), (baseline, baseline_step))
    )
    low, high = mean_interval(ours - theirs, entry.tasks if entry.tasks == baseline.tasks else "own")
    return Difference(
        learner=entry.label,
        step=step,
        baseline=baseline.label,
        baseline_step=baseline_step,
        seeds=len(common),
        tasks=ours.shape[1],
        mean=float((ours - theirs).mean()),
        low=low,
        high=high,
    )


def common_steps(entries: Sequence[Entry]) -> int:
    """Return the number of adaptation steps that all rows have."""
    return min(entry.steps for entry in entries)


def baselines(entries: Sequence[Entry]) -> list[tuple[Entry, int]]:
    """Return the baselines among the rows, and the step of each with which other rows after one step are compared.

    A learner without settings of its own is a baseline too, where there are rows of it with settings. The step is one,
    but the last of a baseline with more steps than other rows, that is, with a larger budget.
    """
    shortest, kinds = common_steps(entries), Counter(entry.learner for entry in entries)
    return [
        (entry, min(1, entry.steps) if entry.steps <= max(1, shortest) else entry.steps)
        for entry in entries
        if entry.learner in BASELINES or (entry.label == entry.learner and kinds[entry.learner] > 1)
    ]


def differences(entries: Sequence[Entry]) -> Iterator[Difference]:
    """Yield the difference of each row after one step to each baseline."""
    for entry, (baseline, step) in itertools.product(entries, baselines(entries)):
        if entry is not baseline:
            found = difference(entry, baseline, min(1, entry.steps), step)
            if found is not None:
                yield found


def write_tables(entries: Sequence[Entry], out: Path) -> str:
    """Write ``comparison.csv``, ``differences.csv`` and ``comparison.md``, and return the text of the last."""
    with replacing(out / "comparison.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for entry in entries:
            size = [len(entry.seeds), entry.returns.shape[2], entry.episodes]
            for step, (mean, bounds) in enumerate(zip(entry.means, entry.intervals, strict=True)):
                cost = [entry.environment_steps, entry.seconds]
                before = int(entry.experience[step])
                told = entry.successes
                success = ["", "", ""] if told is None else interval_of(told[:, step], entry.tasks)
                writer.writerow([entry.label, *size, step, float(mean), *map(float, bounds), *cost, before, *success])
    found = list(differences(entries))
    with replacing(out / "differences.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Difference))
        writer.writerows(astuple(part) for part in found)
    text = _returns_table(entries) + _successes_table(entries)
    text += _differences_table(entries, found) if found else ""
    with replacing(out / "comparison.md") as beside:
        beside.write_text(text, encoding="utf-8")
    return text


def read_rows(out: Path) -> dict[str, int]:
    """Return the rows of the tables that a folder holds: labels, and the number of seeds of each.

    Raises:
        ValueError: a file with a name of ``FILES`` is there that ``write_tables`` did not write.
    """
    path = out / FILES[0]
    present = [name for name in FILES if os.path.lexists(out / name)]
    if not present:
        return {}
    try:
        if FILES[0] not in present:
            raise ValueError("is missing")
        header, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        if header not in _KNOWN_COLUMNS or not rows:
            raise ValueError("has other columns or no rows")
        return {row[0]: int(row[1]) for row in rows}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(
            f"{str(out)!r} holds {', '.join(present)}, which would be overwritten, and {FILES[0]} is no table of "
            f"'metarl compare' to which rows could be added ({error}); move them elsewhere, or choose another --out"
        ) from error


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _returns_table(entries: Sequence[Entry]) -> str:
    last = common_steps(entries)
    longer = any(entry.steps > last for entry in entries)
    remembering = any(entry.counted != STEPS for entry in entries)
    rows = []
    for entry in entries:
        cells = [
            f"{mean:.2f} [{low:.2f}, {high:.2f}]"
            for mean, (low, high) in zip(entry.means, entry.intervals, strict=True)
        ]
        more = [f"after {entry.steps}: {cells[-1]}" if entry.steps > last else ""] if longer else []
        steps = UNKNOWN if entry.environment_steps is None else f"{entry.environment_steps:,.0f}"
        seconds = UNKNOWN if entry.seconds is None else f"{entry.seconds:,.0f} s"
        unit = [f"{entry.episodes} episodes" if entry.counted == STEPS else "1 episode"] if remembering else []
        rows.append([entry.label, str(len(entry.seeds)), *unit, *cells[: last + 1], *more, steps, seconds])
    titles = [
        "learner",
        "seeds",
        *(["a step is"] if remembering else []),
        *(f"after {step}" for step in range(last + 1)),
        *(["after more"] if longer else []),
    ]
    episodes = sorted({entry.episodes for entry in entries if entry.counted == STEPS})
    by_steps = f"adaptation steps of {' or '.join(map(str, episodes))} episodes" if episodes else ""
    by_memory = "earlier episodes of a trial, for learners with memory" if remembering else ""
    single = [entry.label for entry in entries if len(entry.seeds) == 1]
    alone = f" Of one seed, so that its intervals are over tasks only: {', '.join(single)}." if single else ""
    return (
        f"Return on {entries[0].returns.shape[2]} test tasks a seed after 0, 1, ... "
        f"{', or '.join(filter(None, [by_steps, by_memory]))}, with {LEVEL:.0%} intervals by bootstrap over seeds and "
        f"tasks; environment steps and time of training, a run's mean.{alone}\n\n"
        + _table([*titles, "environment steps", "training time"], rows)
    )


def interval_of(values: NDArray[np.float64], tasks: TasksOfSeeds) -> list[float]:
    """Return the mean of values ``[seed, task]`` and the bounds of its interval."""
    return [float(values.mean()), *mean_interval(values, tasks)]


def _successes_table(entries: Sequence[Entry]) -> str:
    """Return a table of success rates, of the rows that tell of success; nothing if none does."""
    last = common_steps(entries)
    longer = any(entry.steps > last for entry in entries)
    rows = []
    for entry in entries:
        if entry.successes is None:
            continue
        shares = [interval_of(entry.successes[:, step], entry.tasks) for step in range(entry.steps + 1)]
        cells = [f"{mean:.0%} [{low:.0%}, {high:.0%}]" for mean, low, high in shares]
        more = [f"after {entry.steps}: {cells[-1]}" if entry.steps > last else ""] if longer else []
        rows.append([entry.label, *cells[: last + 1], *more])
    if not rows:
        return ""
    titles = ["learner", *(f"after {step}" for step in range(last + 1)), *(["after more"] if longer else [])]
    return "\nShare of the episodes with success, likewise.\n\n" + _table(titles, rows)


def _differences_table(entries: Sequence[Entry], found: Sequence[Difference]) -> str:
    columns = baselines(entries)
    cells = {(part.learner, part.baseline): f"{part.mean:+.2f} [{part.low:+.2f}, {part.high:+.2f}]" for part in found}
    rows = [
        [entry.label, *(cells.get((entry.label, baseline.label), UNKNOWN) for baseline, _ in columns)]
        for entry in entries
    ]
    titles = ["learner", *(f"minus {baseline.label} after {step}" for baseline, step in columns)]
    return (
        "\nReturn after one step minus that of a baseline, task by task (paired), with intervals as above; an interval "
        "above zero: better than the baseline.\n\n" + _table(titles, rows)
    )


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draw the return against the adaptation steps, with intervals over seeds and tasks: all rows, and the better half.

    If some learners remember, the axis is the number of earlier episodes of a task instead, which all learners have in
    common. Rows are drawn side by side; one with more steps than others is drawn up to the others' last
    step, and its final return as a dotted line.
    """
    last = common_steps(entries)
    best_first = sorted(entries, key=lambda entry: entry.means[last], reverse=True)
    better = best_first[: (len(entries) + 1) // 2]
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    everything, zoomed = figure.subplots(1, 2)
    everything.set_title("all")
    everything.set_ylabel("return on test tasks")
    zoomed.set_title("the better half, after adaptation")
    zoomed.set_ylim(zoom(better))
    by_experience = any(entry.counted != STEPS for entry in entries)
    optima = [entry.optimum for entry in entries if entry.optimum is not None]
    for axes, shown in ((everything, best_first), (zoomed, better)):
        for number, entry in enumerate(shown):
            if by_experience:
                _draw_experience(axes, entry, number)
            else:
                _draw_row(axes, entry, number, len(shown), last)
        if optima:
            axes.axhline(float(np.mean(optima)), color="black", linestyle="--", linewidth=1, label="optimum")
        axes.set_xlabel("earlier episodes of the task" if by_experience else STEPS)
        if by_experience:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*everything.get_legend_handles_labels(), loc="outside right center")
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110, format="png")


def zoom(entries: Sequence[Entry]) -> tuple[float, float]:
    """Return the axis limits that show the rows' returns from the first adaptation step on."""
    last = common_steps(entries)
    shown = np.concatenate([entry.intervals[min(1, last) : last + 1] for entry in entries])
    low, high = float(shown[:, 0].min()), float(shown[:, 1].max())
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_experience(axes: Axes, entry: Entry, number: int) -> None:
    lengths = np.abs(entry.intervals.T - entry.means)
    colour = mpl.colormaps["tab20"](number % 20)
    marker = "os^Dv*"[number % 6]
    axes.errorbar(entry.experience, entry.means, lengths, marker=marker, markersize=4, color=colour, label=entry.label)


def _draw_row(axes: Axes, entry: Entry, number: int, count: int, last: int) -> None:
    colour = mpl.colormaps["tab20"](number % 20)
    at = np.arange(last + 1) + 0.3 * ((number + 0.5) / count - 0.5)
    means, bounds = entry.means[: last + 1], entry.intervals[: last + 1]
    lengths = np.abs(bounds.T - means)
    axes.errorbar(at, means, lengths, marker="os^Dv*"[number % 6], markersize=4, color=colour, label=entry.label)
    if entry.steps > last:
        label = f"{entry.label}, after {entry.steps} steps"
        axes.axhline(entry.means[-1], color=colour, linestyle=":", label=label)
