"""Loggers of learners used from Python: where runs go, when they are written, and what does not stop training."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import LogEveryNTimesteps
from stable_baselines3.common.logger import KVWriter, Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl import MAML
from metarl.learners.registry import find_learner
from metarl.sb3.loggers import default_logger

TINY: dict[str, Any] = {
    "family": "metarl/BernoulliBandit-v0",
    "family_kwargs": {"pulls": 5},
    "learning": {"tasks": 3, "episodes": 4},
    "evaluation": {"tasks": 2, "episodes": 2, "every": 100},
    "policy_kwargs": {"hidden_sizes": (4,)},
}
STEPS = 2 * 3 * 4 * 5  # of an iteration


def folders(root: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?", "[!a]", "x/y", "x/[1]/y", "a_1", "ä b"])
def test_runs_of_one_name_are_numbered_apart_whatever_the_name(name: str, tmp_path: Path) -> None:
    model = MAML(tensorboard_log=tmp_path, **TINY)
    for new in (True, True, False):
        model.learn(iterations=1, tb_log_name=name, reset_num_timesteps=new)
    assert folders(tmp_path) == [f"{name}_1", f"{name}_2", f"{name}_2"]
    model.close()


def test_a_name_does_not_go_on_with_runs_that_it_matches_as_a_pattern(tmp_path: Path) -> None:
    model = MAML(tensorboard_log=str(tmp_path), **TINY)
    for name in ("a1", "ab", "a[1]", "a*"):
        model.learn(iterations=1, tb_log_name=name, reset_num_timesteps=False)
    assert folders(tmp_path) == ["a*_1", "a1_1", "a[1]_1", "ab_1"]
    model.close()


def test_runs_begun_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        loggers = list(pool.map(lambda _: default_logger(0, tmp_path, "run", True), range(8)))
    for logger in loggers:
        logger.close()
    assert len({logger.dir for logger in loggers}) == 8


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    model = MAML(tensorboard_log=tmp_path / "file", **TINY)
    with pytest.raises(ValueError, match=r"no folder for TensorBoard can be made at '.*file'.*; choose another"):
        model.learn(iterations=1)
    model.close()


def written_at(folder: Path) -> list[int]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars("rollout/return_step_1")]


def test_log_every_n_timesteps_writes_alone_where_the_interval_is_none(tmp_path: Path) -> None:
    model = MAML(tensorboard_log=str(tmp_path), **TINY)
    model.learn(iterations=6, callback=LogEveryNTimesteps(2 * STEPS), log_interval=None)
    assert written_at(tmp_path / "MAML_1") == [2 * STEPS, 4 * STEPS, 6 * STEPS]
    model.learn(iterations=2, log_interval=None)
    assert written_at(tmp_path / "MAML_2") == [2 * STEPS]
    model.close()


class Rows(KVWriter):
    """Keeps what is written."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, set[str]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append((step, set(key_values)))

    def close(self) -> None:
        pass


def test_log_every_n_timesteps_beside_the_interval_writes_no_empty_row() -> None:
    rows = Rows()
    model = MAML(**TINY)
    model.set_logger(Logger(None, [rows]))
    model.learn(iterations=4, callback=LogEveryNTimesteps(STEPS))
    assert [step for step, _ in rows.rows] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]
    assert all("rollout/iteration" in keys for _, keys in rows.rows)
    model.close()


@pytest.mark.parametrize("name", ["maml", "pretrained", "multi-task", "scratch"])
def test_learning_without_tensorboard_leaves_no_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_learner(name)(**TINY).close()  # torch makes a cache of its own, once a user
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model = find_learner(name)(**TINY)
    model.learn(iterations=1)
    model.close()
    assert list(tmp_path.iterdir()) == []


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, Broken(), closed()], ids=["none", "cut off", "closed"])
def test_standard_error_that_is_gone_does_not_stop_training(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MAML(**TINY)
    monkeypatch.setattr(sys, "stderr", stream)
    model.learn(iterations=2, progress_bar=True)
    assert model.iteration == 2
    model.close()


def test_a_table_that_has_nowhere_to_go_does_not_stop_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MAML(verbose=1, **TINY)
    monkeypatch.setattr(sys, "stdout", None)
    assert model.learn(iterations=2).iteration == 2
    model.close()


def test_a_script_whose_standard_streams_are_closed_trains_and_saves(tmp_path: Path) -> None:
    code = (
        "import metarl, sys\n"
        f"model = metarl.MAML(verbose=1, **{TINY!r}).learn(iterations=2, progress_bar=True)\n"
        "model.save('model')\n"
    )
    command = f'exec {sys.executable} -c "$CODE" >&- 2>&-'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "CODE": code}, check=False)
    assert done.returncode == 0
    assert MAML.load(tmp_path / "model").iteration == 2


def test_numbers_of_numpy_count_as_pythons(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "family": "metarl/BernoulliBandit-v0",
        "family_kwargs": {"pulls": np.int64(5)},
        "learning": {"tasks": np.int64(3), "episodes": np.int32(4), "normalize_observations": np.bool_(False)},
        "inner": {"step_size": np.float32(0.5)},
        "outer": {"max_kl": np.float64(0.02), "cg_iterations": np.uint8(5)},
        "evaluation": {"tasks": np.int16(2), "episodes": np.int64(2)},
        "policy_kwargs": {"hidden_sizes": np.array([4, 4]), "log_std_init": np.float32(0.25)},
    }
    model = MAML(seed=np.int64(3), tensorboard_log=tmp_path / "logs", **given)  # type: ignore[arg-type]
    model.learn(iterations=np.int64(1), log_interval=np.int64(1))  # type: ignore[arg-type]
    model.learn(total_timesteps=np.int64(2 * STEPS), reset_num_timesteps=False)  # type: ignore[arg-type]
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model.zip")
    assert loaded.settings == model.settings
    assert (model.settings.seed, model.settings.learning.tasks, model.settings.inner.step_size) == (3, 3, 0.5)
    assert type(model.settings.seed) is type(model.settings.learning.tasks) is int
    assert type(model.settings.outer.max_kl) is float
    assert model.settings.policy.hidden_sizes == (4, 4)
    evaluated = model.evaluate(n_tasks=np.int64(5), episodes=np.int64(2), steps=np.int64(1), seed=np.int64(4))  # type: ignore[arg-type]
    assert evaluated.returns.shape == (2, 5)
    assert folders(tmp_path) == ["logs/MAML_1", "logs/MAML_1"]
    with pytest.raises(ValueError, match=r"learning\.tasks is 0"):
        MAML(learning={"tasks": np.int64(0)})
    with pytest.raises(ValueError, match=r"learning\.tasks is 2\.5"):
        MAML(learning={"tasks": np.float64(2.5)})
    model.close()
