"""``metarl compare``: what is done is kept, what fails is reported, the rest goes on, and the tables say what is so."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl import MAML
from metarl.experiments.command import main, parse
from metarl.experiments.compare import parse_rows
from metarl.experiments.comparison import FILES, Entry, difference, differences, draw, write_tables, zoom
from metarl.statistics import bootstrap_interval

TINY = ["learning.iterations=1", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
        "evaluation.tasks=2", "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1"]  # fmt: skip
FAULTY = """
import os
from metarl.learners.scratch import Scratch
class Fails(Scratch):
    "Fails."
    def evaluate(self, **_):
        raise FloatingPointError("the numbers are not finite")
class Dies(Scratch):
    "Dies."
    def evaluate(self, **_):
        os._exit(3)
"""


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_comparison_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faulty.py").write_text(FAULTY)
    rows = "fomaml,scratch,faulty:Fails,scratch evaluation.steps=2"
    command = ["compare", "navigation", "--learners", rows, "--seeds", "2", *TINY]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "faulty-Fails-1 failed: the numbers are not finite" in printed.err
    assert printed.out.count(" ...\n") == 8
    assert re.search(
        r"^fomaml-2: -\d+\.\d\d after 0, -\d+\.\d\d after 1 \(2 of 8, \d+ s\)$", printed.out, flags=re.MULTILINE
    )
    comparison = tmp_path / "comparison"
    found = read(comparison / "comparison.csv")
    labels = [("fomaml", "01"), ("scratch", "01"), ("scratch evaluation.steps=2", "012")]
    assert [(row["learner"], row["step"]) for row in found] == [(name, step) for name, all_ in labels for step in all_]
    results = [json.loads((comparison / f"fomaml-{seed}/results.json").read_text()) for seed in (1, 2)]
    values = [result["adaptation"][1]["per_task"] for result in results]
    assert float(found[1]["mean"]) == pytest.approx(np.mean(values))
    assert float(found[1]["low"]) <= np.mean(values) <= float(found[1]["high"])
    assert (found[1]["seeds"], found[1]["tasks"], found[1]["episodes"]) == ("2", "3", "2")
    # 2 tasks x 2 episodes x 5 steps, before and after adaptation; scratch does not train.
    assert [row["environment_steps"] for row in found[:3]] == ["40.0", "40.0", "0.0"]
    assert 0 < float(found[0]["training_seconds"]) < 100
    paired = {
        (row["learner"], row["baseline"], row["baseline_step"]): row for row in read(comparison / "differences.csv")
    }
    longer = "scratch evaluation.steps=2"
    assert set(paired) == {
        ("fomaml", "scratch", "1"), ("fomaml", longer, "2"), ("scratch", longer, "2"), (longer, "scratch", "1"),
    }  # fmt: skip
    scratch = [json.loads((comparison / f"scratch-{seed}/results.json").read_text()) for seed in (1, 2)]
    baseline = [result["adaptation"][1]["per_task"] for result in scratch]
    assert float(paired["fomaml", "scratch", "1"]["mean"]) == pytest.approx(np.mean(values) - np.mean(baseline))
    # What both rows of scratch do first is the same to the bit.
    assert float(paired[longer, "scratch", "1"]["mean"]) == 0.0
    assert (comparison / "comparison.png").stat().st_size > 5000
    assert (comparison / "comparison.md").read_text() in printed.out
    report = (comparison / "comparison.html").read_text()
    assert all(f'<th scope="col">{label}</th>' in report for label in ("fomaml", "scratch evaluation.steps=1", longer))
    assert "faulty-Fails-1" in report

    assert main(command) == 1
    assert capsys.readouterr().out.count(" ...\n") == 2
    assert main([*command, "inner.step_size=0.2"]) == 2
    assert "has other settings; choose another --out" in capsys.readouterr().err


def test_parallel_runs_are_the_same_to_the_bit_and_one_that_fails_or_dies_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    command = ["compare", "navigation", "--seeds", "1", *TINY]
    rows = "maml,faulty:Fails,faulty:Dies"
    assert main([*command, "--learners", rows, "--parallel", "3", "--out", "parallel"]) == 1
    printed = capsys.readouterr()
    assert "faulty-Fails-1 failed: the numbers are not finite" in printed.err
    assert "faulty-Dies-1 failed: its process ended with exit code 3" in printed.err
    assert len(re.findall(r"\(\d of 3, \d+ s\)|failed \(\d of 3\)", printed.out)) == 3
    assert main([*command, "--learners", "maml", "--out", "one"]) == 0
    for file in ("results.json", "progress.csv", "checkpoints/last.zip", "checkpoints/best.zip"):
        assert (tmp_path / "parallel/maml-1" / file).read_bytes() == (tmp_path / "one/maml-1" / file).read_bytes()
    assert json.loads((tmp_path / "parallel/maml-1/machine.json").read_text())["torch_threads"] == 1


def test_ctrl_c_ends_all_processes_and_leaves_runs_that_go_on(tmp_path: Path) -> None:
    command = ["compare", "navigation", "--seeds", "2", "--parallel", "2", "--learners", "maml", *TINY[1:]]
    process = forked.start(*command, "learning.iterations=100000", cwd=tmp_path)
    begun = [tmp_path / f"comparison/maml-{seed}/progress.csv" for seed in (1, 2)]
    deadline = time.monotonic() + 120
    while not all(progress.exists() and len(progress.read_text().splitlines()) > 2 for progress in begun):
        assert process.poll() is None, process.finish().stderr
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    stopped = process.finish(60)
    assert stopped.returncode == 130
    assert stopped.stderr == "metarl: stopped; the same command goes on where it stopped\n"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    for run in (tmp_path / "comparison/maml-1", tmp_path / "comparison/maml-2"):
        assert MAML.load(run / "checkpoints/last.zip").iteration >= 1
        assert not (run / "results.json").exists()


def labels(comparison: Path) -> dict[str, str]:
    """Return the rows of a table, and the number of seeds of each."""
    return {row["learner"]: row["seeds"] for row in read(comparison / "comparison.csv")}


def test_another_set_of_rows_is_added_to_the_tables_and_none_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["compare", "navigation", *TINY, "--learners"]
    out = tmp_path / "comparison"
    assert main([*command, "scratch,scratch evaluation.steps=2", "--seeds", "2"]) == 0
    first = {row["learner"]: row for row in read(out / "comparison.csv")}
    capsys.readouterr()
    assert main([*command, "fomaml", "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Rows of the tables in comparison that are kept: scratch, scratch evaluation.steps=2" in printed
    assert printed.count(" ...\n") == 1
    assert labels(out) == {"scratch": "2", "scratch evaluation.steps=2": "2", "fomaml": "1"}
    after = {row["learner"]: row for row in read(out / "comparison.csv")}
    assert all(after[label] == row for label, row in first.items())
    assert {row["learner"] for row in read(out / "differences.csv")} == set(after)
    text = (out / "comparison.md").read_text()
    assert all(f"| {label} |" in text for label in after)
    # Fewer seeds of a row that is there lose none of it.
    assert main([*command, "scratch", "--seeds", "1"]) == 0
    assert labels(out) == {"scratch": "2", "scratch evaluation.steps=2": "2", "fomaml": "1"}

    tables = {name: (out / name).read_bytes() for name in FILES}
    for arguments, part in [
        (["random", "--seeds", "1", "inner.step_size=0.2"], "has other settings; choose another --out"),
        (["random evaluation.test_tasks=2", "--seeds", "1"], "evaluation.test_tasks is 2 for random"),
    ]:
        capsys.readouterr()
        assert main([*command, *arguments]) == 2
        assert part in capsys.readouterr().err
    shutil.rmtree(out / "scratch-2")
    assert main([*command, "random", "--seeds", "1"]) == 2
    assert "has 2 seeds of 'scratch', of which only 1 could be kept" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in FILES} == tables
    assert not (out / "random-1").exists()
    assert main([*command, "scratch", "--seeds", "2"]) == 0
    assert labels(out) == {"scratch": "2", "scratch evaluation.steps=2": "2", "fomaml": "1"}


def test_a_row_that_fails_now_leaves_the_tables_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["compare", "navigation", *TINY, "--learners", "scratch", "--seeds", "1"]
    assert main(command) == 0
    table = (tmp_path / "comparison/comparison.csv").read_bytes()
    (tmp_path / "comparison/scratch-1/results.json").write_text("")
    (tmp_path / "comparison/scratch-1/checkpoints/last.zip").write_text("")
    assert main(command) == 1
    assert "the tables in comparison stay as they were" in capsys.readouterr().err
    assert (tmp_path / "comparison/comparison.csv").read_bytes() == table


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_user_is_not_taken_for_a_table(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine, and no table\n")
    command = ["compare", "navigation", *TINY, "--learners", "random", "--seeds", "1", "--out", str(tmp_path)]
    assert main(command) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert name in sentence
    assert "choose another --out" in sentence
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine, and no table\n"


@pytest.mark.parametrize("files", [[], ["config.toml"], ["config.toml", "machine.json", "checkpoints/notes.txt"]])
def test_a_folder_without_a_checkpoint_is_kept_and_its_run_begins_anew(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "comparison/scratch-1"
    old.mkdir(parents=True)
    for name in files:
        (old / name).parent.mkdir(exist_ok=True)
        (old / name).write_text("what was there")
    assert main(["compare", "navigation", *TINY, "--learners", "scratch", "--seeds", "1"]) == 0
    assert "'comparison/scratch-1' has no checkpoint; it is kept as" in capsys.readouterr().err
    assert labels(tmp_path / "comparison") == {"scratch": "1"}
    for name in files:
        assert (tmp_path / "comparison/scratch-1.aside-1" / name).read_text() == "what was there"


def test_what_a_killed_write_of_a_table_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "comparison"
    out.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"comparison.csv.{ended.pid}.part", "comparison.csv.1.part", f"mine.csv.{ended.pid}.part"):
        (out / name).write_text("half")
    assert main(["compare", "navigation", *TINY, "--learners", "scratch", "--seeds", "1"]) == 0
    assert sorted(path.name for path in out.glob("*.part")) == ["comparison.csv.1.part", f"mine.csv.{ended.pid}.part"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "mam"], "unknown learner 'mam'"),
        (["--learners", "maml", "--seeds", "0"], "--seeds is 0"),
        (["--learners", "maml", "--parallel", "0"], "--parallel is 0; expected a whole number of at least 1"),
        (["--learners", "maml,,scratch"], "--learners is 'maml,,scratch', where a name is missing"),
        (["--learners", "maml,scratch steps"], "'steps' is no setting; expected key=value"),
        (["--learners", "maml,scratch evaluation.step=3"], "scratch evaluation.step=3: unknown setting"),
        (["--learners", "maml,scratch evaluation.test_tasks=4"], "evaluation.test_tasks is 4 for scratch evaluation"),
        (["--learners", "maml seed=2"], "seed is set by --seeds; leave it out of the settings"),
        (["--learners", "maml", "learner=anil"], "learner is set by --learners"),
        (["--learners", "maml,maml inner.steps=2,maml  inner.steps:2"], "'inner.steps:2' is no setting"),
        (["--learners", "anil policy.activation=tanh,anil policy.activation='tanh'"], "would both be the run"),
        (["--learners", "maml,pretrained", "learning.normalize_observations=true"], "pretrained: learner pretrained"),
        (
            ["--learners", "maml,task-aware", "family=metarl/Parameterized-v0", "family_kwargs.env=FrozenLake-v1",
             'family_kwargs.parameters={"success_rate"=[0.3,1.0]}'],
            "task-aware: learner task-aware appends the task to the observation, which needs a perceptron",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_before_anything_is_trained(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "navigation", *TINY, *arguments, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_rows_are_learners_with_settings_of_their_own() -> None:
    rows = parse_rows("maml, cavia inner.step_size=1.0  policy.context_size=3,maml,anil policy.hidden_sizes=[32,32]")
    assert [(row.label, row.learner, row.overrides) for row in rows] == [
        ("maml", "maml", ()),
        (
            "cavia inner.step_size=1.0 policy.context_size=3",
            "cavia",
            (("inner.step_size", 1.0), ("policy.context_size", 3)),
        ),
        ("anil policy.hidden_sizes=[32,32]", "anil", (("policy.hidden_sizes", [32, 32]),)),
    ]


def entry(learner: str, returns: Any, **changed: Any) -> Entry:
    values = np.asarray(returns, dtype=np.float64)
    given = {"seeds": tuple(range(1, len(values) + 1)), "episodes": 20, "optimum": None}
    cost = {"environment_steps": 1e6, "seconds": 90.4}
    return Entry(**{"label": learner, "learner": learner, "returns": values, **given, **cost, **changed})


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(-50, 0), min_size=4, max_size=4), min_size=1, max_size=4),
    shift=st.floats(-20, 20),
)
def test_an_interval_lies_within_the_values_and_moves_with_them(values: list[list[float]], shift: float) -> None:
    given = np.array(values)
    low, high = bootstrap_interval(given)
    assert given.min() - 1e-9 <= low <= high <= given.max() + 1e-9
    np.testing.assert_allclose(bootstrap_interval(given + shift), (low + shift, high + shift), atol=1e-9)


def test_an_interval_over_seeds_and_tasks_has_the_width_that_theory_says() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 400))
    assert bootstrap_interval(one) == bootstrap_interval(one[0])
    # Seeds that differ by far more than tasks: 40 of them are as 40 values.
    many = rng.normal(size=(40, 1)) + 0.01 * rng.normal(size=(40, 30))
    low, high = bootstrap_interval(many)
    width = 2 * 1.96 * many.mean(axis=1).std() / 40**0.5
    assert high - low == pytest.approx(width, rel=0.15)


def test_a_learner_is_the_baseline_of_its_rows_with_settings() -> None:
    names = {"maml": 0.0, "maml augment.mix=1.0": 2.0, "reptile": 1.0}
    rows = [entry(name.split()[0], np.full((2, 2, 3), value), label=name) for name, value in names.items()]
    found = {(part.learner, part.baseline): part.mean for part in differences(rows)}
    assert found == {("maml augment.mix=1.0", "maml"): 2.0, ("reptile", "maml"): 1.0}
    assert list(differences([rows[0], rows[2]])) == []


def test_differences_are_taken_task_by_task_for_the_seeds_in_common() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(scale=20.0, size=(3, 1, 50))  # of the tasks, the same for all
    baseline = entry("scratch", -60 + hardness + rng.normal(size=(3, 2, 50)))
    better = entry("maml", -59 + hardness[[2, 0]] + rng.normal(size=(2, 2, 50)), seeds=(3, 1))
    found = difference(better, baseline, 1, 1)
    assert found is not None
    assert (found.learner, found.baseline, found.seeds, found.tasks) == ("maml", "scratch", 2, 50)
    expected = better.returns[:, 1] - baseline.returns[[2, 0], 1]
    assert found.mean == pytest.approx(expected.mean())
    assert 0 < found.low < found.mean < found.high
    # Unpaired, such a difference is lost between hard and easy tasks.
    assert better.intervals[1, 0] < baseline.intervals[1, 1]
    assert difference(better, entry("scratch", baseline.returns[1:2], seeds=(2,)), 1, 1) is None


def test_the_tables_say_what_is_not_known_and_the_picture_shows_the_better_half(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    means = {"task-aware": -1.0, "maml": -10.0, "anil": -12.0, "pretrained": -30.0, "scratch": -55.0, "random": -66.0}
    entries = [entry(name, mean + rng.normal(size=(2, 3, 5)), optimum=-0.5) for name, mean in means.items()]
    entries[1] = entry("maml", entries[1].returns, environment_steps=None, seconds=None)
    text = write_tables(entries, tmp_path)
    assert text == (tmp_path / "comparison.md").read_text()
    lines = text.splitlines()
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    assert rows["learner"] == ["minus pretrained after 1", "minus scratch after 1"]
    (maml,) = [line for line in lines if line.startswith("| maml | 2 |")]
    assert maml.endswith("| – | – |")
    (anil,) = [line for line in lines if line.startswith("| anil | 2 |")]
    assert anil.endswith("| 1,000,000 | 90 s |")
    assert rows["scratch"][1] == "–"
    assert rows["maml"][0].startswith("+20.") or rows["maml"][0].startswith("+19.")
    low, high = zoom(entries[:3])
    assert -16 < low < -12
    assert -1 < high < 2
    draw(entries, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 20_000


def test_the_page_on_comparisons_names_commands_that_exist() -> None:
    page = (Path(__file__).parents[2] / "docs/compare.md").read_text()
    lines = re.findall(r"^metarl (?:.*\\\n)*.*", page, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        options = parse(shlex.split(line.replace("\\\n", " "))[1:])
        assert options.command == "compare"
        assert len(parse_rows(options.learners)) > 2
