"""Results as text: the table for the terminal, and a table for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl.files import new_file
from metarl.results.document import entries_of
from metarl.results.kept import STEPS, Kept
from metarl.results.selection import region
from metarl.statistics import LEVEL


def table_of(kept: Kept) -> str:
    """Return the results as a table for the terminal: its head, and the rows of all tasks or of each region."""
    over = "tasks of one seed" if len(kept.runs) == 1 else f"{len(kept.runs)} seeds and their tasks"
    each = "" if len(kept.runs) == 1 else " a seed"
    lines = [
        f"{kept.family}, {kept.learner}, {kept.split} tasks ({kept.n_tasks} tasks{each}, {LEVEL:.0%} intervals over "
        f"{over})",
        _training(kept),
        _budget(kept),
    ]
    for name in dict.fromkeys(kept.regions or ()):
        lines += ["", f"{name}:", *_rows(region(kept, name))]
    if kept.regions is None:
        lines += ["", *_rows(kept)]
    return "\n".join(lines)


def _rows(kept: Kept) -> list[str]:
    # The length stands in the file; where all episodes have the same, a column of it would tell nothing.
    others = [name for name in kept.metrics if name != kept.metric and not _is_constant_length(kept, name)]
    titles = "".join(f"  {name:>10}  {'interval':>22}" for name in [kept.metric, *others])
    rows = [f"{kept.counted:>16}{titles}"]
    for entry in entries_of(kept):
        columns = [entry, *(entry.get(name) for name in others)]
        widths = [max(10, len(name)) for name in [kept.metric, *others]]
        rows.append(
            f"{entry['step']:>16}"
            + "".join(f"  {_cells(part, width)}" for part, width in zip(columns, widths, strict=True))
        )
    if kept.oracle is not None:
        rows.append(f"{'optimum':>16}  {float(kept.oracle.mean()):>{max(10, len(kept.metric))}.2f}")
    return rows


def _is_constant_length(kept: Kept, name: str) -> bool:
    values = kept.metrics[name]
    known = values[~np.isnan(values)]
    return name.startswith("length") and bool((known == known[0]).all())


def _cells(part: Mapping[str, Any] | None, width: int) -> str:
    return " " * (width + 24) if part is None else f"{part['mean']:>{width}.2f}  {interval(part):>22}"


def interval(summary: Mapping[str, Any]) -> str:
    """Return an interval in brackets."""
    return f"[{summary['low']:.2f}, {summary['high']:.2f}]"


def _training(kept: Kept) -> str:
    iterations = [run.iteration for run in kept.runs]
    if kept.iteration is None:
        return f"after {min(iterations):,} to {max(iterations):,} iterations"
    after = f"after {_count(kept.iteration, 'iteration')}"
    if kept.timesteps is None:
        return after
    steps = f"{kept.timesteps / 1e6:,.1f} million" if kept.timesteps >= 1e6 else f"{kept.timesteps:,}"
    return f"{after}; {steps} environment steps of training"


def _budget(kept: Kept) -> str:
    """Return how much experience adaptation had, and how that differs from training."""
    steps = len(kept.points) - 1
    if kept.protocol != "steps" and kept.regions is None:
        return f"protocol {kept.protocol}, {_count(kept.episodes, 'episode')} of each task at each point"
    if kept.counted != STEPS:
        played = f"{_count(kept.episodes, 'trial')} of each task, of {_count(steps + 1, 'episode')}"
        if kept.trained is None:
            return played
        same = kept.trained[1] == steps
        return f"{played}, as in training" if same else f"{played}; trained with {kept.trained[1] + 1}"
    adapted = f"adapted with {_count(kept.episodes, 'episode')} a step, up to {_count(steps, 'step')}"
    if kept.trained is None:
        return adapted
    if kept.trained == (kept.episodes, steps):
        return f"{adapted}, as in training"
    episodes, trained_steps = kept.trained
    return f"{adapted}; trained with {_count(episodes, 'episode')} and {_count(trained_steps, 'step')}"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def write_csv(kept: Kept, path: Path) -> None:
    """Write a row for each point, in each region if there are any: the score, and every other metric by its name."""
    others = [name for name in kept.metrics if name != kept.metric]
    own = ["mean", "low", "high"]
    counts = ["tasks", "episodes"]
    titles = [*(["region"] if kept.regions else []), "step", *own, *counts, "oracle"]
    titles += [f"{name}_{part}" for name in others for part in own]
    with new_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(titles)
        for name in dict.fromkeys(kept.regions or (None,)):
            part = kept if name is None else region(kept, name)
            oracle = "" if part.oracle is None else float(part.oracle.mean())
            for entry in entries_of(part):
                cells = [entry[key] for key in ("step", *own, *counts)]
                further = [entry.get(other, {}).get(key, "") for other in others for key in own]
                writer.writerow([*([] if name is None else [name]), *cells, oracle, *further])
