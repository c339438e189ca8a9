"""Navigation to the half circle: goals, both rewards, the optimum in numbers."""

from __future__ import annotations

import numpy as np
import pytest

import metarl

FAMILY = "metarl/HalfCircleNavigation2D-v0"


def test_goals_lie_on_the_upper_half_circle() -> None:
    angles = np.asarray(metarl.sample_tasks(FAMILY, 500))
    assert angles.shape == (500,)
    assert 0.0 <= angles.min() < 0.05
    assert 3.09 < angles.max() <= np.float32(np.pi)
    goals = metarl.make_vec(FAMILY, 1).unwrapped.goals(angles)
    np.testing.assert_allclose(np.hypot(goals[:, 0], goals[:, 1]), 1.0)
    assert (goals[:, 1] >= -1e-7).all()
    np.testing.assert_allclose(goals, np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-6)


def test_the_dense_reward_is_minus_the_distance_after_the_move() -> None:
    env = metarl.make(FAMILY, task=np.pi / 2)
    env.reset()
    rewards = [env.step(np.array([0.0, 1.0], np.float32))[1] for _ in range(12)]
    expected = [-0.9, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0.0, -0.1, -0.2]
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert env.step(np.array([0.5, 0.0], np.float32))[1] == pytest.approx(-np.hypot(0.05, 0.2), abs=1e-6)


def test_the_sparse_reward_is_paid_inside_the_radius() -> None:
    env = metarl.make(FAMILY, task=0.0, reward="sparse")
    env.reset()
    rewards = [env.step(np.array([1.0, 0.0], np.float32))[1] for _ in range(7)]
    assert rewards == [0.0] * 7
    assert env.step(np.array([0.9, 0.0], np.float32))[1] == 0.0  # 0.21 away
    assert env.step(np.array([0.2, 0.0], np.float32))[1] == pytest.approx(0.81)
    assert env.step(np.array([0.9, 0.0], np.float32))[1] == pytest.approx(0.9)
    assert env.step(np.array([1.0, 0.0], np.float32))[1] == pytest.approx(1.0)


def test_it_never_terminates_and_lasts_20_steps() -> None:
    env = metarl.make(FAMILY, task=np.pi)
    env.reset()
    ends = [env.step(np.array([-float(t < 10), 0.0], np.float32))[2:4] for t in range(20)]
    assert ends == [(False, False)] * 19 + [(False, True)]


def test_the_optimum_in_numbers() -> None:
    dense, sparse = metarl.make(FAMILY), metarl.make(FAMILY, reward="sparse")
    assert dense.get_wrapper_attr("oracle_return")(np.pi / 2) == pytest.approx(-4.5)
    # Straight up: 0.8 and 0.9 on the way in, then 1 for each of the steps 10 to 20.
    assert sparse.get_wrapper_attr("oracle_return")(np.pi / 2) == pytest.approx(0.8 + 0.9 + 11.0)
    short = metarl.make_vec(FAMILY, 2, max_episode_steps=2, reward="sparse")
    assert short.unwrapped.oracle_return(1.0) == 0.0


def test_an_unknown_reward_is_one_sentence() -> None:
    for make in (lambda: metarl.make(FAMILY, reward="spars"), lambda: metarl.make_vec(FAMILY, 2, reward="spars")):
        with pytest.raises(ValueError, match="reward is 'spars'; expected 'dense' or 'sparse'"):
            make()
