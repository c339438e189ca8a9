"""Sized settings: the batch, the horizon and the policy fit the family, and the learner takes them as they are."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import metarl
from metarl.guide.sizes import MEASURED_STEPS, TARGET_STEPS, TARGET_STEPS_IMAGES, horizon_of, sized

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (64, 48, 3), np.uint8)
SMALL_IMAGE = spaces.Box(0, 255, (7, 7, 3), np.uint8)


class Clock(gymnasium.Env[Any, Any]):
    """Ends after some steps, or never."""

    observation_space = BOX
    action_space = spaces.Discrete(2)
    task_space = spaces.Box(0.0, 1.0, (), np.float32)

    def __init__(self, ends: int | None = None, fails: bool = False) -> None:
        self.ends, self.fails, self.steps = ends, fails, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fails:
            raise RuntimeError("the clock is broken")
        self.steps += 1
        return np.zeros(3, np.float32), 0.0, self.steps == self.ends, False, {}


def limited(limit: int, **arguments: Any) -> gymnasium.Env[Any, Any]:
    return TimeLimit(Clock(**arguments), limit)


gymnasium.register("sizes/Clock-v0", Clock)
gymnasium.register("sizes/LimitedClock-v0", Clock, max_episode_steps=12)
gymnasium.register("sizes/WrappedClock-v0", limited)


@pytest.mark.parametrize("horizon", [20, 50, 100, 200, 500, 999, 2000])
def test_an_iteration_plays_about_the_stated_number_of_steps(horizon: int) -> None:
    learning = sized(BOX, spaces.Discrete(2), horizon)["learning"]
    assert 0.75 < learning["tasks"] * learning["episodes"] * horizon / TARGET_STEPS < 1.25
    assert learning["tasks"] >= 4
    assert learning["episodes"] >= 2


def test_images_get_a_smaller_batch_and_very_long_episodes_the_fewest() -> None:
    learning = sized(IMAGE, spaces.Discrete(2), 20)["learning"]
    assert 0.75 < learning["tasks"] * learning["episodes"] * 20 / TARGET_STEPS_IMAGES < 1.25
    learning = sized(BOX, spaces.Discrete(2), 10**6)["learning"]
    assert (learning["tasks"], learning["episodes"]) == (4, 2)
    with pytest.raises(ValueError, match="the horizon is 0"):
        sized(BOX, spaces.Discrete(2), 0)


@pytest.mark.parametrize(
    ("space", "policy", "width"),
    [
        (BOX, "MlpPolicy", 64),
        (spaces.Box(-1.0, 1.0, (100,), np.float32), "MlpPolicy", 128),
        (spaces.Box(-1.0, 1.0, (300,), np.float32), "MlpPolicy", 256),
        (IMAGE, "CnnPolicy", 64),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), "CnnPolicy", 64),
        (SMALL_IMAGE, "MlpPolicy", 128),  # too small for the convolutions of stable-baselines3
        (spaces.Discrete(5), "MlpPolicy", 64),
        (spaces.Dict({"a": BOX, "b": spaces.Discrete(3)}), "MultiInputPolicy", 64),
    ],
)
def test_the_policy_fits_the_observations(space: spaces.Space[Any], policy: str, width: int) -> None:
    found = sized(space, spaces.Discrete(2), 100)
    assert (found["policy"], found["policy_kwargs"]) == (policy, {"hidden_sizes": [width, width]})


@pytest.mark.parametrize(
    ("space", "normalized"),
    [
        (BOX, False),
        (spaces.Box(-np.inf, np.inf, (2,), np.float32), True),
        (spaces.Box(np.zeros(2, np.float32), np.array([1.0, 500.0], np.float32)), True),
        (IMAGE, False),
        (spaces.Discrete(1000), False),
        (spaces.Dict({"near": BOX, "far": spaces.Box(-90.0, 90.0, (1,), np.float32)}), True),
    ],
)
def test_large_observations_are_normalized(space: spaces.Space[Any], normalized: bool) -> None:
    assert sized(space, spaces.Discrete(2), 100)["learning"]["normalize_observations"] is normalized


def test_the_discount_reaches_about_as_far_as_an_episode() -> None:
    gammas = [sized(BOX, spaces.Discrete(2), horizon)["learning"]["gamma"] for horizon in (1, 50, 100, 10_000)]
    assert gammas == [0.95, 0.98, 0.99, 0.995]


@pytest.mark.parametrize(
    ("family", "arguments", "horizon"),
    [
        ("sizes/LimitedClock-v0", {}, 12),
        ("sizes/LimitedClock-v0", {"max_episode_steps": 5}, 5),
        ("sizes/WrappedClock-v0", {"limit": 37}, 37),
        ("sizes/Clock-v0", {"ends": 9}, 9),  # measured
        ("metarl/Parameterized-v0", {}, 500),  # that of CartPole-v1
        ("metarl/Parameterized-v0", {"max_episode_steps": 50}, 50),
    ],
)
def test_the_horizon_is_the_time_limit_or_measured(family: str, arguments: dict[str, Any], horizon: int) -> None:
    env = metarl.make(family, **arguments)
    assert horizon_of(env) == horizon
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, f"does not end in {MEASURED_STEPS} steps; .*family_kwargs.max_episode_steps="),
        ({"fails": True}, "RuntimeError: the clock is broken"),
    ],
)
def test_episodes_that_cannot_be_measured_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metarl.defaults("sizes/Clock-v0", **arguments)


def test_a_learner_takes_the_defaults_as_they_are() -> None:
    arguments = metarl.defaults("sizes/Clock-v0", ends=9)
    model = metarl.Reptile(family="sizes/Clock-v0", family_kwargs={"ends": 9}, **arguments)
    assert model.settings.learning.tasks == arguments["learning"]["tasks"]
    assert model.settings.policy.hidden_sizes == (64, 64)
    model.close()
    with pytest.raises(TypeError, match="is no environment family"):
        metarl.defaults("CartPole-v1")
