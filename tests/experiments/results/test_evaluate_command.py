"""``metarl evaluate``: protocols, several runs, JSON; and ``metarl compare`` with success."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.experiments.command import main
from metarl.results import Evaluation, combine

TINY = [
    "learning.iterations=1", "learning.tasks=2", "learning.episodes=2", "policy.hidden_sizes=[4]",
    "evaluation.tasks=2", "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1",
]  # fmt: skip
FEW = ["--tasks", "3", "--episodes", "2"]
SUCCESS = "toy_families:toy/TellsOfSuccess-v0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for name, *settings in (("one",), ("two", "seed=2"), ("other", "learner=scratch", "seed=3")):
        assert main(["train", "navigation", *TINY, *settings, "--quiet", "--out", str(out), "--name", name]) == 0
    return out


def test_json_of_several_runs_is_their_results_together(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs / "one"), str(runs / "two"), "--json", *FEW]) == 0
    printed = capsys.readouterr()
    results = json.loads(printed.out)
    assert results["seeds"] == [1, 2]
    assert "evaluations/1.json" in printed.err
    together = combine([Evaluation.read(runs / name / "evaluations/1.json") for name in ("one", "two")])
    assert results == together.to_json()
    assert Evaluation.from_json(results).to_frame().shape[0] == 2 * 3 * 2 * 2


def test_several_runs_without_json_are_several_tables(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs / "one"), str(runs / "other"), *FEW]) == 0
    printed = capsys.readouterr().out
    assert printed.count("over tasks of one seed") == 2
    assert printed.count("Written to ") == 2


@pytest.mark.parametrize(("protocol", "points"), [("pearl", [0, 2]), ("k-shot", [0, 1, 2, 5, 10, 20])])
def test_a_protocol_is_named_on_the_command_line(
    protocol: str, points: list[int], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(runs / "one"), "--protocol", protocol, "--json", *FEW]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["protocol"] == protocol
    assert [entry["step"] for entry in results["adaptation"]] == points


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "other", "--json"], "the learner of "),
        (["one", "one", "--json"], "have the same seed; name each seed once"),
        (["one", "--protocol", "maze"], "unknown protocol 'maze'; expected one of steps, pearl, k-shot"),
        (["one", "--protocol", "k-shot", "--steps", "2"], "steps is 2, but the protocol 'k-shot'"),
        (["nothing", "--json"], "is no run"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(
    arguments: list[str], words: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    named = [
        part if part.startswith("-") or part in ("maze", "k-shot", "2") else str(runs / part) for part in arguments
    ]
    before = sorted(runs.rglob("*.json"))
    assert main(["evaluate", *named]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert sorted(runs.rglob("*.json")) == before


def test_two_lines_of_a_configuration_set_generalization(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        'family = "metarl/CartPoleParams-v0"\nlearner = "maml"\nfamily_kwargs = {max_episode_steps = 10}\n'
        '[evaluation]\nprotocol = "generalization"\n'
    )
    assert main(["train", "mine.toml", *TINY, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}:" in printed for name in ("default", "interpolation", "extrapolation"))
    results = json.loads(Path("runs/mine/results.json").read_text())
    assert results["protocol"] == "generalization"
    assert results["regions"].count("extrapolation") == 3
    # A finished run is recognised as such.
    assert main(["train", "--resume", "runs/mine"]) == 2
    assert "is finished after iteration 1" in capsys.readouterr().err
    assert main(["evaluate", "runs/mine", *FEW]) == 0
    rows = list(csv.DictReader(Path("runs/mine/evaluations/1.csv").read_text().splitlines()))
    assert {row["region"] for row in rows} == {"default", "interpolation", "extrapolation"}


def test_success_is_in_the_tables_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", SUCCESS, *TINY, "--learners", "maml,scratch", "--seeds", "2", "--out", str(tmp_path)]
    assert main(arguments) == 0
    text = (tmp_path / "comparison.md").read_text()
    assert "Share of the episodes with success" in text
    rows = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    read = [Evaluation.read(tmp_path / f"maml-{seed}") for seed in (1, 2)]
    share = float(np.mean([part.statistics["success"][1] for part in read]))
    (after_one,) = [row for row in rows if row["learner"] == "maml" and row["step"] == "1"]
    assert float(after_one["success"]) == pytest.approx(share)
    assert float(after_one["success_low"]) <= share <= float(after_one["success_high"])
    assert f"{share:.0%} [" in text
    capsys.readouterr()
    assert main([*arguments, "evaluation.protocol=pearl"]) == 2
    assert "the tables of 'metarl compare' are of the protocol 'steps'" in capsys.readouterr().err


def test_a_table_without_success_of_an_older_version_is_added_to(tmp_path: Path) -> None:
    arguments = ["compare", "navigation", *TINY, "--learners", "scratch", "--seeds", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    rows = list(csv.reader((tmp_path / "comparison.csv").read_text().splitlines()))
    assert rows[0][-3:] == ["success", "success_low", "success_high"]
    older = "".join(",".join(row[:-3]) + "\n" for row in rows)
    (tmp_path / "comparison.csv").write_text(older)
    results: dict[str, Any] = json.loads((tmp_path / "scratch-1/results.json").read_text())
    assert results["schema"] == "metarl-results-2"
    assert main([*arguments[:-4], "--learners", "scratch,random", "--seeds", "1", "--out", str(tmp_path)]) == 0
    again = csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines())
    assert {row["learner"] for row in again} == {"scratch", "random"}


@pytest.mark.parametrize("learner", ["rl2", "random"])
def test_a_protocol_that_a_learner_cannot_do_is_refused_before_training(
    learner: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"learner={learner}", "evaluation.protocol=pearl", "--out", str(tmp_path / "runs")]
    assert main(["train", "navigation", *TINY, *asked]) == 2
    assert "pearl" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
