"""MAML on bandits and tabular MDPs, compared with the published results of RL^2 and SNAIL.

``python -m metarl.experiments.trials [--out runs/trials] [--only bandit] [--write docs/results]``

There, a trial is n pulls (or n episodes) of one task, and its score is the sum of all rewards from the first pull on.
Here, the trial is divided into equal parts with an inner step between them, and the returns of the parts are summed, so
the policy before adaptation counts as well. Rows that are done in ``--out`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.experiments import training
from metarl.experiments.configuration import read_configuration
from metarl.statistics import LEVEL, bootstrap_interval

# Duan et al. 2016, tables 1 and 2 (RL^2, random play, the best of the classical methods); Mishra et al. 2018, tables 3
# and 4 (MAML; for MDPs they give fractions of value iteration's return, converted to totals by RL^2's fraction there).
COLUMNS = ("random", "best classical", "RL^2", "MAML in SNAIL's paper")


@dataclass(frozen=True)
class Trial:
    """A row of the table: ``parts`` of ``episodes`` each, with an inner step of ``step_size`` between them."""

    name: str
    config: str
    family_kwargs: dict[str, Any]
    parts: int
    episodes: int
    step_size: float
    published: tuple[float, ...]

    def overrides(self) -> list[tuple[str, Any]]:
        """Return the settings that differ from the shipped configuration."""
        steps = self.parts - 1
        given: dict[str, Any] = {
            "learning.iterations": 100,
            "learning.tasks": 200,
            "learning.episodes": self.episodes,
            "inner.steps": steps,
            "inner.step_size": self.step_size,
            "inner.later_step_scale": 1.0,
            "evaluation.every": 20,
            "evaluation.tasks": 200,
            "evaluation.test_tasks": 1000,
            "evaluation.episodes": self.episodes,
            "evaluation.steps": steps,
            **{f"family_kwargs.{name}": value for name, value in self.family_kwargs.items()},
        }
        return list(given.items())


def bandit(pulls: int, arms: int, parts: int, published: tuple[float, ...]) -> Trial:
    """Return the row of a Bernoulli bandit."""
    kwargs = {"arms": arms, "pulls": pulls // parts}
    return Trial(f"bandit, {arms} arms, n = {pulls}", "bernoulli-bandit", kwargs, parts, 1, 5.0, published)


TRIALS = (
    bandit(10, 5, 5, (5.0, 6.6, 6.7, 6.5)),
    bandit(10, 10, 5, (5.0, 6.6, 6.7, 6.6)),
    bandit(100, 5, 10, (49.9, 78.3, 78.7, 67.1)),
    bandit(100, 10, 10, (49.9, 82.8, 83.5, 70.1)),
    Trial("MDP, n = 10", "tabular-mdp", {}, 5, 2, 1.0, (100.1, 150.2, 156.2, 116.9)),
    Trial("MDP, n = 25", "tabular-mdp", {}, 5, 5, 1.0, (250.2, 427.8, 445.7, 306.7)),
)


def total(results: dict[str, Any], episodes: int) -> tuple[float, float, float]:
    """Return the mean sum of all rewards of a trial, and its interval over tasks."""
    sums = episodes * np.array([entry["per_task"] for entry in results["adaptation"]]).sum(axis=0)
    return float(sums.mean()), *bootstrap_interval(sums)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that are not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/trials"))
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--write", type=Path, help="a folder to write trials.md into")
    options = parser.parse_args(arguments)
    lines = [
        f"| trial | parts | MAML here, {LEVEL:.0%} interval | " + " | ".join(COLUMNS) + " |",
        "| --- " * (3 + len(COLUMNS)) + "|",
    ]
    for trial in TRIALS:
        if options.only not in trial.name:
            continue
        name = trial.name.replace(", ", "-").replace(" = ", "").replace(" ", "-")
        if not (options.out / name / "results.json").exists():
            began = time.perf_counter()
            _, settings = read_configuration(trial.config, trial.overrides())
            training.train(settings, options.out, name)
            print(f"{trial.name}: {time.perf_counter() - began:.0f} s", flush=True)
        results = json.loads((options.out / name / "results.json").read_text(encoding="utf-8"))
        mean, low, high = total(results, trial.episodes)
        cells = [trial.name, str(trial.parts), f"{mean:.1f} [{low:.1f}, {high:.1f}]", *map(str, trial.published)]
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "trials.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
