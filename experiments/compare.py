"""``metarl compare``: trains several learners with several seeds, and sets their results side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarl.envs import RolloutError
from metarl.evaluation import LEVEL, RESAMPLES
from metarl.experiments import training
from metarl.experiments.configuration import read_configuration
from metarl.experiments.runs import Run


@dataclass(frozen=True)
class Entry:
    """A learner's test results.

    Attributes:
        learner: its name.
        returns: ``[seed, step, task]``.
    """

    learner: str
    returns: NDArray[np.float64]

    def interval(self, step: int) -> tuple[float, float]:
        """Return the bootstrap interval of the mean return after a step, over seeds and tasks; it is seeded."""
        rng = np.random.default_rng(0)
        values = self.returns[:, step]
        means = []
        for _ in range(RESAMPLES):
            chosen = values[rng.integers(len(values), size=len(values))]
            means.append(np.mean([row[rng.integers(len(row), size=len(row))].mean() for row in chosen]))
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def run_all(
    config: str, learners: Sequence[str], seeds: int, out: Path, overrides: Sequence[tuple[str, Any]]
) -> tuple[list[Entry], list[str]]:
    """Train and test what is not done yet, one run after another, and return the results and what failed.

    Args:
        config: a shipped configuration or a TOML file.
        learners: names.
        seeds: seeds 1, 2, ... of each.
        out: the runs' folders are made in it, ``<learner>-<seed>``; an interrupted run goes on.
        overrides: settings of all runs.

    Raises:
        ValueError: a configuration that is none, before anything is trained.
    """
    jobs = []
    for learner in learners:
        for seed in range(1, seeds + 1):
            settings = read_configuration(config, [("learner", learner), ("seed", seed), *overrides])[1]
            jobs.append((learner, f"{learner.replace(':', '-')}-{seed}", settings))
    found: dict[str, list[NDArray[np.float64]]] = {}
    failed = []
    for learner, name, settings in jobs:
        try:
            if not (out / name / "results.json").exists():
                print(f"{name} ...", flush=True)
                begun = (out / name).exists()
                run, model = (
                    training.resume_run(out / name, None) if begun else training.start_run(settings, out, name, name)
                )
                try:
                    training.finish_run(run, model)
                finally:
                    model.close()
            elif Run.open(out / name).settings() != settings:
                raise ValueError("the run there has other settings; choose another --out")
        except (ValueError, RolloutError, FloatingPointError) as error:
            failed.append(f"{name} failed: {' '.join(str(error).split())}")
            continue
        results = json.loads((out / name / "results.json").read_text(encoding="utf-8"))
        found.setdefault(learner, []).append(np.array([entry["per_task"] for entry in results["adaptation"]]))
    return [Entry(learner, np.stack(returns)) for learner, returns in found.items()], failed


def write_table(entries: Sequence[Entry], out: Path) -> str:
    """Write ``comparison.csv`` and ``comparison.md``, and return the latter."""
    steps = max(entry.returns.shape[1] for entry in entries)
    lines = [
        "| learner | seeds | " + " | ".join(f"after {step}" for step in range(steps)) + " |",
        "| --- " * (steps + 2) + "|",
    ]
    with (out / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["learner", "seeds", "tasks", "step", "mean", "low", "high"])
        for entry in entries:
            seeds, count, tasks = entry.returns.shape
            cells = []
            for step in range(count):
                mean, (low, high) = float(entry.returns[:, step].mean()), entry.interval(step)
                writer.writerow([entry.learner, seeds, tasks, step, mean, low, high])
                cells.append(f"{mean:.2f} [{low:.2f}, {high:.2f}]")
            lines.append(f"| {entry.learner} | {seeds} | " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    (out / "comparison.md").write_text(text, encoding="utf-8")
    return text


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draw the return against the adaptation steps, with intervals over seeds and tasks."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for entry in entries:
        steps = np.arange(entry.returns.shape[1])
        low, high = np.array([entry.interval(int(step)) for step in steps]).T
        (line,) = axes.plot(steps, entry.returns.mean(axis=(0, 2)), marker="o", label=entry.learner)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    axes.set_xlabel("adaptation steps")
    axes.set_ylabel("return on test tasks")
    axes.set_xticks(range(max(entry.returns.shape[1] for entry in entries)))
    axes.legend()
    figure.savefig(path)
