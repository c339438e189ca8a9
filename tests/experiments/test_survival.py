"""Runs that are damaged or killed at random: each goes on to the same bits, or says what stops it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path

import damages
import kills
import pytest
import soak


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    damages.make_runs(folder)
    return folder


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, kills.Whole]:
    return kills.make_wholes(tmp_path_factory.mktemp("wholes"))


def damage(made: Path, work: Path, seeds: range) -> float:
    """Return the share of the runs that could be mended."""
    mended = 0
    for seed in seeds:
        (work / str(seed)).mkdir()
        mended += "status 0" in damages.damage_and_resume(made, work / str(seed), seed)
    return mended / len(seeds)


def kill(wholes: dict[str, kills.Whole], work: Path, seeds: range) -> Counter[str]:
    states: Counter[str] = Counter()
    for seed in seeds:
        (work / str(seed)).mkdir()
        states[kills.kill_and_resume(wholes, work / str(seed), seed)] += 1
    return states


def test_damaged_folders_go_on_to_the_same_bits_or_say_what_stops_them(made: Path, tmp_path: Path) -> None:
    # Neither all nor none, else the damages are not what they should be.
    assert 0.25 < damage(made, tmp_path, range(30)) < 1.0


@pytest.mark.full
def test_many_damaged_folders_go_on_to_the_same_bits_or_say_what_stops_them(made: Path, tmp_path: Path) -> None:
    assert 0.25 < damage(made, tmp_path, range(1000, 1300)) < 1.0


def test_a_killed_run_of_each_learner_goes_on_to_the_same_bits(wholes: dict[str, kills.Whole], tmp_path: Path) -> None:
    assert kill(wholes, tmp_path, range(5))["begun"] > 0


@pytest.mark.full
def test_many_killed_runs_go_on_to_the_same_bits(wholes: dict[str, kills.Whole], tmp_path: Path) -> None:
    states = kill(wholes, tmp_path, range(100, 160))
    assert min(states[state] for state in ("nothing", "begun", "finished")) > 0


def test_nothing_piles_up_in_a_process_that_trains_again_and_again() -> None:
    command = [sys.executable, "-W", "ignore", soak.__file__, "--minutes", "0", "--rounds", "24"]
    paths = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing grew"), done.stdout + done.stderr


def test_a_soak_finds_what_grows() -> None:
    flat = soak.Use(memory=10**8, threads=2, files=6, children=0, left=0)
    assert soak.faults([flat] * 20) == []
    for name, grown in {"memory": 2 * 10**8, "threads": 3, "files": 7, "children": 1, "left": 1}.items():
        assert name in soak.faults([flat] * 12 + [dataclasses.replace(flat, **{name: grown})] * 8)[0]
