"""Disks that are full, file systems without hard links, processes that are killed: what is left can go on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metarl import MAML, BaseLearner
from metarl.experiments.command import main
from metarl.experiments.configuration import read_configuration
from metarl.experiments.training import SaveLast, Terminated, start_run
from metarl.files import new_file

METARL = str(Path(sys.executable).with_name("metarl"))
TINY = [
    "learning.iterations=4", "learning.tasks=2", "learning.episodes=2", "policy.hidden_sizes=[4]",
    "evaluation.every=2", "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2",
    "evaluation.steps=1",
]  # fmt: skip
TRAIN = ["train", "bernoulli-bandit", *TINY]
SAME = ("results.json", "progress.csv", "checkpoints/last.zip", "checkpoints/best.zip")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path) -> Iterator[None]:
    with contextlib.chdir(tmp_path):
        yield


def refuse(code: int) -> Callable[..., Any]:
    def fail(*arguments: Any, **_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".part" in path.name)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_will_do(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "link", refuse(code))
    assert main(TRAIN) == 0, capsys.readouterr().err
    run = tmp_path / "runs/bernoulli-bandit"
    assert json.loads((run / "results.json").read_text())["seeds"] == [1]
    for _ in range(2):
        assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2"]) == 0
    assert sorted(path.name for path in (run / "evaluations").iterdir()) == ["1.csv", "1.json", "2.csv", "2.json"]
    assert main(["picture", str(run), "--tasks", "2"]) == 0
    assert main(["picture", str(run), "--tasks", "2"]) == 2
    assert left(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_never_takes_the_place_of_another(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError), new_file(tmp_path / "mine") as beside:
        beside.write_text("other")
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(UnicodeEncodeError), new_file(tmp_path / "half") as beside:
        beside.write_text("half \ud800", encoding="utf-8")
    with new_file(tmp_path / "whole") as beside:
        beside.write_text("whole")
    assert (tmp_path / "whole").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "whole"]


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.rename", "metarl.experiments.training.run_logger"])
def test_a_start_that_fails_leaves_no_folder_and_takes_no_name(
    broken: str, name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*TRAIN, *(["--name", name] if name else [])]
    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse(errno.ENOSPC))
        assert main(arguments) in (1, 2)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in sentence
    assert list((tmp_path / "runs").iterdir()) == []
    assert main(arguments) == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name or "bernoulli-bandit"]


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_start_that_is_stopped_leaves_no_folder(
    stop: type[BaseException], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(_: int) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", fail)
    assert main(TRAIN) == status
    assert capsys.readouterr().err == "metarl: stopped\n"
    assert list((tmp_path / "runs").iterdir()) == []


def fails_later(monkeypatch: pytest.MonkeyPatch, name: str, count: int) -> None:
    """Let the disk be full when a file whose path ends in ``name`` is put into place for the ``count``-th time."""
    calls = 0
    put = Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += str(target).endswith(name)
        if str(target).endswith(name) and calls >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return put(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize(
    ("name", "count", "saved"), [("last.zip", 4, 2), ("cost.json", 4, 3), ("progress.csv", 2, 1), ("best.zip", 1, 2)]
)
def test_a_disk_that_is_full_is_one_sentence_and_the_run_goes_on_to_the_same_bits(
    name: str, count: int, saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main([*TRAIN, "--name", "whole"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        fails_later(patch, name, count)
        assert main([*TRAIN, "--name", "full"]) == 1
    *_, sentence = capsys.readouterr().err.splitlines()
    full = tmp_path / "runs/full"
    assert f"{name}' cannot be read or written: No space left on device" in sentence
    assert f"the checkpoint after iteration {saved} is in runs/full/checkpoints/last.zip" in sentence
    assert sentence.endswith("metarl train --resume runs/full")
    assert MAML.load(full / "checkpoints/last.zip").iteration == saved
    assert left(tmp_path) == []
    assert main(["train", "--resume", "runs/full"]) == 0
    for file in SAME:
        assert (full / file).read_bytes() == (tmp_path / "runs/whole" / file).read_bytes(), file


def gone(run: Path) -> None:
    run.rename(run.with_name("moved"))


def folder_at(name: str) -> Callable[[Path], None]:
    def put(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return put


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (gone, "runs/full"),
        (folder_at("checkpoints/last.zip"), "runs/full/checkpoints/last.zip"),
        (folder_at("checkpoints/best.zip"), "runs/full/checkpoints/best.zip"),
        (folder_at("cost.json"), "runs/full/cost.json"),
        (folder_at("progress.csv"), "runs/full/progress.csv"),
    ],
)
def test_files_that_are_taken_away_while_it_trains_are_one_sentence(
    harm: Callable[[Path], None], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save = SaveLast.save

    def then_harm(self: SaveLast, learner: BaseLearner) -> None:
        save(self, learner)
        if learner.iteration == 3:
            harm(tmp_path / "runs/full")

    assert main([*TRAIN, "learning.iterations=6", "--name", "whole"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(SaveLast, "save", then_harm)
        assert main([*TRAIN, "learning.iterations=6", "--name", "full"]) == 1
    *_, sentence = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"metarl: '{named}")
    assert "' cannot be read or written: " in sentence
    assert sentence.endswith("metarl train --resume runs/full")
    assert left(tmp_path) == []
    if harm is gone:
        assert not (tmp_path / "runs/full").exists()
        (tmp_path / "runs/moved").rename(tmp_path / "runs/full")
    elif "last.zip" in named:
        assert "last.zip cannot be read now" in sentence
        return
    assert main(["train", "--resume", "runs/full"]) == 0
    for file in SAME:
        if "progress" not in named or file != "progress.csv":
            assert (tmp_path / "runs/full" / file).read_bytes() == (tmp_path / "runs/whole" / file).read_bytes(), file


def test_a_table_of_progress_that_is_deleted_while_it_trains_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SaveLast.save

    def then_delete(self: SaveLast, learner: BaseLearner) -> None:
        save(self, learner)
        if learner.iteration == 2:
            (tmp_path / "runs/full/progress.csv").unlink()

    assert main([*TRAIN, "--name", "whole"]) == 0
    monkeypatch.setattr(SaveLast, "save", then_delete)
    assert main([*TRAIN, "--name", "full"]) == 0
    assert (tmp_path / "runs/full/progress.csv").read_bytes() == (tmp_path / "runs/whole/progress.csv").read_bytes()


@pytest.mark.parametrize("name", ["config.toml", "progress.csv", "cost.json", "checkpoints/last.zip"])
def test_what_a_resume_needs_is_on_the_disk_before_its_name_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[os.stat_result] = []
    fsync, put = os.fsync, Path.replace

    def record(file: int) -> None:
        fsync(file)
        flushed.append(os.fstat(file))

    def replace(self: Path, target: Path) -> Path:
        if str(target).endswith(name):
            assert any(os.path.samestat(self.stat(), each) for each in flushed), "its contents were not flushed"
            names.append(target)
        return put(self, target)

    names: list[Path] = []
    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "replace", replace)
    assert main(TRAIN) == 0
    assert names
    final = tmp_path / "runs/bernoulli-bandit" / name
    folders = {each.st_ino for each in flushed}
    assert {final.parent.stat().st_ino, (tmp_path / "runs").stat().st_ino} <= folders


def call(*arguments: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [METARL, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **more)


def test_a_file_that_the_system_lets_grow_no_more_is_one_sentence(tmp_path: Path) -> None:
    long = [*TRAIN, "learning.iterations=200", "evaluation.every=300", "--name", "long"]
    done = call(*long, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000)))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert "cannot be read or written: File too large; the checkpoint after iteration " in sentence
    assert 1 <= MAML.load(tmp_path / "runs/long/checkpoints/last.zip").iteration < 200
    resumed = call("train", "--resume", "runs/long", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert len((tmp_path / "runs/long/progress.csv").read_text().splitlines()) == 201


def test_a_run_of_a_comparison_whose_disk_is_full_is_one_sentence_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "bernoulli-bandit", "--learners", "maml,scratch", "--seeds", "1", *TINY]
    with monkeypatch.context() as patch:
        fails_later(patch, "maml-1/checkpoints/last.zip", 2)
        assert main(command) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("metarl: maml-1 failed: 'comparison/maml-1/checkpoints/last.zip' cannot be")
    assert (tmp_path / "comparison/scratch-1/results.json").is_file()
    assert main(command) == 0
    with monkeypatch.context() as patch:
        fails_later(patch, "comparison.csv", 1)
        before = (tmp_path / "comparison/comparison.csv").read_bytes()
        assert main(command) == 1
    assert "comparison.csv' cannot be" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "comparison/comparison.csv").read_bytes() == before


def killed_while_it_starts(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\nos.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = call(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == -signal.SIGKILL
    (tmp_path / "sitecustomize.py").unlink()


def test_a_start_that_is_killed_takes_no_name_and_stops_no_comparison(tmp_path: Path) -> None:
    compare = ["compare", "bernoulli-bandit", "--learners", "random", "--seeds", "1", "--out", "runs", *TINY]
    killed_while_it_starts([*TRAIN, "--name", "mine"], tmp_path)
    killed_while_it_starts(compare, tmp_path)
    runs = tmp_path / "runs"
    hidden = list(runs.iterdir())
    assert len(hidden) == 2
    assert all(path.name.startswith(".") for path in hidden)
    old = time.time() - 7200
    os.utime(hidden[0], (old, old))
    (runs / ".mine.part").mkdir()
    os.utime(runs / ".mine.part", (old, old))
    assert main([*TRAIN, "--name", "mine"]) == 0
    assert main(compare) == 0
    assert not hidden[0].exists()
    assert hidden[1].exists()  # it may be one that starts right now
    assert (runs / ".mine.part").exists()


def test_a_folder_of_ones_own_keeps_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/bernoulli-bandit").write_text("a file")
    assert main([*TRAIN, "--name", "mine"]) == 2
    assert "there is already 'runs/mine'" in capsys.readouterr().err
    assert list((tmp_path / "runs/mine").iterdir()) == []
    assert main(TRAIN) == 0
    assert (tmp_path / "runs/bernoulli-bandit").read_text() == "a file"
    assert (tmp_path / "runs/bernoulli-bandit-2/results.json").is_file()


def test_a_new_run_can_go_on_before_its_first_iteration_is_done(tmp_path: Path) -> None:
    whole = [*TRAIN, "--name", "whole"]
    assert main(whole) == 0
    assert main([*TRAIN, "--name", "new", "--out", "other"]) == 0
    settings = read_configuration("runs/whole/config.toml", [])[1]
    run, learner = start_run(settings, tmp_path / "begun", "begun", "begun")
    learner.logger.close()
    learner.close()
    del run
    assert MAML.load("begun/begun/checkpoints/last.zip").iteration == 0
    done = call("train", "--resume", "begun/begun", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for file in SAME:
        assert (tmp_path / "begun/begun" / file).read_bytes() == (tmp_path / "runs/whole" / file).read_bytes(), file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_configurations_of_every_editor_are_read(encoding: str, end: str, tmp_path: Path) -> None:
    text = '# größer\nfamily = "metarl/BernoulliBandit-v0"\n[learning]\ntasks = 3\n'
    (tmp_path / "mine.toml").write_bytes(text.replace("\n", end).encode(encoding))
    name, settings = read_configuration("mine.toml", [("inner.steps", 2)])
    assert (name, settings.family, settings.learning.tasks) == ("mine", "metarl/BernoulliBandit-v0", 3)
    (tmp_path / "other.toml").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match=r"the configuration 'other\.toml' cannot be read: .*utf-8"):
        read_configuration("other.toml", [])
