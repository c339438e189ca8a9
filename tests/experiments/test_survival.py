"""Runs that are damaged or killed at random: each goes on to the same bits, or says what stops it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import damages
import kills
import pytest


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
