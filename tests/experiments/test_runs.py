"""Run folders: a lock that a dead process does not keep, and failures that leave the checkpoint."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked
import pytest
from tiny_runs import copy_toy_families

from metarl import MAML
from metarl.experiments.runs import Run
from metarl.learners.registry import read_settings


def test_two_processes_cannot_train_in_one_folder_and_a_dead_one_keeps_no_lock(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine", "mine", read_settings({}), lambda path: None)
    code = (
        "import os, sys, pathlib\n"
        "from metarl.experiments.runs import Run\n"
        "run = Run(pathlib.Path(sys.argv[1])); run.lock(); print('locked', flush=True)\n"
        "sys.stdin.readline(); os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match="another process is training"):
        run.lock()
    process.communicate("\n", timeout=60)
    assert process.returncode == -9
    run.lock()


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    def begin(_: int) -> Path:
        return Run.create(tmp_path, None, "run", read_settings({}), lambda path: None).folder

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(begin, range(16)))
    assert len(set(folders)) == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in folders)
    assert all((folder / "config.toml").is_file() for folder in folders)


def test_a_failing_plug_in_is_one_sentence_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    copy_toy_families(tmp_path)
    arguments = ["train", "navigation", "family=toy_families:toy/Raises-v0", "learning.tasks=2", "learning.episodes=2"]
    done = forked.run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    for part in (
        "iteration 1",
        "toy_families:toy/Raises-v0",
        "task [",
        "sub-environment 0",
        "OSError: broken",
        "step 1",
    ):
        assert part in last
    assert "Traceback" not in done.stderr
    assert MAML.load(tmp_path / "runs/navigation/checkpoints/last.zip", allow="toy_families").iteration == 0
