"""Meta-training on navigation learns to adapt, by the figures of the literature, on goals it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import numpy as np
import pytest


def adaptation(folder: Path, seed: int, steps: int) -> list[float]:
    """Meta-train the shipped configuration; return the mean return on 500 test goals after 0, 1, ... steps."""
    name = f"seed-{seed}"
    for arguments in (
        # Tested once, by what follows, and not by training as well.
        ["train", "navigation", "--seed", str(seed), "--name", name, "evaluation.test_tasks=2"],
        ["evaluate", f"runs/{name}", "--tasks", "500", "--episodes", "20", "--steps", str(steps)],
    ):
        done = forked.run(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    results = json.loads((folder / f"runs/{name}/evaluations/1.json").read_text())
    print(name, [round(entry["mean"], 2) for entry in results["adaptation"]], "optimum", round(results["oracle"], 2))
    return [entry["mean"] for entry in results["adaptation"]]


@pytest.mark.slow
def test_one_seed_learns_to_adapt(tmp_path: Path) -> None:
    before, one, two, three = adaptation(tmp_path, seed=1, steps=3)
    assert before < -30.0
    # The MAML paper: -11.7 / -3.3 / -3.2, with 40 episodes a step where this has 20.
    assert one >= -12.7
    assert two >= -4.1
    assert three >= -3.3


@pytest.mark.full
def test_three_seeds_reach_the_figures_of_the_literature(tmp_path: Path) -> None:
    steps = np.array([adaptation(tmp_path, seed, steps=5) for seed in (1, 2, 3)])
    mean = steps.mean(axis=0)
    assert mean[1] >= -12.2
    assert mean[2] >= -3.6
    assert mean[3] >= -2.8
    assert mean[5] >= mean[3] - 0.3
