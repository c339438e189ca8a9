"""Ranks that are killed at random moments: the run goes on, in any number of processes, to the same bits."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import ranked
from tiny_runs import TINY

TRAIN = ["train", "navigation", *TINY, "learning.tasks=7", "learning.iterations=12", "--name", "run", "--quiet",
         "--rank-timeout", "10"]  # fmt: skip
SAME = ("results.json", "progress.csv", "config.toml", "checkpoints/last.zip", "checkpoints/best.zip")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert forked.run(*TRAIN, cwd=folder).returncode == 0
    return folder / "runs" / "run"


def kill_and_go_on(whole: Path, work: Path, seed: int) -> None:
    """Kill a rank at a random moment, go on with another number of processes, and compare the bits."""
    rng = np.random.default_rng(seed)
    count, then, victim = int(rng.integers(2, 4)), int(rng.integers(1, 4)), int(rng.integers(2))
    started = ranked.start(count, *TRAIN, cwd=work)
    time.sleep(rng.uniform(0.0, 3.0))
    if started[victim].poll() is None:
        started[victim].send_signal(signal.SIGKILL)
    ended = [process.finish(60.0).returncode for process in started]
    run, told = work / "runs" / "run", f"seed {seed}: rank {victim} of {count}, then {then} processes, {ended}"
    if not (run / "results.json").exists():
        arguments = ["train", "--resume", "runs/run", "--quiet", "--rank-timeout", "10"] if run.exists() else TRAIN
        done = ranked.run(then, *arguments, cwd=work) if then > 1 else [forked.run(*arguments, cwd=work)]
        assert [one.returncode for one in done] == [0] * then, (told, [one.stderr for one in done])
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs: {told}"


@pytest.mark.parametrize("seed", range(2))
def test_a_run_of_which_a_rank_was_killed_goes_on_to_the_same_bits(seed: int, whole: Path, tmp_path: Path) -> None:
    kill_and_go_on(whole, tmp_path, seed)
    assert (tmp_path / "runs" / "run" / "results.json").is_file()


@pytest.mark.full
def test_fifty_runs_of_which_a_rank_was_killed_go_on_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    for seed in range(2, 52):
        (tmp_path / str(seed)).mkdir()
        kill_and_go_on(whole, tmp_path / str(seed), seed)
        assert (tmp_path / str(seed) / "runs" / "run" / "results.json").is_file()
