"""``metarl compare``: what is done is kept, what fails is reported, and the rest goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from metarl.experiments.command import main

TINY = ["learning.iterations=1", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
        "evaluation.tasks=2", "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1"]  # fmt: skip


def test_a_comparison_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["compare", "navigation", "--learners", "fomaml,scratch,pretrained", "--seeds", "2", *TINY]
    # What pretrained refuses and the others take.
    assert main([*command, "learning.normalize_observations=true"]) == 1
    printed = capsys.readouterr()
    assert "pretrained-1 failed: learner pretrained normalises no observations" in printed.err
    assert printed.out.count("...") == 6
    with (tmp_path / "comparison/comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["learner"], row["step"]) for row in rows] == [
        (name, step) for name in ("fomaml", "scratch") for step in "01"
    ]
    values = [
        json.loads((tmp_path / f"comparison/fomaml-{seed}/results.json").read_text())["adaptation"][1]["per_task"]
        for seed in (1, 2)
    ]
    assert float(rows[1]["mean"]) == pytest.approx(np.mean(values))
    assert float(rows[1]["low"]) <= np.mean(values) <= float(rows[1]["high"])
    assert (tmp_path / "comparison/comparison.png").stat().st_size > 5000
    assert (tmp_path / "comparison/comparison.md").read_text() in printed.out

    assert main([*command, "learning.normalize_observations=true"]) == 1
    assert capsys.readouterr().out.count("...") == 2
    assert main([*command, "inner.step_size=0.2"]) == 1
    assert "the run there has other settings; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--learners", "mam"], "unknown learner 'mam'"), (["--learners", "maml", "--seeds", "0"], "--seeds is 0")],
)
def test_a_mistake_is_named_before_anything_is_trained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "navigation", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
