"""Which runs a row of a report puts together, and what rows are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import reported

from metarl.experiments.reporting import write_report


def evaluating(**changes: object) -> dict[str, object]:
    """Return the section of a tiny evaluation with changes."""
    return {**reported.TINY["evaluation"], **changes}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    reported.train(out, "first", "scratch", 1)
    reported.train(out, "second", "scratch", 2)
    reported.train(out, "longer", "scratch", 1, evaluation=evaluating(steps=4))
    reported.train(out, "pearl", "scratch", 1, evaluation=evaluating(protocol="pearl"))
    reported.train(out, "fewer", "scratch", 1, evaluation=evaluating(steps=1, episodes=3, test_tasks=5))
    reported.train(
        out, "beyond", "scratch", 1, family="metarl/PendulumParams-v0", evaluation=evaluating(protocol="generalization")
    )
    return out


def labels(*runs: Path, out: Path) -> list[str]:
    """Return the names of the rows in the table of settings of a report."""
    page = write_report(runs, out).page.read_text(encoding="utf-8")
    head = page.split('<th scope="col">setting</th>')[1].split("</tr>")[0]
    return head.replace("</th>", "").replace('<th scope="col">', "").split("\n")[1:-1]


def test_seeds_are_one_row(runs: Path, tmp_path: Path) -> None:
    assert labels(runs / "second", runs / "first", out=tmp_path / "page.html") == ["scratch"]
    page = (tmp_path / "page.html").read_text()
    assert '<th scope="row">seed</th><td>1, 2</td>' in page
    assert "has one seed only" not in page


def test_rows_of_a_learner_are_called_by_what_differs(runs: Path, tmp_path: Path) -> None:
    found = labels(runs / "first", runs / "longer", out=tmp_path / "page.html")
    assert found == ["scratch evaluation.steps=2", "scratch evaluation.steps=4"]
    page = (tmp_path / "page.html").read_text()
    # A baseline with a larger budget is compared after its last step, as in the tables of metarl compare.
    assert "scratch evaluation.steps=4, after 4</td>" in page


def test_rows_that_differ_in_much_are_numbered(runs: Path, tmp_path: Path) -> None:
    found = labels(runs / "first", runs / "fewer", runs / "longer", out=tmp_path / "page.html")
    assert found == ["scratch (1)", "scratch (2)", "scratch (3)"]
    page = (tmp_path / "page.html").read_text()
    assert "scratch (1) and scratch (2) were evaluated on different tasks" in page


def test_deterministic_scores_are_named_and_other_protocols_said(runs: Path, tmp_path: Path) -> None:
    labels(runs / "first", runs / "pearl", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert '<th scope="row">scratch evaluation.protocol=pearl (deterministic)</th>' in page
    assert '<th scope="row">scratch evaluation.protocol=steps</th>' in page
    assert "The runs were evaluated by different protocols" in page


def test_regions_have_curves_of_their_own(runs: Path, tmp_path: Path) -> None:
    labels(runs / "beyond", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for region in ("default", "interpolation", "extrapolation"):
        assert f'<th scope="row">scratch, {region}</th>' in page
        assert f"scratch, {region} " in page.split("-return-words")[2]
