"""``metarl sweep``: trials are searched, shared by processes, taken up, and end in a table and a command."""

from __future__ import annotations

import csv
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import forked
import pytest

from metarl.experiments.command import main, parse
from metarl.experiments.sharing.sweep import plan

optuna = pytest.importorskip("optuna")

TINY = ["learning.iterations=3", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
        "evaluation.every=1", "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2",
        "evaluation.steps=1", "policy.hidden_sizes=[4]"]  # fmt: skip
SWEEP = ["sweep", "navigation", "inner.step_size=0.01..0.5:log", "policy.activation=tanh,relu", *TINY]
# Lets the first trials of two processes wait for each other.
MEET = """
import time
from pathlib import Path
from metarl.experiments import training
def meeting(*arguments, train=training.train, **options):
    while len(list(Path("sweep/.claims").glob("trial-*"))) < 2:
        time.sleep(0.01)
    return train(*arguments, **options)
training.train = meeting
"""
# Says that the first trial is at iteration 2, and stays there.
HANG = """
import time
from pathlib import Path
from metarl.experiments import training
class Hangs(training.SaveLast):
    def save(self, learner):
        super().save(learner)
        if learner.iteration == 2:
            Path("reached").touch()
            time.sleep(1000)
training.SaveLast = Hangs
"""
FAULTY = """
from metarl import MAML
class Fails(MAML):
    "Fails with large step sizes."
    def meta_iteration(self, state, iteration):
        if self.settings.inner.step_size > 0.2:
            raise FloatingPointError("the numbers are not finite")
        return super().meta_iteration(state, iteration)
"""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def trials(folder: Path) -> list[Any]:
    """Return the trials of a study as Optuna reads them."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "journal.log")))
    found: list[Any] = optuna.load_study(study_name="sweep", storage=storage).get_trials()
    return found


def test_a_sweep_ends_with_the_command_of_the_best_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SWEEP, "--trials", "2", "--seeds", "2"]) == 0
    printed = capsys.readouterr()
    assert "metarl:" not in printed.err
    found = rows(tmp_path / "sweep")
    values = [float(row["validation"]) for row in found]
    assert values == sorted(values, reverse=True)
    assert sorted(row["trial"] for row in found) == ["trial-0", "trial-1"]
    assert {row["state"] for row in found} == {"complete"}
    assert all(0.01 <= float(row["inner.step_size"]) <= 0.5 for row in found)
    assert {row["policy.activation"] for row in found} <= {"tanh", "relu"}
    (line,) = re.findall(r"^    (metarl train .*)$", printed.out, flags=re.MULTILINE)
    assert (tmp_path / "sweep/sweep.md").read_text() in printed.out
    options = parse(shlex.split(line)[1:])
    assert f"inner.step_size={found[0]['inner.step_size']}" in options.overrides
    assert (options.config, set(TINY) <= set(options.overrides)) == ("navigation", True)
    assert {path.name for path in (tmp_path / "sweep").glob("trial-*")} == {
        f"trial-{n}-{s}" for n in (0, 1) for s in (1, 2)
    }
    # A single process draws the same values each time.
    assert main([*SWEEP, "--trials", "3", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.count(" ...\n") == 1
    assert [row for row in rows(tmp_path / "sweep") if row["trial"] != "trial-2"] == found
    assert main([*SWEEP, "--trials", "2", "--seeds", "1"]) == 2
    assert "was begun with seeds = 2 and is to go on with seeds = 1; give what" in capsys.readouterr().err


def test_a_setting_that_takes_only_whole_numbers_is_searched_in_them() -> None:
    texts = ["inner.steps=1..5", "inner.step_size=1..2", "learner=promp", "outer.epochs=2..6", "outer.clip=0.1..0.5"]
    found = plan("navigation", texts, [], seeds=1, trials=1, prunes=False)
    assert {key: searched.integer for key, searched in found.space.items()} == {
        "inner.steps": True, "inner.step_size": False, "outer.epochs": True, "outer.clip": False,
    }  # fmt: skip


def test_what_fails_or_is_pruned_is_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fails_wide.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = [*SWEEP, "learner=fails_wide:Fails", "learning.iterations=2", "--trials", "12", "--prune"]
    assert main(command) == 0
    states = [row["state"] for row in rows(tmp_path / "sweep")]
    assert len(states) == 12
    assert states.count("complete") >= 5
    assert set(states) == {"complete", "pruned", "failed: the numbers are not finite"}
    assert states[0] == "complete"
    capsys.readouterr()
    assert main(command) == 0
    assert " ...\n" not in capsys.readouterr().out


def test_two_processes_share_the_trials(tmp_path: Path) -> None:
    command = [*SWEEP, "--trials", "4"]
    processes = [forked.start(*command, cwd=tmp_path, code=MEET + forked.COMMAND) for _ in range(2)]
    done = [process.finish() for process in processes]
    assert [one.returncode for one in done] == [0, 0], done
    first, second = (re.findall(r"^(trial-\d): .* \.\.\.$", one.stdout, flags=re.MULTILINE) for one in done)
    assert first
    assert second
    assert sorted(first + second) == ["trial-0", "trial-1", "trial-2", "trial-3"]
    assert [trial.state.name for trial in trials(tmp_path / "sweep")] == ["COMPLETE"] * 4
    assert len(rows(tmp_path / "sweep")) == 4


def test_a_killed_process_s_trial_is_taken_up(tmp_path: Path) -> None:
    command = [*SWEEP, "--trials", "2"]
    killed = forked.start(*command, cwd=tmp_path, code=HANG + forked.COMMAND)
    deadline = time.monotonic() + 300
    while not (tmp_path / "reached").exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other = forked.start(*command, cwd=tmp_path)
    while not (tmp_path / "sweep/trial-1/results.json").exists():
        assert other.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.finish()
    done = other.finish()
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(trial-\d): .* \.\.\.$", done.stdout, flags=re.MULTILINE) == ["trial-1", "trial-0"]
    found = trials(tmp_path / "sweep")
    assert [trial.state.name for trial in found] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert found[2].params == found[0].params
    assert sorted(row["trial"] for row in rows(tmp_path / "sweep")) == ["trial-0", "trial-1"]
    progress = (tmp_path / "sweep/trial-0/progress.csv").read_text().splitlines()
    assert len(progress) == 1 + 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["inner.step_size=0.1"], "no setting is searched; give ranges or choices"),
        (["inner.step_size=1..0"], "goes from 1 to 0"),
        (["inner.step_size=-1..1"], "inner.step_size is -1"),
        (["inner.stepsize=0..1"], "unknown setting"),
        (["policy.activation=tanh,sine"], "sine"),
        (["seed=1..3"], "seed is set by --seeds"),
        (["inner.steps=1..2", "inner.steps=1"], "inner.steps is given and searched"),
        (["inner.steps=1..2", "--trials", "0"], "--trials is 0; expected a whole number of at least 1"),
        (["inner.steps=1..2", "--submitit", "many"], "--submitit is 'many'; expected the number of jobs"),
        (["inner.steps=1..2", "--study", "file/study"], "the folder 'file/study' cannot be written: Not a directory"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["sweep", "navigation", *TINY, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_study_of_another_sweep_or_a_damaged_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = ["--study", str(tmp_path), "--trials", "1"]
    assert main(["sweep", "navigation", *TINY, "inner.step_size=0.1..0.2", "learner=random", *study]) == 0
    for changed, sentence in [
        (["inner.step_size=0.1..0.3"], "begun with space.inner.step_size.high = 0.2 and is to go on with"),
        (["inner.step_size=0.1..0.2", "inner.steps=1..2"], "begun with no space.inner.steps.choices"),
        (["inner.step_size=0.1..0.2", "learning.tasks=3"], "begun with settings.learning.tasks = 2 and is to go on"),
    ]:
        capsys.readouterr()
        assert main(["sweep", "navigation", *TINY, *changed, "learner=random", *study]) == 2
        assert sentence in capsys.readouterr().err
    (tmp_path / "journal.log").write_text("no journal\nof Optuna\n")
    assert main(["sweep", "navigation", *TINY, "inner.step_size=0.1..0.2", "learner=random", *study]) == 2
    assert "cannot be read" in capsys.readouterr().err
