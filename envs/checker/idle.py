"""Finds parameters of a task that make no difference, as values that an environment never reads."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence

from metarl.envs import tasks as task_tools
from metarl.envs.families.parameterized import ParameterizedEnv

EPISODES = 3
MAX_STEPS = 10_000
_OF_PARAMETERS = (
    "the environment may have computed what it uses when it was made, so name a method that computes it again, as in "
    "derive = 'method', or one that sets the parameter, as in set = {name = 'method'}, or vary an argument of the "
    "constructor instead; else widen the range, or leave the parameter out"
)


def advice(env: gymnasium.Env[Any, Any], otherwise: str) -> str:
    """Return what to do about tasks that change nothing: to an environment that is left as it is, or ``otherwise``."""
    return _OF_PARAMETERS if isinstance(env.unwrapped, ParameterizedEnv) else otherwise


def idle_parameters(env: gymnasium.Env[Any, Any], seconds: float = math.inf) -> list[str]:
    """Return a sentence for each parameter that makes no difference.

    For each key of the task's dict it plays episodes at both ends of the key's range, all other keys as in the default
    task, with the same seeds and random actions, up to their end or 10,000 steps. Where these episodes are the same,
    the parameter makes no difference. Tasks that are no dicts, and families without ``default_task``, are not examined,
    and no further parameters after this number of ``seconds``.
    """
    until = time.monotonic() + seconds
    space = task_tools.task_space(env)
    base = task_tools.attribute(env, "default_task")
    if not isinstance(space, spaces.Dict) or base is None:
        return []
    do = advice(env, "leave it out, widen its range, or check what the environment does with it")
    return [
        f"parameter {name!r} makes no difference: {EPISODES} whole episodes of random actions are the same at the two "
        f"ends of its range; {do}"
        for name, part in space.spaces.items()
        if time.monotonic() < until and not _differs(env, [{**base, name: end} for end in _ends(part)])
    ]


def _ends(space: spaces.Space[Any]) -> list[Any]:
    if isinstance(space, spaces.Discrete):
        return [space.start, space.start + space.n - 1]
    return [space.low, space.high] if isinstance(space, spaces.Box) else [None, None]


def _differs(env: gymnasium.Env[Any, Any], tasks: list[Any]) -> bool:
    try:
        low, high = [task_tools.as_task(env, task) for task in tasks]
    except ValueError:  # the family's own check_task refuses the end of the range
        return True
    return any(not _same(_episode(env, low, seed), _episode(env, high, seed)) for seed in range(EPISODES))


def _episode(env: gymnasium.Env[Any, Any], task: Any, seed: int) -> list[Any]:
    """Return observation, reward and end of each step of an episode."""
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed, options={"task": task})
    steps: list[Any] = [(copy.deepcopy(observation), 0.0, False)]
    while not steps[-1][2] and len(steps) < MAX_STEPS:
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        steps.append((copy.deepcopy(observation), float(reward), bool(terminated or truncated)))
    return steps


def _same(episode: list[Any], other: list[Any]) -> bool:
    return len(episode) == len(other) and all(
        one[1:] == two[1:] and data_equivalence(one[0], two[0]) for one, two in zip(episode, other, strict=True)
    )
