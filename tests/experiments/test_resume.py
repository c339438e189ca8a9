"""Runs that were interrupted go on to the same bits as one that was not."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from tiny_runs import TINY, scalars

from metarl import MAML
from metarl.experiments.command import main

LONG = [*TINY, "learning.iterations=8", "evaluation.every=3"]
# Slowed down, so that the signal meets it in the middle.
SLOW_STEPS = """
import time, metarl
kind = type(metarl.make_vec("metarl/Navigation2D-v0", 1).unwrapped)
step = kind.step
kind.step = lambda self, actions: (time.sleep(0.004), step(self, actions))[1]
"""
# About half the time goes into writing checkpoints, so that the signal meets that as well.
SLOW_WRITING = """
import os, time
fsync = os.fsync
os.fsync = lambda file: (time.sleep(0.03), fsync(file))[1]
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, of this process: the others are forked and have another hash seed."""
    folder = tmp_path_factory.mktemp("whole")
    path = list(sys.path)
    with contextlib.chdir(folder):
        assert main(["train", "navigation", *LONG, "--name", "whole"]) == 0
    sys.path[:] = path
    return folder / "runs/whole"


def rows(run: Path) -> int:
    """Return how many iterations a run's table has."""
    table = run / "progress.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_resumes_to_the_same_bits(
    whole: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    run = tmp_path / "runs/slow"
    arguments = ["train", "navigation", *LONG, "--name", "slow"]
    process = forked.start(*arguments, cwd=tmp_path, code=SLOW_STEPS + forked.COMMAND)
    deadline = time.monotonic() + 120
    while rows(run) < 4:
        assert process.poll() is None, process.finish().stderr
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    stopped = process.finish(60)
    assert stopped.returncode == status
    if number != signal.SIGKILL:
        last = stopped.stderr.strip().splitlines()[-1]
        assert "metarl train --resume runs/slow" in last
        assert "Traceback" not in stopped.stderr
    assert not (run / "results.json").exists()
    stopped_at = MAML.load(run / "checkpoints/last.zip").iteration
    assert 1 <= stopped_at < 8

    resumed = forked.run("train", "--resume", "runs/slow", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_runs(whole, run)


def assert_same_runs(one: Path, other: Path) -> None:
    """Check that a resumed run left what an uninterrupted one did, to the bit; ``time/*`` differs in its values."""
    assert (other / "progress.csv").read_bytes() == (one / "progress.csv").read_bytes()
    assert (other / "results.json").read_bytes() == (one / "results.json").read_bytes()
    for name in ("last.zip", "best.zip"):
        assert (other / "checkpoints" / name).read_bytes() == (one / "checkpoints" / name).read_bytes()
    a, b = scalars(one), scalars(other)
    assert a.keys() == b.keys()
    for tag in a:
        if not tag.startswith("time/"):
            assert a[tag] == b[tag], tag
        assert [step for step, _ in a[tag]] == [step for step, _ in b[tag]], tag


@pytest.mark.full
def test_a_run_killed_at_any_moment_resumes_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    killed_at = []
    for number in range(20):
        run = tmp_path / f"runs/killed-{number}"
        arguments = ["train", "navigation", *LONG, "--name", run.name]
        process = forked.start(*arguments, cwd=tmp_path, code=SLOW_WRITING + forked.COMMAND)
        deadline = time.monotonic() + 120
        least = int(rng.integers(0, 8))
        while not (run / "checkpoints/last.zip").exists() or rows(run) < least:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.finish()
        if (run / "results.json").exists():
            continue
        killed_at.append(MAML.load(run / "checkpoints/last.zip").iteration)
        resumed = forked.run("train", "--resume", f"runs/{run.name}", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        assert_same_runs(whole, run)
    assert len(set(killed_at)) > 5, killed_at
