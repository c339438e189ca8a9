"""Bandits: what a pull pays, when it ends, and what is observed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metarl

BERNOULLI, GAUSSIAN = "metarl/BernoulliBandit-v0", "metarl/GaussianBandit-v0"


def payments(family: str, means: list[float], arm: int, **kwargs: Any) -> np.ndarray:
    """Return the rewards ``[pull, episode]`` of 2000 episodes that pull one arm all the time."""
    vector = metarl.make_vec(family, 2000, arms=len(means), **kwargs)
    vector.reset(seed=0, options={"tasks": np.tile(np.array(means, np.float32), (2000, 1))})
    return np.stack([vector.step(np.full(2000, arm))[1] for _ in range(vector.unwrapped.pulls)])


def test_a_bernoulli_arm_pays_one_with_its_probability() -> None:
    for arm, mean in enumerate([0.0, 0.3, 1.0]):
        paid = payments(BERNOULLI, [0.0, 0.3, 1.0], arm)
        assert set(np.unique(paid)) <= {0.0, 1.0}
        assert paid.mean() == pytest.approx(mean, abs=0.01)
        assert (paid.mean() == mean) == (mean in (0.0, 1.0))
    # Pulls and episodes are independent of each other.
    paid = payments(BERNOULLI, [0.5, 0.5], 0)
    assert paid.sum(axis=0).var() == pytest.approx(10 * 0.25, rel=0.1)
    assert paid.sum(axis=1).var() < 2000


def test_a_gaussian_arm_pays_its_mean_with_unit_noise() -> None:
    for arm, mean in enumerate([0.2, 0.9]):
        paid = payments(GAUSSIAN, [0.2, 0.9], arm)
        assert paid.mean() == pytest.approx(mean, abs=0.03)
        assert paid.std() == pytest.approx(1.0, abs=0.03)
        assert paid.sum(axis=0).var() == pytest.approx(10.0, rel=0.1)


@pytest.mark.parametrize("family", [BERNOULLI, GAUSSIAN])
def test_pulls_belong_to_the_task_so_their_end_terminates(family: str) -> None:
    env = metarl.make(family, pulls=3, arms=2)
    observation, _ = env.reset()
    assert observation.tolist() == [0.0]
    ends = []
    for _ in range(3):
        observation, _, terminated, truncated, _ = env.step(1)
        assert observation.tolist() == [0.0]
        ends.append((terminated, truncated))
    assert ends == [(False, False), (False, False), (True, False)]
    vector = metarl.make_vec(family, 2, pulls=1, max_episode_steps=1)
    vector.reset()
    _, _, terminated, truncated, _ = vector.step(np.zeros(2, dtype=int))
    assert terminated.all()
    assert not truncated.any()


@pytest.mark.parametrize("family", [BERNOULLI, GAUSSIAN])
def test_the_optimum_is_the_best_arm_all_the_time(family: str) -> None:
    oracle = metarl.make(family).get_wrapper_attr("oracle_return")
    assert oracle([0.1, 0.5, 0.25, 0.0, 0.5]) == 5.0
    assert metarl.make_vec(family, 2, pulls=100).unwrapped.oracle_return([0.1, 0.5]) == 50.0
    assert metarl.make(family, max_episode_steps=4).get_wrapper_attr("oracle_return")([0.5, 0.25]) == 2.0
    tasks = metarl.sample_tasks(family, 2000)
    assert np.mean([oracle(task) for task in tasks]) == pytest.approx(8.33, abs=0.1)


@pytest.mark.parametrize("family", [BERNOULLI, GAUSSIAN])
def test_wrong_arguments_are_one_sentence(family: str) -> None:
    for wrong, message in (
        ({"arms": 1}, "arms is 1; expected a whole number of at least 2"),
        ({"arms": 2.5}, "arms is 2.5; expected a whole number of at least 2"),
        ({"pulls": 0}, "pulls is 0; expected a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metarl.make(family, **wrong)
        with pytest.raises(ValueError, match=message):
            metarl.make_vec(family, 2, **wrong)
    assert metarl.make(family, arms=7).action_space.n == 7
    assert metarl.make_vec(family, 2, arms=7).single_action_space.n == 7
    assert np.shape(metarl.sample_tasks(family, 3, arms=7)) == (3, 7)
