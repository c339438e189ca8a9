"""Runs that the command and torchrun start in several processes, on one machine and on two that meet on loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import psutil
import pytest
import ranked
from tiny_runs import TINY

NAVIGATION = ["train", "navigation", *TINY, "learning.tasks=4", "learning.iterations=40", "--name", "run"]
SAME = ("results.json", "progress.csv", "config.toml", "checkpoints/last.zip", "checkpoints/best.zip")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert forked.run(*NAVIGATION, cwd=folder).returncode == 0
    return folder / "runs" / "run"


def assert_same(run: Path, whole: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_the_command_starts_the_processes_and_says_what_they_send(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metarl", *NAVIGATION, "--processes", "2", "--profile", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if not line.startswith("USDT:")]  # of torch's profiler
    assert (done.returncode, own) == (0, [])
    assert_same(tmp_path / "runs" / "run", whole)
    assert (tmp_path / "runs" / "run" / "profile.json").is_file()
    told = re.search(r"^An iteration exchanges (\d+) messages with [\d.]+ MB in all between 2 processes", done.stdout)
    assert told, done.stdout
    # Ten products, the lengths of two batches of rollouts, gradients and evaluations; none for the rollouts.
    assert 20 <= int(told[1]) <= 30


def test_bad_input_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metarl", *NAVIGATION, "--processes", "3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"metarl: an iteration of learner maml has 4 tasks here, .*\n", done.stderr), done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.full
def test_torchrun_on_two_nodes_goes_on_after_a_killed_rank(whole: Path, tmp_path: Path) -> None:
    place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{ranked.free_port()}", "--rdzv-id", "test"]
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--local-addr", "127.0.0.1", "--max-restarts", "1"]
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, *place, "-m", "metarl", *NAVIGATION, "--quiet"]
    out = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    agents = [subprocess.Popen(command, **out) for _ in range(2)]  # type: ignore[call-overload]
    progress = tmp_path / "runs" / "run" / "progress.csv"
    deadline = time.monotonic() + 120
    while not progress.exists() or progress.read_text().count("\n") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (worker,) = psutil.Process(agents[1].pid).children()
    worker.send_signal(signal.SIGKILL)
    printed = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], printed
    assert_same(tmp_path / "runs" / "run", whole)
