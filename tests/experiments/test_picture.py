"""Pictures of adaptation: drawn small, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metarl
from metarl.experiments import training
from metarl.experiments.command import main
from metarl.figures import paths_figure
from metarl.learners.registry import read_settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = read_settings(
        {
            "learning": {"iterations": 1, "tasks": 2, "episodes": 2},
            "family_kwargs": {"max_episode_steps": 5},
            "evaluation": {"tasks": 2, "test_tasks": 2, "episodes": 3, "steps": 2},
        }
    )
    run, learner = training.start_run(settings, tmp_path_factory.mktemp("picture") / "runs", None, "tiny")
    training.finish_run(run, learner)
    return run.folder


@pytest.mark.parametrize("name", ["paths.png", "paths.svg"])
def test_the_command_draws_a_run(run: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / name
    assert main(["picture", str(run), "--out", str(out), "--tasks", "3"]) == 0
    assert str(out) in capsys.readouterr().out
    if name.endswith("png"):
        pixels = np.asarray(Image.open(out).convert("RGB"))
        assert (pixels != 255).any(axis=-1).mean() > 0.01
    first = out.read_bytes()
    assert main(["picture", str(run), "--out", str(out), "--tasks", "3"]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert out.read_bytes() == first


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, part in [
        ([str(run), "--out", str(tmp_path / "x.bmp")], "has to end in .png, .svg or .pdf"),
        ([str(tmp_path), "--out", str(tmp_path / "x.png")], "is no run"),
        ([str(run), "--out", str(tmp_path / "x.png"), "--tasks", "0"], "tasks is 0"),
    ]:
        assert main(["picture", *arguments]) == 2
        assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_paths_are_those_that_were_walked() -> None:
    model = metarl.MAML(
        family_kwargs={"max_episode_steps": 6},
        learning={"tasks": 2, "episodes": 2},
        evaluation={"tasks": 2, "test_tasks": 2, "episodes": 2, "steps": 1},
    )
    evaluation, tasks, rollouts = model.evaluate_rollouts("test")
    figure = paths_figure(model.env, tasks, rollouts, evaluation)
    panels = figure.axes
    assert len(panels) == 2 * 2 + 1
    assert panels[0].get_title() == "before adaptation"
    walked = panels[1].lines[0].get_xydata()
    np.testing.assert_allclose(walked, rollouts[1].observations[0, 0])
    goal = next(line for line in panels[0].lines if line.get_marker() == "*")
    np.testing.assert_allclose(goal.get_xydata()[0], tasks[0])
    means = panels[-1].lines[0].get_ydata()
    np.testing.assert_allclose(means, evaluation.returns.mean(axis=1))
