"""``metarl export``: the file, what is said, and the page on it."""

from __future__ import annotations

import re
from pathlib import Path

import forked
import numpy as np
import pytest

import metarl
from metarl.experiments import training
from metarl.experiments.command import main
from metarl.learners.registry import read_settings

onnxruntime = pytest.importorskip("onnxruntime")
PAGE = Path(__file__).parents[3] / "docs/export.md"
SECTIONS = {
    "learning": {"iterations": 1, "tasks": 2, "episodes": 2},
    "family_kwargs": {"max_episode_steps": 5},
    "evaluation": {"tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 1},
}


def test_a_run_is_exported_with_what_the_options_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, learner = training.start_run(read_settings(SECTIONS), tmp_path / "runs", None, "tiny")
    training.finish_run(run, learner)
    folder = str(run.folder)
    assert main(["export", folder]) == 0
    printed = capsys.readouterr().out
    assert "The policy before adaptation" in printed
    assert str(run.folder / "policy.onnx") in printed
    goal = tmp_path / "goal.onnx"
    options = ["--task", "[0.1, -0.2]", "--steps", "2", "--episodes", "3", "--seed", "4", "--out", str(goal)]
    assert main(["export", folder, *options]) == 0
    assert "Task [0.1" in capsys.readouterr().out
    seen = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    model = metarl.MAML.load(run.folder)
    for path, policy in (
        (run.folder / "policy.onnx", model.policy),
        (goal, model.adapt([0.1, -0.2], steps=2, episodes=3, seed=4)),
    ):
        (action,) = onnxruntime.InferenceSession(path).run(["action"], {"observation": seen})
        np.testing.assert_allclose(action, policy.predict(seen, deterministic=True)[0], atol=1e-5)
    assert main(["export", folder, "--task", "1", "--format", "pt2"]) == 0
    assert "Test task 1, [" in capsys.readouterr().out
    assert (run.folder / "policy.pt2").is_file()
    for arguments, sentence in (
        ([folder], "policy.onnx' exists and is not overwritten"),
        ([folder, "--format", "pt2", "--out", "a.onnx"], "--out a.onnx ends in '.onnx', but --format is 'pt2'"),
        ([folder, "--task", "9", "--out", "a.onnx"], "there is no test task 9: there are 3"),
        ([folder, "--steps", "1", "--out", "a.onnx"], "steps is given, but no task to adapt to"),
        ([str(tmp_path), "--out", "a.onnx"], "is no run"),
    ):
        assert main(["export", *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_the_page_on_exporting_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    done = forked.run(cwd=tmp_path, code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(4, 2)\n"
