"""The tables of a report, for the page and for spreadsheets."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.experiments.comparison import UNKNOWN, Difference, Entry, baselines, difference
from metarl.experiments.reporting.experience import curves, with_interval
from metarl.experiments.reporting.rows import Chapter, Row, differing
from metarl.results import Evaluation
from metarl.results.aggregates import tasks_of

Cells = list[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: its first column names the rows.

    Attributes:
        name: of its file.
        title: its caption.
        columns: titles.
        rows: of text.
        numbers: titles and rows for a spreadsheet.
    """

    name: str
    title: str
    columns: Cells
    rows: list[Cells]
    numbers: list[list[Any]]

    @property
    def csv(self) -> str:
        """The table for a spreadsheet."""
        memory = io.StringIO()
        csv.writer(memory, lineterminator="\n").writerows(self.numbers)
        return memory.getvalue()


def settings_tables(name: str, rows: Sequence[Row]) -> tuple[Table, Table]:
    """Return the seeds and the settings in which rows differ, and those in common."""
    asked = [row.asked for row in rows]
    names = list(dict.fromkeys(key for own in asked for key in own))
    different = differing(asked)
    cells = [["seed", *(", ".join(str(run.settings["seed"]) for run in row.runs) for row in rows)]]
    cells += [[key, *(_plain(own[key]) if key in own else UNKNOWN for own in asked)] for key in different]
    titles = ["setting", *(row.label for row in rows)]
    first = Table(
        name=f"{name}-settings-that-differ",
        title="Seeds, and settings that differ between rows",
        columns=titles,
        rows=cells,
        numbers=[titles, *cells],
    )
    common = [[key, _plain(asked[0][key])] for key in names if key not in different]
    second = Table(
        name=f"{name}-settings-in-common",
        title="Settings in common",
        columns=["setting", "value"],
        rows=common,
        numbers=[["setting", "value"], *common],
    )
    return first, second


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def results_table(name: str, chapter: Chapter) -> Table | None:
    """Return the score and the success rate at every point of every row."""
    scores = curves(chapter.tested)
    if not scores:
        return None
    successes = {curve.label: curve for curve in curves(chapter.tested, "success")}
    titles = ["learner", "seeds", "tasks a seed", "episodes before", "return", *(["success rate"] if successes else [])]
    cells, numbers = [], []
    for curve in scores:
        success = successes.get(curve.label)
        shares = {} if success is None else dict(zip(success.experience, range(len(success.means)), strict=True))
        for at, before in enumerate(curve.experience):
            row = [curve.label, str(curve.seeds), str(curve.tasks), f"{before:,.0f}"]
            row.append(with_interval(curve.means[at], curve.bounds[at]))
            bare = [curve.label, curve.seeds, curve.tasks, before, curve.means[at], *curve.bounds[at]]
            if success is not None and before in shares:
                mean, bounds = success.means[shares[before]], success.bounds[shares[before]]
                row.append(with_interval(mean, bounds, share=True))
                bare += [mean, *bounds]
            elif successes:
                row.append(UNKNOWN)
                bare += ["", "", ""]
            cells.append(row)
            numbers.append(bare)
    heads = ["learner", "seeds", "tasks", "episodes_before", "return", "low", "high"]
    heads += ["success", "success_low", "success_high"] if successes else []
    title = "Return and success" if successes else "Return"
    return Table(
        name=f"{name}-results",
        title=f"{title} by experience, with 95 % intervals",
        columns=titles,
        rows=cells,
        numbers=[heads, *numbers],
    )


def costs_table(name: str, rows: Sequence[Row]) -> Table:
    """Return what training every run took."""
    cells, numbers = [], []
    for row, run in ((each, run) for each in rows for run in each.runs):
        steps, seconds = run.cost.get("environment_steps"), run.cost.get("seconds")
        iterations = None if run.evaluation is None else run.evaluation.iteration
        bare = [row.label, run.settings["seed"], iterations, steps, seconds]
        words = [UNKNOWN if value is None else f"{value:,.0f}" for value in (iterations, steps, seconds)]
        cells.append([row.label, str(run.settings["seed"]), *words])
        numbers.append(["" if value is None else value for value in bare])
    return Table(
        name=f"{name}-costs",
        title="What training took",
        columns=["learner", "seed", "iterations of the result", "environment steps", "seconds"],
        rows=cells,
        numbers=[["learner", "seed", "iterations", "environment_steps", "seconds"], *numbers],
    )


def differences_table(name: str, chapter: Chapter, faults: list[str]) -> Table | None:
    """Return differences to the baselines, task by task; None if there are none.

    Args:
        name: of the chapter.
        chapter: whose rows are compared.
        faults: gets a sentence for every two rows that cannot be compared.
    """
    entries = [_entry(row, row.evaluation) for row in chapter.rows if _comparable(row.evaluation)]
    found = list(_differences(chapter, entries, faults))
    if not found:
        return None
    titles = ["learner", "compared with", "difference", "seeds", "tasks a seed", "in words"]
    cells = [
        [
            f"{part.learner}, after {part.step}",
            f"{part.baseline}, after {part.baseline_step}",
            with_interval(part.mean, (part.low, part.high)),
            str(part.seeds),
            str(part.tasks),
            "better" if part.low > 0 else "worse" if part.high < 0 else "no clear difference",
        ]
        for part in found
    ]
    heads = ["learner", "step", "baseline", "baseline_step", "seeds", "tasks", "mean", "low", "high"]
    return Table(
        name=f"{name}-differences",
        title="Return minus that of a baseline on the same tasks (paired), after so many adaptation steps",
        columns=titles,
        rows=cells,
        numbers=[heads, *([getattr(part, head) for head in heads] for part in found)],
    )


def _comparable(evaluation: Evaluation | None) -> bool:
    return evaluation is not None and evaluation.protocol == "steps" and evaluation.regions is None


def _entry(row: Row, evaluation: Evaluation | None) -> Entry:
    assert evaluation is not None
    return Entry(
        label=row.label,
        learner=row.learner,
        seeds=evaluation.seeds,
        returns=evaluation.means().transpose(0, 2, 1),
        episodes=evaluation.episodes,
        optimum=None,
        environment_steps=None,
        seconds=None,
        counted=evaluation.counted,
        tasks=tasks_of(evaluation),
    )


def _differences(chapter: Chapter, entries: Sequence[Entry], faults: list[str]) -> Iterator[Difference]:
    if not entries:
        return
    evaluations = dict(chapter.tested)
    for entry, (baseline, step) in itertools.product(entries, baselines(entries)):
        if entry is baseline:
            continue
        if not _same_tasks(evaluations[entry.label], evaluations[baseline.label]):
            faults.append(
                f"{entry.label} and {baseline.label} were evaluated on different tasks, so that there is no paired "
                "difference of them; give their runs the same seeds, evaluation.seed and evaluation.test_tasks."
            )
            continue
        found = difference(entry, baseline, min(1, entry.steps), step)
        if found is None:
            faults.append(
                f"{entry.label} and {baseline.label} have no seed in common, so there is no difference of them."
            )
        else:
            yield found


def _same_tasks(one: Evaluation, other: Evaluation) -> bool:
    """Return whether the seeds that two evaluations have in common had the same tasks."""
    theirs = {run.seed: run for run in other.runs}
    pairs = [(run, theirs[run.seed]) for run in one.runs if run.seed in theirs]
    if one.n_tasks != other.n_tasks or one.split != other.split:
        return False
    return all(
        ours.evaluation_seed == own.evaluation_seed and (None in (ours.tasks, own.tasks) or ours.tasks == own.tasks)
        for ours, own in pairs
    )
