"""Evaluation: the mean return on tasks after each adaptation step, with intervals."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts
from metarl.files import new_file
from metarl.settings import Settings
from metarl.statistics import LEVEL, STATISTICS, bootstrap_interval

SCHEMA = "metarl-results-1"
STATISTIC = "mean undiscounted return of the stochastic policy; interval by bootstrap over tasks"


def points(settings: Settings, *, remembers: bool) -> int:
    """Return how many points an evaluation has, by a run's settings.

    Args:
        settings: of the run.
        remembers: whether the learner has a memory; then they are the episodes of a trial, else the adaptation steps
            and the point before them.
    """
    return settings.learning.trial_episodes if remembers else settings.evaluation.steps + 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The returns of a learner on tasks, for each adaptation step.

    Attributes:
        family: the family's id.
        learner: the learner's name.
        split: the split of the tasks.
        seed: of the learner that was evaluated.
        evaluation_seed: of the tasks and episodes.
        iteration: the number of meta-iterations before the evaluation.
        episodes: for each task and step.
        returns: ``[step, task]``, mean return of new rollouts after 0, 1, ... adaptation steps.
        oracle: ``[task]``, the best expected return, or None if the family does not define it.
        statistics: further statistics of episodes by name (``statistics.STATISTICS``), ``[step, task]``.
        timesteps: environment steps of training, or None if they were not counted.
        counted: what the axis ``step`` counts. For learners with memory it is the earlier episodes of the trial, and
            ``episodes`` is the number of trials of each task.
    """

    family: str
    learner: str
    split: str
    seed: int
    evaluation_seed: int
    iteration: int
    episodes: int
    returns: NDArray[np.float64]
    oracle: NDArray[np.float64] | None
    timesteps: int | None = None
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    counted: Literal["adaptation steps", "earlier episodes"] = "adaptation steps"

    @property
    def score(self) -> float:
        """The mean return after adaptation, or over a whole trial, by which the best parameters are chosen."""
        return float(self.returns[1:].mean() if self.counted == "adaptation steps" else self.returns.mean())

    def mean(self, step: int) -> float:
        """Return the mean return over tasks after ``step`` adaptation steps."""
        return float(self.returns[step].mean())

    def to_json(self) -> dict[str, Any]:
        """Return the results in the schema of ``results.json`` and ``evaluations/<n>.json``."""
        adaptation = []
        for step, values in enumerate(self.returns):
            summary = _summary(values)
            per_task = summary.pop("per_task")
            adaptation.append(
                {
                    "step": step,
                    **summary,
                    "tasks": len(values),
                    "episodes": self.episodes,
                    "per_task": per_task,
                    **{name: _summary(of_steps[step]) for name, of_steps in self.statistics.items()},
                }
            )
        return {
            "schema": SCHEMA,
            "family": self.family,
            "learner": self.learner,
            "split": self.split,
            "statistic": f"{STATISTIC}; tasks and episodes drawn with seed {self.evaluation_seed}",
            "level": LEVEL,
            "seeds": [self.seed],
            "iteration": self.iteration,
            "counted": self.counted,
            "timesteps": self.timesteps,
            "oracle": None if self.oracle is None else float(self.oracle.mean()),
            "adaptation": adaptation,
        }

    def table(self) -> str:
        """Return the results as a table for the terminal."""
        results, by_steps = self.to_json(), self.counted == "adaptation steps"
        lines = [
            f"{self.family}, {self.learner}, {self.split} tasks ({self.returns.shape[1]} tasks, "
            f"{self.episodes} {'episodes a step' if by_steps else 'trials each'}, {LEVEL:.0%} intervals over tasks)",
            self._training(),
            "",
            f"{self.counted:>16}  {'return':>10}  {'interval':>22}"
            + "".join(f"  {name:>10}  {'interval':>22}" for name in self.statistics),
        ]
        for entry in results["adaptation"]:
            columns = [entry, *(entry[name] for name in self.statistics)]
            shown = [f"{part['mean']:>10.2f}  {_interval(part):>22}" for part in columns]
            lines.append(f"{entry['step']:>16}  {'  '.join(shown)}")
        if results["oracle"] is not None:
            lines.append(f"{'optimum':>16}  {results['oracle']:>10.2f}")
        return "\n".join(lines)

    def _training(self) -> str:
        after = f"after {self.iteration:,} iteration{'' if self.iteration == 1 else 's'}"
        if self.timesteps is None:
            return after
        steps = f"{self.timesteps / 1e6:,.1f} million" if self.timesteps >= 1e6 else f"{self.timesteps:,}"
        return f"{after}; {steps} environment steps of training"

    def write_csv(self, path: Path) -> None:
        """Write a row for each adaptation step: step, mean, low, high, tasks, episodes, oracle."""
        results = self.to_json()
        with new_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            names = ["step", "mean", "low", "high", "tasks", "episodes"]
            writer.writerow([*names, "oracle"])
            for entry in results["adaptation"]:
                oracle = "" if results["oracle"] is None else results["oracle"]
                writer.writerow([*(entry[name] for name in names), oracle])


def evaluation_of(rollouts: Sequence[Sequence[Rollouts]], **facts: Any) -> Evaluation:
    """Return the evaluation of rollouts.

    Args:
        rollouts: for each batch of tasks, the rollouts after 0, 1, ... adaptation steps.
        facts: the evaluation's other attributes.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for name, statistic in STATISTICS.items():
        values = [[statistic(part) for part in of_steps] for of_steps in rollouts]
        if all(value is None for of_steps in values for value in of_steps):
            continue
        by_group = [
            np.stack([_means(value, part) for value, part in zip(of_steps, parts, strict=True)])
            for of_steps, parts in zip(values, rollouts, strict=True)
        ]
        found[name] = np.concatenate(by_group, axis=1)
    return Evaluation(returns=found.pop("return"), statistics=found, **facts)


def _means(values: Tensor | None, rollouts: Rollouts) -> NDArray[np.float64]:
    """Return each task's mean over its episodes; 0 where these rollouts tell nothing of what others tell."""
    if values is None:
        return np.zeros(rollouts.n_tasks)
    means: NDArray[np.float64] = values.mean(dim=1).double().numpy()
    return means


def _summary(values: NDArray[np.float64]) -> dict[str, Any]:
    low, high = bootstrap_interval(values)
    return {"mean": float(values.mean()), "low": low, "high": high, "per_task": [float(value) for value in values]}


def _interval(summary: Mapping[str, Any]) -> str:
    return f"[{summary['low']:.2f}, {summary['high']:.2f}]"
