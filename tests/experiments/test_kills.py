"""Runs killed from the first instruction on: each goes on to the same bits or, without a folder, begins anew."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import kills
import pytest


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, kills.Whole]:
    return kills.make_wholes(tmp_path_factory.mktemp("wholes"))


def check(wholes: dict[str, kills.Whole], work: Path, seeds: range) -> Counter[str]:
    states: Counter[str] = Counter()
    for seed in seeds:
        (work / str(seed)).mkdir()
        states[kills.kill_and_resume(wholes, work / str(seed), seed)] += 1
    return states


def test_a_killed_run_of_each_learner_goes_on_to_the_same_bits(wholes: dict[str, kills.Whole], tmp_path: Path) -> None:
    assert check(wholes, tmp_path, range(5))["begun"] > 0


@pytest.mark.full
def test_many_killed_runs_go_on_to_the_same_bits(wholes: dict[str, kills.Whole], tmp_path: Path) -> None:
    states = check(wholes, tmp_path, range(100, 160))
    assert min(states[state] for state in ("nothing", "begun", "finished")) > 0
