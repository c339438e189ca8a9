"""The page of a report: what it holds, that it says the numbers of the results, and that it is the same each time."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import reported

from metarl.experiments.command import main
from metarl.experiments.reporting import write_report
from metarl.experiments.reporting.experience import number
from metarl.results import Evaluation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported.comparison(tmp_path_factory.mktemp("report") / "runs")


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    written = write_report([runs], runs.parent / "page.html")
    assert written.faults == ()
    return written.page.read_text(encoding="utf-8")


def test_it_shows_curves_tasks_and_training(text: str) -> None:
    page = reported.Page(text)
    assert len(page.named("svg")) == 5
    titles = [title for title in page.texts["h3"] if title]
    for title in ("Return by experience", "Training by environment steps", "Training by wall time",
                  "Map of tasks: maml", "Map of tasks: scratch", "Differences to baselines"):  # fmt: skip
        assert title in titles


def test_each_figure_says_what_is_found_in_words_and_numbers(text: str, runs: Path) -> None:
    page = reported.Page(text)
    names = [attributes["id"] for attributes in page.named("title") if "id" in attributes]
    findings = [words for words in page.texts["title"][1:] if words]
    assert [attributes["aria-labelledby"] for attributes in page.named("svg")] == names
    assert all(attributes["role"] == "img" for attributes in page.named("svg"))
    assert len(findings) == len(names)
    assert all(len(words) > 40 and re.search(r"\d", words) for words in findings)
    returns = np.stack([Evaluation.read(runs / f"maml-{seed}").returns for seed in (1, 2)])
    assert f"{returns[:, 0].mean():.2f} [" in findings[0]
    assert f"{returns[:, 2].mean():.2f} [" in findings[0]
    gains = (returns[:, 2] - returns[:, 0]).ravel()
    assert f"maml: on {(gains > 0).sum()} of 12 tasks" in findings[3]
    assert f"the median gain is {number(float(np.median(gains)))}" in findings[3]


def test_ids_are_unique_and_all_that_is_referred_to_is_there(text: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(set(ids)) == len(ids) > 100
    referred = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]*)', text)
    assert len(referred) > 50
    assert set(referred) <= set(ids)


def test_it_needs_no_network(text: str) -> None:
    bare = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http:" not in bare
    assert "https:" not in bare
    assert not reported.Page(text).named("script")
    assert all(link["href"] == "data:," for link in reported.Page(text).named("link"))


def test_it_can_be_used_with_a_keyboard_and_a_screen_reader(text: str) -> None:
    page = reported.Page(text)
    assert page.named("html")[0]["lang"] == "en"
    assert page.named("a")[0] == {"class": "skip", "href": "#content"}
    assert page.named("main")[0]["id"] == "content"
    assert all(len(page.named(landmark)) == 1 for landmark in ("header", "nav", "main", "footer", "h1"))
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h\d", name)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.named("table")) >= 5
    assert all(attributes["scope"] in ("col", "row") for attributes in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table"))
    scrolling = [attributes for attributes in page.named("div") if attributes.get("class") == "scroll"]
    assert all("tabindex" in attributes and attributes["role"] == "region" for attributes in scrolling)


def test_the_settings_that_differ_come_first(text: str) -> None:
    rows = re.findall(r'<th scope="row">(.*?)</th>', text)
    assert rows[:2] == ["seed", "learner"]
    assert "outer.update" in rows[: rows.index("family")]
    assert "inner.step_size" in rows[rows.index("family") :]


def test_the_table_has_the_paired_difference(text: str, runs: Path) -> None:
    ours, theirs = (
        np.stack([Evaluation.read(runs / f"{learner}-{seed}").returns[1] for seed in (1, 2)])
        for learner in ("maml", "scratch")
    )
    assert re.search(
        rf"maml, after 1</th><td>scratch, after 1</td><td>{re.escape(number(float((ours - theirs).mean())))} \[", text
    )


def test_it_says_how_to_repeat_it_and_with_what(text: str, runs: Path) -> None:
    assert f"metarl train {runs / 'maml-1/config.toml'} --name maml-1-again" in text
    assert f"metarl report {runs}" in text
    machine = json.loads((runs / "maml-1/machine.json").read_text())
    for value in (machine["metarl"], machine["packages"]["torch"], machine["platform"]):
        assert f"<td>{value}</td>" in text


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    first, second = (
        write_report([runs], tmp_path / folder / "page.html", ["svg", "png", "csv"]) for folder in ("a", "b")
    )
    assert len(first.files) == 15
    for one, other in zip((first.page, *first.files), (second.page, *second.files), strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


def test_tables_are_written_as_numbers(runs: Path, tmp_path: Path) -> None:
    write_report([runs], tmp_path / "page.html", ["csv"])
    with (tmp_path / "page-part1-results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["learner"], float(row["episodes_before"])) for row in rows] == [
        (learner, before) for learner in ("maml", "scratch") for before in (0.0, 2.0, 4.0)
    ]
    returns = np.stack([Evaluation.read(runs / f"scratch-{seed}").returns[1] for seed in (1, 2)])
    assert float(rows[4]["return"]) == pytest.approx(returns.mean())
    assert float(rows[4]["low"]) <= returns.mean() <= float(rows[4]["high"])


def test_nothing_is_overwritten(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report-2-part1-costs.csv").write_text("mine")
    for expected in ("report.html", "report-3.html"):
        assert main(["report", str(runs / "maml-1"), "--format", "csv"]) == 0
        assert f"Written to {expected}, with 4 more files beside it" in capsys.readouterr().out
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["report", str(runs / "scratch-1"), "--out", "report.html"]) == 2
    assert "'report.html' exists already; choose another --out" in capsys.readouterr().err
    (tmp_path / "new-part1-return.png").write_text("mine")
    assert main(["report", str(runs / "scratch-1"), "--out", "new.html", "--format", "png"]) == 2
    assert "'new-part1-return.png' exists already" in capsys.readouterr().err
    assert kept.items() <= {path: path.read_bytes() for path in tmp_path.iterdir()}.items()
    assert not (tmp_path / "new.html").exists()
