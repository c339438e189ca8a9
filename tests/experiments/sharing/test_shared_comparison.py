"""``metarl compare`` started twice in one folder: the runs are shared, and a killed one's run is taken up."""

from __future__ import annotations

import csv
import re
import signal
import time
from pathlib import Path

import forked
import pytest

from metarl import MAML
from metarl.experiments.command import main
from metarl.experiments.compare import train_quietly
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.experiments.sharing.claims import FOLDER, Claims
from metarl.experiments.sharing.share import TAKEN

TINY = ["learning.iterations=4", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
        "evaluation.tasks=2", "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1"]  # fmt: skip
COMPARE = ["compare", "navigation", "--learners", "maml,scratch", "--seeds", "2", *TINY]
# Lets the first runs of two processes wait for each other.
MEET = """
import time
from pathlib import Path
from metarl.experiments import training
def meeting(*arguments, train=training.train, **options):
    while len(list(Path("comparison/.claims").iterdir())) < 2:
        time.sleep(0.01)
    return train(*arguments, **options)
training.train = meeting
"""
# Says that the first run is at iteration 2, and stays there.
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


def started(printed: str) -> list[str]:
    return re.findall(r"^(\S+) \.\.\.$", printed, flags=re.MULTILINE)


def rows(folder: Path) -> dict[str, str]:
    with (folder / "comparison/comparison.csv").open() as file:
        return {row["learner"]: row["seeds"] for row in csv.DictReader(file)}


def test_two_processes_share_the_runs_and_none_is_done_twice(tmp_path: Path) -> None:
    processes = [forked.start(*COMPARE, cwd=tmp_path, code=MEET + forked.COMMAND) for _ in range(2)]
    done = [process.finish(600) for process in processes]
    assert [(one.returncode, one.stderr.replace("\r", "").count("metarl:")) for one in done] == [(0, 0)] * 2, done
    first, second = (started(one.stdout) for one in done)
    assert first
    assert second
    assert sorted(first + second) == ["maml-1", "maml-2", "scratch-1", "scratch-2"]
    for one, own in zip(done, (first, second), strict=True):
        elsewhere = re.findall(r"^(\S+) in another process: ", one.stdout, flags=re.MULTILINE)
        assert sorted(elsewhere + own) == sorted(first + second)
        assert "(4 of 4, " in one.stdout
        assert "| scratch | 2 |" in one.stdout
    claimed = [path.name for path in (tmp_path / "comparison/.claims").glob("*-*")]
    assert sorted(claimed) == ["maml-1.1", "maml-2.1", "scratch-1.1", "scratch-2.1"]
    assert rows(tmp_path) == {"maml": "2", "scratch": "2"}


def test_a_killed_process_s_run_is_taken_up_to_the_same_bits(tmp_path: Path) -> None:
    command = [*COMPARE, "--learners", "maml"]
    killed = forked.start(*command, cwd=tmp_path, code=HANG + forked.COMMAND)
    deadline = time.monotonic() + 300
    while not (tmp_path / "reached").exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other = forked.start(*command, cwd=tmp_path)
    while not (tmp_path / "comparison/maml-2/results.json").exists():
        assert other.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.finish().returncode == -signal.SIGKILL
    done = other.finish(600)
    assert (done.returncode, started(done.stdout)) == (0, ["maml-2", "maml-1"]), done.stderr
    assert {path.name for path in (tmp_path / "comparison/.claims").glob("maml-1*")} == {"maml-1.1", "maml-1.2"}
    alone = ["train", "navigation", "learner=maml", "seed=1", "--out", "alone", "--name", "maml-1", *TINY]
    assert forked.run(*alone, cwd=tmp_path).returncode == 0
    for name in ("results.json", "progress.csv", "checkpoints/last.zip", "checkpoints/best.zip"):
        taken_up, whole = (tmp_path / folder / "maml-1" / name for folder in ("comparison", "alone"))
        assert taken_up.read_bytes() == whole.read_bytes(), name


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main([*COMPARE, "--out", str(tmp_path / "file/comparison")]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"metarl: the folder '{tmp_path}/file/comparison' cannot be written: Not a directory;")


def test_a_process_that_was_replaced_writes_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = Claims(tmp_path / FOLDER)
    claims.prepare()
    (claims.folder / "maml-1.2").touch()  # another machine took the run while this process was held up
    overrides = [parse_override(text) for text in TINY]
    settings = read_configuration("navigation", overrides)[1]
    assert train_quietly(claims, 0, settings, tmp_path, "maml-1") == TAKEN
    assert "maml-1: another process has taken it" in capsys.readouterr().out
    assert MAML.load(tmp_path / "maml-1/checkpoints/last.zip").iteration == 0
    assert not (tmp_path / "maml-1/results.json").exists()
