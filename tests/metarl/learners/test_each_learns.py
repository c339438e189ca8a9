"""Each meta-learner learns to adapt to a hidden sign."""

from __future__ import annotations

from typing import Any

import pytest

from metarl.learners.registry import find_learner


@pytest.mark.parametrize(
    ("name", "inner", "outer", "iterations"),
    [
        ("maml", {"step_size": 0.3, "objective": "dice"}, {"max_kl": 0.03, "max_kl_before": 0.03}, 12),
        ("fomaml", {"step_size": 0.3}, {}, 12),
        ("promp", {"step_size": 0.3}, {"learning_rate": 0.03}, 12),
        ("e-maml", {"step_size": 0.3}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("reptile", {"step_size": 0.3, "steps": 3}, {}, 40),
        ("meta-sgd", {"step_size": 0.1}, {"update": "vpg", "learning_rate": 0.1}, 30),
        ("anil", {"step_size": 0.3}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("cavia", {"step_size": 1.0}, {"update": "vpg", "learning_rate": 0.1}, 12),
        ("multi-task", {"step_size": 0.1}, {"learning_rate": 0.03}, 12),
    ],
)
def test_each_learns_to_adapt(name: str, inner: dict[str, Any], outer: dict[str, Any], iterations: int) -> None:
    """Probe (f): the reward's sign is the hidden task, so 0 is the best before adaptation and 1 after it."""
    model = find_learner(name)(
        "MlpPolicy",
        "probes:probe/HiddenSign-v0",
        learning={"tasks": 20, "episodes": 20, "gae_lambda": 1.0},
        inner=inner,
        outer=outer,
        evaluation={"every": 1000, "tasks": 20, "steps": inner.get("steps", 1)},
        policy_kwargs={"hidden_sizes": (16,)},
    )
    untrained = model.evaluate(n_tasks=40)
    trained = model.learn(iterations=iterations).evaluate(n_tasks=40)
    assert untrained.mean(-1) < 0.9
    assert abs(trained.mean(0)) < 0.3
    assert trained.mean(-1) > 0.9
