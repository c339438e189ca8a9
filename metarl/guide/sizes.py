"""Settings that fit a family for which nobody has chosen any: sized by its spaces and the length of its episodes."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from metarl.agents.observations import channels_first, subspaces
from metarl.envs import make
from metarl.envs import tasks as task_tools
from metarl.envs.checker.quick import time_limit
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.registry import FamilyLike
from metarl.envs.sync import close_or_warn

# Environment steps that an iteration plays before adaptation, and as many after each inner step: a few seconds for
# a perceptron on two cores, and for a convolutional network on images, whose second derivatives take most of the time.
TARGET_STEPS = 20_000
TARGET_STEPS_IMAGES = 400
FEWEST_TASKS, MOST_TASKS = 4, 40
FEWEST_EPISODES, MOST_EPISODES = 2, 40
LARGE = 10.0  # observations that may be further from 0 are normalized
SMALLEST_IMAGE = 36  # pixels of the shorter side, below which stable-baselines3's NatureCNN cannot be built
# Random episodes that are played to measure an environment without a time limit, and the most steps of one.
MEASURED_EPISODES, MEASURED_STEPS = 5, 1000


def defaults(family: FamilyLike, **family_kwargs: Any) -> dict[str, Any]:
    """Return settings that fit a family, as arguments of a learner: ``MAML(family=..., **metarl.defaults(...))``.

    These are ``policy`` (its name), ``policy_kwargs``, ``learning``, ``inner`` and ``evaluation``; ``metarl train
    FAMILY`` uses the same. They are a start that was not tuned for the family; ``sized`` says how they are chosen.

    Args:
        family: the id of a family, or ``module:Name``; what ``metarl.parameterized`` returns; or a class or function.
        family_kwargs: arguments of its constructor, and ``max_episode_steps``; give the learner the same ones.

    Raises:
        ValueError: an unknown family, arguments that it does not take, or episodes without an end.
        TypeError: the environment has no task space.
    """
    env = make(family, **family_kwargs)
    try:
        return sized(env.observation_space, env.action_space, horizon_of(env))
    finally:
        close_or_warn(env)


def sized(observation_space: spaces.Space[Any], action_space: spaces.Space[Any], horizon: int) -> dict[str, Any]:
    """Return settings, as arguments of a learner, that fit two spaces and a length of episodes.

    - ``learning.tasks * learning.episodes * horizon`` is near ``TARGET_STEPS``, or ``TARGET_STEPS_IMAGES`` with
      images, with twice as many tasks as episodes of each, within ``FEWEST_...`` and ``MOST_...``.
    - ``learning.gamma`` is ``1 - 1 / horizon``, from 0.95 to 0.995: the discount reaches about as far as an episode.
    - ``learning.normalize_observations``: where a number may be further from 0 than ``LARGE``; images are scaled.
    - The policy is ``MultiInputPolicy`` for dicts, ``CnnPolicy`` for images that are large enough for it, else
      ``MlpPolicy``. Its hidden layers have 64 units for up to 50 observed numbers and actions, 128 for up to 200, or
      else 256.
    - Validation has the tasks of an iteration, the test five times as many; both have the episodes of an iteration.

    Args:
        observation_space: of the family.
        action_space: of the family.
        horizon: the most steps of an episode.

    Raises:
        ValueError: the horizon is no whole number of at least 1.
    """
    horizon = task_tools.whole_number("the horizon", horizon)
    parts = list(subspaces(channels_first(observation_space)).values())
    images = any(_is_large_image(part) for part in parts)
    episodes_in_all = (TARGET_STEPS_IMAGES if images else TARGET_STEPS) / horizon
    tasks = _between(FEWEST_TASKS, round(math.sqrt(2.0 * episodes_in_all)), MOST_TASKS)
    episodes = _between(FEWEST_EPISODES, round(episodes_in_all / tasks), MOST_EPISODES)
    numbers = sum(_numbers(part) for part in parts if not _is_large_image(part)) + _numbers(action_space)
    width = 64 if numbers <= 50 else 128 if numbers <= 200 else 256
    if isinstance(observation_space, spaces.Dict):
        policy = "MultiInputPolicy"
    else:
        policy = "CnnPolicy" if images else "MlpPolicy"
    return {
        "policy": policy,
        "policy_kwargs": {"hidden_sizes": [width, width]},
        "learning": {
            "iterations": 100,
            "tasks": tasks,
            "episodes": episodes,
            "gamma": round(min(max(1.0 - 1.0 / horizon, 0.95), 0.995), 4),
            "gae_lambda": 0.95,
            "normalize_observations": any(_is_large(part) for part in parts),
        },
        "inner": {"steps": 1, "step_size": 0.1},
        "evaluation": {"every": 10, "tasks": tasks, "test_tasks": 5 * tasks, "episodes": episodes, "steps": 3},
    }


def horizon_of(env: gymnasium.Env[Any, Any]) -> int:
    """Return the most steps of an episode: the time limit, or where there is none, the longest of some random episodes.

    Raises:
        ValueError: there is no time limit, and a random episode does not end in ``MEASURED_STEPS`` steps or fails.
    """
    return time_limit(env) or _measured(env)


def _measured(env: gymnasium.Env[Any, Any]) -> int:
    inner = env.unwrapped.inner if isinstance(env.unwrapped, ParameterizedEnv) else env
    name = task_tools.family_name(inner)
    tasks = task_tools.draw_tasks(env, MEASURED_EPISODES, task_tools.task_rng(0, "train"), "train")
    env.action_space.seed(0)
    longest = 0
    for number, task in enumerate(task_tools.unstack_tasks(task_tools.task_space(env), tasks)):
        try:
            length = _random_episode(env, number, task)
        except Exception as error:  # an environment may raise anything
            raise ValueError(
                f"an episode of {name} with random actions fails ({type(error).__name__}: {error})"
            ) from error
        if length is None:
            raise ValueError(
                f"{name} has no time limit, and an episode of random actions does not end in {MEASURED_STEPS} steps; "
                "say how long one is, as in family_kwargs.max_episode_steps=200"
            )
        longest = max(longest, length)
    return longest


def _random_episode(env: gymnasium.Env[Any, Any], seed: int, task: Any) -> int | None:
    """Return the length of an episode of random actions; None where it does not end in time."""
    env.reset(seed=seed, options={"task": task})
    for step in range(MEASURED_STEPS):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            return step + 1
    return None


def _between(least: int, value: int, most: int) -> int:
    return min(max(value, least), most)


def _numbers(space: spaces.Space[Any]) -> int:
    """Return how many numbers a network reads or writes for an element of a space; 1 where nobody knows."""
    try:
        return int(spaces.flatdim(space))
    except (ValueError, NotImplementedError):  # such as of sequences, which policies refuse in a sentence
        return 1


def _is_large_image(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and is_image_space(space) and min(space.shape[1:]) >= SMALLEST_IMAGE


def _is_large(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or is_image_space(space) or space.dtype.kind != "f":
        return False  # only real numbers can be normalized
    return bool(max(np.abs(space.low).max(initial=0), np.abs(space.high).max(initial=0)) > LARGE)
