"""Navigation to a corner: starts, both rewards, what is known of the optimum, and what results say of the splits."""

from __future__ import annotations

import numpy as np
import pytest

import metarl
from metarl import MAML
from metarl.envs.tasks import attribute

FAMILY = "metarl/CornerNavigation2D-v0"


def test_tasks_are_the_four_corners() -> None:
    tasks = metarl.sample_tasks(FAMILY, 400)
    assert np.bincount(tasks).tolist() == pytest.approx([100] * 4, abs=40)
    goals = metarl.make_vec(FAMILY, 1).unwrapped.goals(np.arange(4))
    assert goals.tolist() == [[2, 2], [-2, 2], [-2, -2], [2, -2]]


def test_episodes_start_uniformly_around_the_middle_and_a_unit_moves_a_fifth() -> None:
    vector = metarl.make_vec(FAMILY, 1000)
    starts, _ = vector.reset(seed=0)
    assert np.abs(starts).max() <= 0.2
    np.testing.assert_allclose(starts.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(starts.std(axis=0), 0.4 / np.sqrt(12), atol=0.01)
    moved, *_ = vector.step(np.tile(np.array([1.0, -3.0], np.float32), (1000, 1)))
    np.testing.assert_allclose(moved - starts, np.tile([0.2, -0.2], (1000, 1)), atol=1e-6)


def move(env: object, start: np.ndarray, to: list[float]) -> float:
    """Step from one position to another; return the reward."""
    action = (np.array(to) - start) / 0.2
    assert np.abs(action).max() <= 1.0
    return float(env.step(action)[1])  # type: ignore[attr-defined]


def test_the_dense_reward_is_minus_the_distance_after_the_move() -> None:
    env = metarl.make(FAMILY, task=1)
    start, _ = env.reset(seed=0)
    assert move(env, start, [0.1, 0.1]) == pytest.approx(-np.hypot(2.1, 1.9))


def test_the_sparse_reward_is_the_approach_outside_the_middle_on_the_goals_side() -> None:
    env = metarl.make(FAMILY, task=0, reward="sparse")
    start, _ = env.reset(seed=0)
    steps = [
        ([0.0, 0.0], 0.0),
        ([0.15, 0.15], 0.0),  # in the middle: the L1 norm is 0.3
        ([0.24, 0.25], 0.0),  # 0.49
        ([0.30, 0.30], np.hypot(1.76, 1.75) - np.hypot(1.7, 1.7)),
        ([0.20, 0.40], np.hypot(1.7, 1.7) - np.hypot(1.8, 1.6)),  # negative: further off
        ([0.05, 0.55], np.hypot(1.8, 1.6) - np.hypot(1.95, 1.45)),
        ([-0.05, 0.60], 0.0),  # another corner is the nearest
        ([0.05, 0.70], np.hypot(2.05, 1.4) - np.hypot(1.95, 1.3)),  # the way back in counts
    ]
    at = start.astype(np.float64)
    for to, reward in steps:
        assert move(env, at, to) == pytest.approx(reward, abs=1e-6)
        at = np.array(to)


def test_the_optimum_is_known_for_the_dense_reward_only() -> None:
    env = metarl.make(FAMILY, max_episode_steps=1)
    nodes = (np.arange(400) + 0.5) / 400 * 0.4 - 0.2
    x, y = np.meshgrid(nodes, nodes)
    for corner in range(4):
        assert attribute(env, "oracle_return")(corner) == pytest.approx(-np.hypot(1.8 - x, 1.8 - y).mean(), abs=1e-6)
    assert attribute(metarl.make(FAMILY, reward="sparse"), "oracle_return") is None
    assert metarl.make_vec(FAMILY, 2, reward="sparse").unwrapped.oracle_return is None


def test_results_say_that_the_splits_share_their_tasks() -> None:
    small = {"tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 1}
    model = MAML("MlpPolicy", FAMILY, family_kwargs={"reward": "sparse", "max_episode_steps": 5}, evaluation=small)
    results = model.evaluate().to_json()
    assert results["split"] == "test (the tasks of training)"
    assert results["oracle"] is None
    assert "test (the tasks of training)" in model.evaluate().table()
