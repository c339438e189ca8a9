"""``metarl show``: files in the run's folder, an image in TensorBoard, and what is said."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metarl
from metarl.experiments import training
from metarl.experiments.command import main
from metarl.learners.registry import read_settings

SECTIONS = {
    "learning": {"iterations": 1, "tasks": 2, "episodes": 2},
    "family_kwargs": {"max_episode_steps": 5},
    "evaluation": {"tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 1},
}
OWN = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Own(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self):
        self.observation_space = spaces.Box(-5.0, 5.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.gain = 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), self.gain, False, False, {"is_success": self.time == 4}

    def render(self):
        return np.full((10, 10, 3), 20 * self.time, np.uint8)


gymnasium.register(id="Own-v0", entry_point=Own, max_episode_steps=6)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, learner = training.start_run(
        read_settings(SECTIONS), tmp_path_factory.mktemp("show") / "runs", None, "tiny"
    )  # fmt: skip
    training.finish_run(run, learner)
    return run.folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of its own for each test."""
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


def images(folder: Path) -> dict[str, list[bytes]]:
    """Return the moving pictures in a folder's events, by tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["images"] if "replay" in tag]
    return {tag: [event.encoded_image_string for event in accumulator.Images(tag)] for tag in tags}


def test_each_replay_has_a_file_of_its_own_and_is_in_tensorboard(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["show", str(run)]) == 0
    printed = capsys.readouterr().out
    first = (run / "replays/1.gif").read_bytes()
    assert main(["show", str(run), "--task", "2", "--steps", "2"]) == 0
    assert (run / "replays/1.gif").read_bytes() == first
    assert sorted(path.name for path in (run / "replays").iterdir()) == ["1.gif", "2.gif"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert str(run / "replays/1.gif") in printed
    assert "unfinished" not in printed
    test_tasks = json.loads((run / "results.json").read_text())["runs"][0]["tasks"]
    assert f"Test task 0, {json.dumps(test_tasks[0])}:" in printed
    assert f"Test task 2, {json.dumps(test_tasks[2])}:" in capsys.readouterr().out
    found = images(run)
    assert sorted(found) == ["test/replay_task_0", "test/replay_task_2"]
    assert found["test/replay_task_0"] == [first]
    with Image.open(io.BytesIO(first)) as gif:
        assert gif.n_frames > 2
        assert b"after 1 step: return" in gif.info["comment"]
    # The same as from Python, with the best parameters.
    replay = metarl.show(metarl.MAML.load(run))
    assert replay.to_gif() == first
    assert f"{replay.returns[0]:.2f}" in printed


def test_the_options_are_those_of_the_function(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "replay.gif"
    options = ["--episodes", "3", "--seed", "4", "--deterministic", "--max-steps", "4", "--frames", "3", "--fps", "10"]
    assert main(["show", str(run), "--task", "[0.1, -0.2]", "--out", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert "Task [0.1" in printed
    assert "Every 2nd step is shown, so that the file stays small" in printed
    same = metarl.show(
        metarl.MAML.load(run), [0.1, -0.2], episodes=3, seed=4, deterministic=True, max_steps=4, frames=3, fps=10.0
    )
    assert out.read_bytes() == same.to_gif()
    assert list(images(run)) == ["given/replay"]
    assert not (run / "replays").exists()


def test_an_unfinished_run_is_shown_with_its_parameters_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, learner = training.start_run(read_settings(SECTIONS), tmp_path, "begun", "begun")
    learner.logger.close()
    learner.close()
    run.unlock()
    assert main(["show", str(run.folder)]) == 0
    printed = capsys.readouterr().out
    assert "The run is unfinished (at iteration 0 of 1)" in printed
    assert (run.folder / "replays/1.gif").is_file()


def test_while_a_run_trains_its_event_files_are_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorBoard does not go back to an event file after it has seen a later one."""
    before = sorted(run.glob("events*"))
    with FileLock(run / "lock"):
        assert main(["show", str(run)]) == 0
    assert sorted(run.glob("events*")) == before
    assert list(images(run / "replays")) == ["test/replay_task_0"]
    assert "test/replay_task_0" in capsys.readouterr().out


def test_a_trial_is_shown_episode_by_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learning = {"iterations": 1, "tasks": 4, "trial_episodes": 3}
    settings = read_settings({**SECTIONS, "learner": "rl2", "learning": learning, "outer": {"minibatch_trials": 4}})
    run, learner = training.start_run(settings, tmp_path, "memory", "memory")
    training.finish_run(run, learner)
    assert main(["show", str(run.folder)]) == 0
    printed = capsys.readouterr().out
    assert all(f"episode {number}" in printed for number in (1, 2, 3))
    assert "episode 4" not in printed


def test_an_environment_of_ones_own_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_drawn_env.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_drawn_env", raising=False)
    tiny = ["learning.iterations=1", "learning.tasks=2", "learning.episodes=2", "evaluation.steps=1"]
    tiny += ["evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2"]
    assert main(["train", "own_drawn_env:Own-v0", "--vary", "gain=1..3", "--name", "own", "--quiet", *tiny]) == 0
    assert main(["show", "runs/own", "--task", '{"gain": 2.0}']) == 0
    printed = capsys.readouterr().out
    table = [line.split() for line in printed.splitlines() if "12.00" in line]
    assert [words[-3:] for words in table] == [["12.00", "6", "yes"]] * 2
    with Image.open(tmp_path / "runs/own/replays/1.gif") as gif:
        pages = []
        for number in range(gif.n_frames):
            gif.seek(number)
            pages.append(np.asarray(gif.convert("RGB")))
    # The middle of the first panel, which is as large as a panel can be.
    assert [abs(int(page[160, 130, 0]) - 20 * step) <= 8 for step, page in enumerate(pages)] == [True] * 7


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(run)
    (tmp_path / "mine.gif").write_text("mine")
    for arguments, part in [
        ([str(tmp_path)], "is no run"),
        ([here, "--task", "3"], "there is no test task 3: there are 3 (evaluation.test_tasks), numbered from 0"),
        ([here, "--task=-1"], "the number of the test task is -1"),
        ([here, "--task", "left"], "--task 'left' is no task; expected the number of a test task, from 0, or a task"),
        ([here, "--task", "[1, 2, 3]"], "task [1, 2, 3]"),
        ([here, "--task", "[7.0, 2.0]"], "outside"),
        ([here, "--out", str(tmp_path / "mine.gif")], "exists and is not overwritten"),
        ([here, "--out", str(tmp_path / "x.png")], "has to end in .gif or .mp4"),
        ([here, "--out", str(tmp_path / "x.gif"), "--format", "mp4"], "but --format is 'mp4'; give one of them"),
        ([here, "--frames", "0"], "frames is 0"),
        ([here, "--fps", "nan"], "fps is nan"),
        ([here, "--max-steps", "-3"], "max_steps is -3"),
    ]:
        assert main(["show", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.gif", "tiny"]
    assert not (run / "replays").exists()
    assert not images(run)


def test_without_the_extra_or_pictures_one_sentence_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["show", str(run), "--format", "mp4"]) == 2
    assert "pip install 'metarl-suite[video]'" in capsys.readouterr().err
    monkeypatch.undo()
    settings = read_settings({**SECTIONS, "family": "metarl/TabularMDP-v0", "family_kwargs": {}})
    undrawn, learner = training.start_run(settings, tmp_path, "undrawn", "undrawn")
    learner.logger.close()
    learner.close()
    undrawn.unlock()
    assert main(["show", str(undrawn.folder)]) == 2
    error = capsys.readouterr().err
    assert "metarl/TabularMDP-v0 does not render" in error
    assert error.count("\n") == 1
    (run / "checkpoints/best.zip").write_bytes(b"damaged")
    assert main(["show", str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_mp4_is_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    assert main(["show", str(run), "--format", "mp4"]) == 0
    assert (run / "replays/1.mp4").read_bytes()[4:8] == b"ftyp"
    assert main(["show", str(run)]) == 0
    assert (run / "replays/2.gif").is_file()
    assert "2.gif" in capsys.readouterr().out
    assert len(images(run)["test/replay_task_0"]) == 2
