"""The check of a few seconds before training: what would waste hours is said at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

from metarl.envs import registry
from metarl.envs import tasks as task_tools
from metarl.envs.checker.episodes import arrays_in, as_arrays
from metarl.envs.checker.idle import advice, idle_parameters
from metarl.envs.families.constructors import layers_of
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.references import as_family
from metarl.envs.registry import FamilyLike
from metarl.envs.sync import RolloutError, close_or_warn

SECONDS = 4.0  # that a check may take, except for a step or reset that takes longer by itself
LEAK_STEPS = 100  # of the episodes that are compared to find environments that change each other
STEPS = 10_000  # after which an episode without a time limit counts as endless
TASKS = 4
SEED = 1


def time_limit(env: gymnasium.Env[Any, Any]) -> int | None:
    """Return after how many steps an environment truncates an episode, or None where it has no such limit."""
    limit = getattr(env.unwrapped, "max_episode_steps", None)
    found = [limit] if isinstance(limit, int) else []
    layers = layers_of(env.unwrapped.inner if isinstance(env.unwrapped, ParameterizedEnv) else env)
    found += [int(vars(layer)["_max_episode_steps"]) for layer in layers if isinstance(layer, TimeLimit)]
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
    env, other = (registry.make(name, **{"disable_env_checker": True, **kwargs}) for _ in range(2))
    try:
        if isinstance(env.unwrapped, ParameterizedEnv) and isinstance(other.unwrapped, ParameterizedEnv):
            env.unwrapped.refuse_shared(other.unwrapped)
        return _check(name, env, other)
    except (ValueError, RolloutError, KeyboardInterrupt):
        raise
    except BaseException:  # the first rollout will meet the same error and name the task
        return []
    finally:
        close_or_warn(env)
        close_or_warn(other)


def _check(family: str, env: gymnasium.Env[Any, Any], other: gymnasium.Env[Any, Any]) -> list[str]:
    until = time.monotonic() + SECONDS
    batch = task_tools.draw_tasks(env, TASKS, task_tools.task_rng(SEED, "train"), "train")
    tasks = task_tools.unstack_tasks(task_tools.task_space(env), batch)
    limit = time_limit(env)
    played: list[tuple[list[list[Any]], bool]] = []
    for task in tasks:
        if len(played) < 2 or time.monotonic() < until:
            played.append(_play(family, env, task, limit or STEPS, until))
    if limit is None and not any(ended for _, ended in played):
        longest = max(len(numbers) for numbers, _ in played) - 1
        raise ValueError(
            f"no episode of {family} has ended after {longest:,} steps of random actions, and it has no time limit; "
            "set one, as family_kwargs.max_episode_steps = 200, or max_episode_steps=200 in Python"
        )
    first = played[0][0]
    if time.monotonic() < until:
        _refuse_leaks(family, env, other, tasks, first)
    idle = idle_parameters(env, until - time.monotonic())
    different = len({repr(task_tools.plain(task)) for task in tasks}) > 1
    if idle or not different or not all(_same_start(first, numbers) for numbers, _ in played[1:]):
        return idle
    do = advice(env, 'let reset read options["task"], and let rewards or transitions depend on it')
    return [
        f"episodes of {len(played)} different tasks of {family} with the same seed and actions are the same, so there "
        f"is nothing to adapt to; {do}"
    ]


def _refuse_leaks(
    family: str, env: gymnasium.Env[Any, Any], other: gymnasium.Env[Any, Any], tasks: list[Any], alone: list[list[Any]]
) -> None:
    """Refuse environments that play different tasks at the same time and change each other, as through their class.

    Raises:
        ValueError: the first task's episode is another one after another environment was given another task.
    """
    steps, endless = min(len(alone) - 1, LEAK_STEPS), time.monotonic() + SECONDS
    again, _ = _play(family, env, tasks[0], steps, endless)
    elsewhere = {"task": tasks[-1]}
    beside, _ = _play(family, env, tasks[0], steps, endless, lambda: other.reset(seed=SEED, options=elsewhere))
    if _same_start(alone, again) and not _same_start(alone, beside):
        raise ValueError(
            f"environments of {family} that play different tasks at the same time change each other; keep what varies "
            "on each environment itself, not on its class, its module or an object that they share"
        )


def _play(
    family: str,
    env: gymnasium.Env[Any, Any],
    task: Any,
    steps: int,
    until: float,
    after_reset: Callable[[], Any] = lambda: None,
) -> tuple[list[list[Any]], bool]:
    """Return the numbers of each step of an episode, and whether it ended."""
    env.action_space.seed(SEED)
    observation, _ = env.reset(seed=SEED, options={"task": task})
    after_reset()
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
