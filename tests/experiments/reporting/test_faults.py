"""Reports of runs that cannot all be read or compared: a sentence for each, and the rest is shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import reported

from metarl.experiments.command import main
from metarl.experiments.reporting import write_report

SUCCESS = "toy_families:toy/TellsOfSuccess-v0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    reported.train(out, "maml-1", "maml", 1)
    reported.train(out, "scratch-2", "scratch", 2)
    reported.train(out, "told", "maml", 1, family=SUCCESS, family_kwargs={})
    return out


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs"))


def written(*runs: Path, out: Path) -> tuple[str, str]:
    """Return the page of runs, and what could not be shown."""
    found = write_report(runs, out)
    page = found.page.read_text(encoding="utf-8")
    return page, "\n".join(found.faults)


def test_a_single_seed_and_no_baseline_are_said(runs: Path, tmp_path: Path) -> None:
    page, faults = written(runs / "maml-1", out=tmp_path / "page.html")
    assert faults == ""
    assert "maml has one seed only (1): its intervals are over tasks" in page
    assert "There is no baseline among the runs of metarl/Navigation2D-v0" in page


def test_runs_of_two_families_have_a_chapter_each_and_success_is_shown(runs: Path, tmp_path: Path) -> None:
    page, faults = written(runs / "maml-1", runs / "told", out=tmp_path / "page.html")
    assert "The runs are of 2 families" in faults
    assert "so each family has a chapter of its own" in page
    assert ">Success rate by experience</h3>" in page
    assert page.count(">Return by experience</h3>") == 2
    assert "Return by task: maml" in page


def test_tasks_that_come_again_and_tasks_of_training_are_said(runs: Path, tmp_path: Path) -> None:
    path = runs / "maml-1/results.json"
    results = json.loads(path.read_text())
    results["runs"][0]["tasks"] = [[0.1, 0.2], [0.3, 0.1]] * 3
    path.write_text(json.dumps({**results, "split": "train"}))
    page, faults = written(runs / "maml-1", out=tmp_path / "page.html")
    assert faults == ""
    assert "The 6 tasks on which maml was evaluated are only 2 different ones" in page
    assert "maml was evaluated on tasks of training" in page


def test_rows_without_a_common_seed_have_no_difference(runs: Path, tmp_path: Path) -> None:
    page, faults = written(runs / "maml-1", runs / "scratch-2", out=tmp_path / "page.html")
    assert "maml and scratch have no seed in common" in faults
    assert "Differences to baselines" not in page
    assert "scratch" in page


def test_a_run_that_has_not_ended_shows_its_training(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "maml-1/results.json").unlink()
    assert main(["report", str(runs / "maml-1"), "--out", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr()
    assert "maml-1' has no results yet, so only its training is shown" in printed.err
    page = (tmp_path / "page.html").read_text()
    assert "There are no results of this family yet" in page
    assert ">Training by environment steps</h3>" in page
    assert ">Return by experience</h3>" not in page


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("results.json", ">Return by experience</h3>"),
        ("progress.csv", ">Training by environment steps</h3>"),
        ("cost.json", ">Training by wall time</h3>"),
        ("machine.json", None),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[]"])
def test_a_damaged_file_is_named_and_the_rest_is_shown(
    name: str, lost: str | None, content: bytes, runs: Path, tmp_path: Path
) -> None:
    (runs / "maml-1" / name).write_bytes(content)
    page, faults = written(runs / "maml-1", out=tmp_path / "page.html")
    kept = {">Return by experience</h3>", ">Training by environment steps</h3>", ">Training by wall time</h3>"}
    kept -= {">Training by wall time</h3>"} if name == "progress.csv" else set()
    assert lost is None or lost not in page
    assert all(title in page for title in kept - {lost})
    if name != "progress.csv" or content:
        assert name in faults
        assert len(faults.splitlines()) == 1


def test_what_is_no_run_is_named_and_the_others_are_shown(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / "empty"), str(tmp_path / "missing"), str(runs / "maml-1")]
    assert main(["report", *words, "--out", str(tmp_path / "page.html")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("is no run" in line and "the report is without it" in line for line in lines)
    assert ">Return by experience</h3>" in (tmp_path / "page.html").read_text()


def test_damaged_settings_are_taken_from_the_results(runs: Path, tmp_path: Path) -> None:
    (runs / "maml-1/config.toml").write_text("learner = ")
    page, faults = written(runs / "maml-1", out=tmp_path / "page.html")
    assert "are those in its results" in faults
    assert ">Return by experience</h3>" in page
    (runs / "maml-1/results.json").unlink()
    with pytest.raises(ValueError, match=r"The settings of .*maml-1' cannot be read"):
        write_report([runs / "maml-1"], tmp_path / "other.html")


def test_other_versions_and_machines_are_said(runs: Path, tmp_path: Path) -> None:
    path = runs / "scratch-2/machine.json"
    machine = json.loads(path.read_text())
    machine["packages"]["torch"] = "1.0"
    machine["cpus"] = 1000
    path.write_text(json.dumps(machine))
    page, _ = written(runs / "maml-1", runs / "scratch-2", out=tmp_path / "page.html")
    assert "The runs were made with different versions of torch" in page
    assert "The runs were made on 2 kinds of machine" in page
    page, _ = written(runs / "scratch-2", out=tmp_path / "other.html")
    assert "The runs were made with torch 1.0; this report was written with" in page


def test_a_run_given_twice_counts_once_and_a_copy_is_named(runs: Path, tmp_path: Path) -> None:
    page, faults = written(runs / "maml-1", runs / ".." / "runs/maml-1", out=tmp_path / "page.html")
    assert faults == ""
    shutil.copytree(runs / "maml-1", runs / "copy")
    page, faults = written(runs / "maml-1", runs / "copy", out=tmp_path / "other.html")
    assert "copy' has the seed and the settings of another run" in faults
    assert "maml has one seed only" in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing"], "'missing' is no run"),
        (["runs/maml-1", "--format", "pdf"], "the format 'pdf' is unknown; expected some of png, svg, csv"),
        (["runs/maml-1", "--out", "page.pdf"], "give it a name that ends in .html"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_written(
    words: list[str],
    sentence: str,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
