"""2-D navigation: the dynamics as the data sheet says, and the two implementations step by step."""

from __future__ import annotations

import numpy as np
import pytest

import metarl

NAVIGATION = "metarl/Navigation2D-v0"


def test_a_unit_of_action_moves_a_tenth_and_more_is_clipped() -> None:
    env = metarl.make(NAVIGATION, task=[0.5, 0.5])
    env.reset()
    np.testing.assert_allclose(env.step(np.array([1.0, -0.5], np.float32))[0], [0.1, -0.05], atol=1e-7)
    observation, reward, *_ = env.step(np.array([9.0, 0.0], np.float32))
    np.testing.assert_allclose(observation, [0.2, -0.05], atol=1e-7)
    assert reward == pytest.approx(-np.hypot(0.3, 0.55))


def test_it_ends_near_the_goal_in_both_coordinates_or_at_the_limit() -> None:
    env = metarl.make(NAVIGATION, task=[0.1, 0.0095])
    env.reset()
    assert env.step(np.array([1.0, 0.0], np.float32))[2]
    env = metarl.make(NAVIGATION, task=[0.1, 0.011])
    env.reset()
    ends = [env.step(np.array([float(t == 0), 0.0], np.float32))[2:4] for t in range(100)]
    assert not any(ended for ended, _ in ends)
    assert [cut for _, cut in ends] == [False] * 99 + [True]


def test_the_optimum_is_reached_by_heading_straight_for_the_goal() -> None:
    rng = np.random.default_rng(0)
    env = metarl.make(NAVIGATION)
    optima = []
    for task in metarl.sample_tasks(NAVIGATION, 200, split="test"):
        best = env.get_wrapper_attr("oracle_return")(task)
        observation, _ = env.reset(options={"task": task})
        total, ended = 0.0, False
        while not ended:
            observation, reward, ended, _, _ = env.step((task - observation) / 0.1)
            total += reward
        assert total == pytest.approx(best, abs=0.03)
        assert total <= best + 1e-6
        env.reset(options={"task": task})
        noisy = sum(env.step(rng.uniform(-1, 1, 2).astype(np.float32))[1] for _ in range(20))
        assert noisy < best
        optima.append(best)
    assert np.mean(optima) == pytest.approx(-0.51, abs=0.03)


def test_the_optimum_counts_the_time_limit() -> None:
    short = metarl.make(NAVIGATION, max_episode_steps=2)
    assert short.get_wrapper_attr("oracle_return")([0.5, 0.0]) == pytest.approx(-0.4 - 0.3)
    vector = metarl.make_vec(NAVIGATION, 2, max_episode_steps=2)
    assert vector.unwrapped.oracle_return([0.5, 0.0]) == pytest.approx(-0.7)


def test_the_picture_shows_path_and_goal() -> None:
    env = metarl.make(NAVIGATION, task=[0.3, -0.3], render_mode="rgb_array")
    env.reset()
    start = env.render().copy()
    assert start.shape == (256, 256, 3)
    assert start.dtype == np.uint8
    column, row = int((0.3 + 0.8) / 1.6 * 256), int((0.8 + 0.3) / 1.6 * 256)
    assert start[row, column].tolist() == [214, 69, 65]
    for _ in range(3):
        env.step(np.array([0.0, 1.0], np.float32))
    drawn = env.render()
    above = int((0.8 - 0.2) / 1.6 * 256)
    assert drawn[above, 128].tolist() == [46, 92, 184]
    assert start[above, 128].tolist() == [255, 255, 255]
