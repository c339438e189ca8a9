"""The check of a few seconds before training: what would waste hours is said at once."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from metarl.envs import registry
from metarl.envs import tasks as task_tools
from metarl.envs.checker.episodes import arrays_in, as_arrays
from metarl.envs.checker.idle import ADVICE, idle_parameters
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.references import as_family
from metarl.envs.registry import FamilyLike
from metarl.envs.sync import RolloutError, close_or_warn

SECONDS = 4.0  # that a check may take, except for a step or reset that takes longer by itself
STEPS = 10_000  # after which an episode without a time limit counts as endless
TASKS = 4
SEED = 1


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Return after how many steps an environment truncates an episode, or None where it has no such limit."""
    limit = getattr(env.unwrapped, "max_episode_steps", None)
    found = [limit] if isinstance(limit, int) else []
    layer: Any = env.unwrapped.inner if isinstance(env.unwrapped, ParameterizedEnv) else env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, TimeLimit):
            found.append(layer._max_episode_steps)
        layer = layer.env
    return min(found) if found else None


def quick_check(family: FamilyLike, **kwargs: Any) -> list[str]:
    """Play a few episodes of random actions; return sentences about what may be wrong.

    Warned of: a parameter, or tasks altogether, that change nothing.

    Args:
        family: as for ``make``.
        kwargs: arguments of its constructor.

    Raises:
        ValueError: no episode ends and there is no time limit.
        RolloutError: an observation or reward is not finite.
    """
    name, kwargs = as_family(family, kwargs)
    spec = registry.find_family(name)
    if spec.namespace == "metarl" and spec.vector_entry_point is not None:
        return []  # metarl's own are tested
    env = registry.make(name, **{"disable_env_checker": True, **kwargs})
    try:
        return _check(name, env)
    except (ValueError, RolloutError, KeyboardInterrupt):
        raise
    except BaseException:  # the first rollout will meet the same error and name the task
        return []
    finally:
        close_or_warn(env)


def _check(family: str, env: gymnasium.Env[Any, Any]) -> list[str]:
    until = time.monotonic() + SECONDS
    space = task_tools.task_space(env)
    batch = task_tools.draw_tasks(env, TASKS, task_tools.task_rng(SEED, "train"), "train")
    limit = time_limit(env)
    played: list[tuple[list[list[Any]], bool]] = []
    for task in task_tools.unstack_tasks(space, batch):
        if len(played) < 2 or time.monotonic() < until:
            played.append(_play(family, env, task, limit or STEPS, until))
    if limit is None and not any(ended for _, ended in played):
        longest = max(len(numbers) for numbers, _ in played) - 1
        raise ValueError(
            f"no episode of {family} has ended after {longest:,} steps of random actions, and it has no time limit; "
            "set one, as family_kwargs.max_episode_steps = 200, or max_episode_steps=200 in Python"
        )
    first = played[0][0]
    if all(_same_start(first, numbers) for numbers, _ in played[1:]):
        plain = [repr(task_tools.plain(task)) for task in task_tools.unstack_tasks(space, batch)]
        if len(set(plain)) > 1:
            advice = (
                ADVICE
                if isinstance(env.unwrapped, ParameterizedEnv)
                else ('let reset read options["task"], and let rewards or transitions depend on it')
            )
            idle = idle_parameters(env, until - time.monotonic())
            return idle or [
                f"episodes of {len(played)} different tasks of {family} with the same seed and actions are the same, "
                f"so there is nothing to adapt to; {advice}"
            ]
    return idle_parameters(env, until - time.monotonic())


def _play(
    family: str, env: gymnasium.Env[Any, Any], task: Any, steps: int, until: float
) -> tuple[list[list[Any]], bool]:
    """Return the numbers of each step of an episode, and whether it ended."""
    env.action_space.seed(SEED)
    observation, _ = env.reset(seed=SEED, options={"task": task})
    numbers = [_numbers(family, task, observation, 0.0, 0)]
    for step in range(1, steps + 1):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        numbers.append(_numbers(family, task, observation, reward, step))
        if terminated or truncated:
            return numbers, True
        if time.monotonic() > until and step >= 10:
            break
    return numbers, False


def _numbers(family: str, task: Any, observation: Any, reward: Any, step: int) -> list[Any]:
    """Return observation and reward of a step as arrays of their own.

    Raises:
        RolloutError: one is not finite.
    """
    arrays = [np.array(part) for part in arrays_in(as_arrays(observation))]
    for what, values in [*(("observation", part) for part in arrays), ("reward", np.asarray(reward))]:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RolloutError(
                f"{family}, task {task_tools.plain(task)}, gave the {what} {values} at step {step}; observations and "
                "rewards must be finite numbers",
                None,
            )
    return [*arrays, np.asarray(reward)]


def _same_start(one: list[list[Any]], other: list[list[Any]]) -> bool:
    """Whether two episodes are the same as far as both were played."""
    return all(
        len(mine) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        for mine, theirs in zip(one, other, strict=False)
    )
