"""A fuzzer of damaged run folders: whatever came to harm, a run goes on to the same bits or says what stops it."""

from __future__ import annotations

from pathlib import Path

import damages
import pytest


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    damages.make_runs(folder)
    return folder


def check(made: Path, work: Path, seeds: range) -> None:
    statuses = []
    for seed in seeds:
        (work / str(seed)).mkdir()
        statuses.append("status 0" in damages.damage_and_resume(made, work / str(seed), seed))
    # Neither all nor none can be mended, else the damages are not what they should be.
    assert len(seeds) / 4 < sum(statuses) < len(seeds)


def test_damaged_folders_go_on_to_the_same_bits_or_say_what_stops_them(made: Path, tmp_path: Path) -> None:
    check(made, tmp_path, range(30))


@pytest.mark.full
def test_many_damaged_folders_go_on_to_the_same_bits_or_say_what_stops_them(made: Path, tmp_path: Path) -> None:
    check(made, tmp_path, range(1000, 1300))
