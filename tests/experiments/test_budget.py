"""The commands adapt with the run's own budget, and schedules pass through the files of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import TINY, scalars

from metarl.experiments.command import main

SCHEDULE = 'inner.step_size={start = 0.2, end = 0.1, schedule = "linear"}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    assert (
        main(["train", "navigation", "--out", str(folder), "--name", "run", *TINY, "evaluation.steps=2", SCHEDULE]) == 0
    )
    return folder / "run"


def test_evaluate_repeats_the_test_of_the_run_unless_it_is_told_otherwise(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run)]) == 0
    assert (
        "adapted with 2 episodes a step, up to 2 steps; trained with 3 episodes and 1 step" in capsys.readouterr().out
    )
    tested = json.loads((run / "results.json").read_text())
    again = json.loads((run / "evaluations" / "1.json").read_text())
    assert again["adaptation"] == tested["adaptation"]
    assert main(["evaluate", str(run), "--steps", "1", "--episodes", "3", "--tasks", "2"]) == 0
    assert "adapted with 3 episodes a step, up to 1 step, as in training" in capsys.readouterr().out


def test_picture_shows_the_test_of_the_run(run: Path, tmp_path: Path) -> None:
    pictures = {}
    for name, options in {"picture": [], "named": ["--tasks", "4"], "fewer": ["--tasks", "2"]}.items():
        assert main(["picture", str(run), "--out", str(tmp_path / f"{name}.png"), *options]) == 0
        pictures[name] = (tmp_path / f"{name}.png").read_bytes()
    assert pictures["picture"] == pictures["named"] != pictures["fewer"]


def test_a_schedule_is_in_the_files_of_the_run(run: Path) -> None:
    assert "[inner.step_size]" in (run / "config.toml").read_text()
    assert [value for _, value in scalars(run)["train/inner_step_size"]] == pytest.approx([0.2, 0.15, 0.1])
