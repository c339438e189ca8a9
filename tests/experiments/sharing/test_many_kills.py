"""Two processes on one folder, of which one is killed again and again: the work is done once all the same."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import time
from pathlib import Path

import forked
import pytest

TINY = ["family_kwargs.pulls=5", "learning.iterations=4", "learning.tasks=2", "learning.episodes=2",
        "policy.hidden_sizes=[4]", "evaluation.every=2", "evaluation.tasks=2", "evaluation.test_tasks=2",
        "evaluation.episodes=2", "evaluation.steps=1"]  # fmt: skip
COMMANDS = {
    "compare": ["compare", "bernoulli-bandit", "--learners", "maml,reptile,random", "--seeds", "4", *TINY],
    "sweep": ["sweep", "bernoulli-bandit", "inner.step_size=0.01..0.5:log", "--trials", "12", *TINY],
}


def kill_again_and_again(
    command: list[str], folder: Path, kills: int, rng: random.Random
) -> list[subprocess.CompletedProcess[str]]:
    """Keep two processes running and kill one from time to time; return what the last two ended with."""
    running = [forked.start(*command, cwd=folder) for _ in range(2)]
    for _ in range(kills):
        time.sleep(rng.uniform(0.0, 3.0))
        if any(process.poll() is not None for process in running):
            break
        killed = running.pop(rng.randrange(2))
        killed.send_signal(signal.SIGKILL)
        killed.finish()
        running.append(forked.start(*command, cwd=folder))
    return [process.finish() for process in running]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", COMMANDS)
def test_no_kill_loses_or_doubles_work(name: str, seed: int, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for done in kill_again_and_again(COMMANDS[name], tmp_path, kills=6, rng=random.Random(seed)):
        assert done.returncode == 0, done.stderr
        assert "metarl:" not in done.stderr, f"a kill alone is nothing to complain of\n{done.stderr}"
    if name == "compare":
        with (tmp_path / "comparison/comparison.csv").open() as file:
            seeds = {row["learner"]: row["seeds"] for row in csv.DictReader(file)}
        assert seeds == {"maml": "4", "reptile": "4", "random": "4"}
    else:
        with (tmp_path / "sweep/sweep.csv").open() as file:
            states = {row["trial"]: row["state"] for row in csv.DictReader(file)}
        assert (len(states), set(states.values())) == (12, {"complete"})
