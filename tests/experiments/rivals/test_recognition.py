"""What rivals recognise: known answers on data that are easy, impossible, or shown before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.experiments.configuration import parse_override, read_configuration

pytest.importorskip("sklearn")
TINY = ["evaluation.test_tasks=6", "evaluation.episodes=4", "evaluation.steps=2", "family_kwargs.ways=2"]


def answers_on(folder: Path, features: Any, labels: Any) -> Any:
    from metarl.experiments.benchmarks.recognition import answers

    np.savez(folder / "own.npz", X=features, y=labels)
    overrides = [*TINY, f"family_kwargs.data={folder / 'own.npz'}"]
    _, settings = read_configuration("digits", [parse_override(text) for text in overrides])
    return answers(settings, 2)


def test_classes_that_lie_apart_are_recognised_and_noise_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 4
    noise = rng.normal(size=(2000, 3))
    apart = answers_on(tmp_path, noise + 100.0 * np.eye(4)[labels][:, :3], labels)
    assert set(apart) == {"nearest neighbour", "logistic regression"}
    for points in apart.values():
        assert len(points) == 2
        assert all((point.all == 10.0).all() and (point.new == 10.0).all() for point in points)
    for points in answers_on(tmp_path, noise, labels).values():
        assert all(3.5 < point.new.mean() < 6.5 for point in points)


def test_rows_that_were_shown_are_told_from_new_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 4  # twenty rows a class, of which as many are drawn in four episodes
    found = answers_on(tmp_path, rng.normal(size=(80, 3)), labels)["nearest neighbour"]
    seen = [float(point.seen.mean()) for point in found]
    np.testing.assert_allclose(seen, [1.0 - 0.95**20, 1.0 - 0.95**40], atol=0.1)
    for point in found:
        # A nearest neighbour knows what it was shown, and of noise nothing else.
        np.testing.assert_allclose(point.all, 10.0 * point.seen + point.new * (1.0 - point.seen))
        assert point.new.mean() < 7.0 < point.all.mean()


def test_the_command_prints_a_line_for_each_rival_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    from metarl.experiments.benchmarks.recognition import main

    assert main(["diagnosis", *TINY]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("nearest neighbour, labels of 8 episodes: ")
    assert "on rows not shown before" in lines[0]
