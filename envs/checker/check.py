"""``check_family`` finds what breaks the contract of a family and says it in one sentence for each fault.

Its checks concern tasks. At the end it calls ``gymnasium.utils.env_checker.check_env``, which checks the rest.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import VectorEnv

from metarl.envs import registry
from metarl.envs import tasks as task_tools
from metarl.envs.checker.episodes import SEED, Episode, arrays_in, as_arrays, play_episode
from metarl.envs.checker.idle import advice, idle_parameters
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.sync import close_or_warn

TASKS = 5
DRAWN = 4 * TASKS  # more than are used, to find different ones among them
SEEDS = range(SEED + 1, SEED + 9)  # of the short episodes that must repeat
SHORT = 10  # steps of each
UNSEEDED = 3  # resets without seed and task before each is played again
LARGE_SEEDS = (2**31 - 1, 2**31)


def check_family(family: str, **kwargs: Any) -> list[str]:
    """Return the faults of a family, each a sentence that says what to do; an empty list where there is none.

    Later checks need what earlier ones found in order, so a fault may hide others: mend it and check again. Where there
    is no fault, a ``UserWarning`` names each key of a task's dict that made no difference in a few episodes.

    Args:
        family: an id, or ``module:Id``.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: the family is unknown or cannot be made.
        TypeError: the environment has no task space.
    """
    env = registry.make(family, **{"disable_env_checker": True, **kwargs})
    try:
        return _faults(family, env, kwargs)
    except Exception as error:  # the environment may raise anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        return [
            f"the environment raises {type(error).__name__}: {error} (line {where.lineno} of {where.filename}) where "
            "it is reset and stepped with tasks of its task_space and actions of its action_space; mend that first"
        ]
    finally:
        close_or_warn(env)


def _faults(family: str, env: gymnasium.Env[Any, Any], kwargs: dict[str, Any]) -> list[str]:
    tasks = _tasks(env)
    if isinstance(tasks, str):
        return [tasks]
    episodes = [play_episode(env, {"task": task}) for task in tasks]
    faults = _check_keys(env.observation_space) or _check_values(env, episodes) + _check_memory(episodes)
    faults = faults or _check_repeats(env, tasks, episodes) or _check_secrecy(env, tasks, episodes)
    faults = faults or _check_large_seeds(env, tasks[0])
    for count in (1, TASKS):
        faults = faults or _check_vector(family, kwargs, env, tasks[:count])
    faults = faults or _check_gymnasium(family, kwargs)
    if not faults:
        for sentence in idle_parameters(env):
            warnings.warn(sentence, UserWarning, stacklevel=3)
    return faults


def _tasks(env: gymnasium.Env[Any, Any]) -> list[Any] | str:
    """Draw tasks, different ones first, or say why none can be drawn."""
    space = task_tools.task_space(env)
    if not task_tools.can_be_batched(space):
        return f"task_space {space} cannot be batched into arrays; {task_tools.BATCHED_SPACES}"
    try:
        batch = task_tools.draw_tasks(env, DRAWN, task_tools.task_rng(SEED, "train"), "train")
        tasks = task_tools.unstack_tasks(space, batch)
    except (TypeError, ValueError, AttributeError, NotImplementedError, gymnasium.error.Error) as error:
        return f"tasks cannot be drawn and batched ({error}); sample_tasks(n, rng, split) must return a batch of n"
    if len(tasks) != DRAWN:
        return f"sample_tasks({DRAWN}, rng, split) returned {len(tasks)} tasks; it must return a batch of n"
    for task in tasks:
        if not space.contains(task):
            return f"sample_tasks draws {task_tools.plain(task)}, which is outside task_space {space}; make them agree"
    different = {repr(task_tools.plain(task)): task for task in reversed(tasks)}
    return [*reversed(different.values()), *tasks][:TASKS]


def _check_keys(space: gymnasium.Space[Any]) -> list[str]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key in space.spaces:
            if not key or "." in key:
                return [
                    f"the observation has the key {key!r}, but policies name parts of their networks by the keys, and "
                    "such a name is not empty and has no dots; rename the key"
                ]
    return []


def _check_values(env: gymnasium.Env[Any, Any], episodes: list[Episode]) -> list[str]:
    for episode in episodes:
        for step, observation in enumerate(episode.observations):
            if not env.observation_space.contains(observation):
                return [
                    f"the observation after {step} steps, {observation!r}, is outside observation_space "
                    f"{env.observation_space}; widen the space or fix the observation's values, shape or dtype"
                ]
        for step, reward in enumerate(episode.rewards):
            if not np.isfinite(reward):
                return [f"the reward of step {step + 1} is {reward}; rewards must be finite numbers"]
    return []


def _check_memory(episodes: list[Episode]) -> list[str]:
    for episode in episodes:
        if episode.shared:
            return [
                f"the observations before and after step {episode.shared[0] + 1} share memory, so the first changes "
                "when the environment steps; return a new array, as with .copy()"
            ]
    return []


def _check_repeats(env: gymnasium.Env[Any, Any], tasks: list[Any], episodes: list[Episode]) -> list[str]:
    not_seeded = [
        "the same seed and task do not give the same episode; call super().reset(seed=seed) and draw all noise from "
        "self.np_random"
    ]
    parameterized = isinstance(env.unwrapped, ParameterizedEnv)
    forgets = [
        "an episode depends on those before it, at the same seed and task; let reset restore everything that step "
        "changes"
        if parameterized
        else "a reset without a task does not play the last one again; keep the task until reset is given another"
    ]
    if not episodes[0].equals(play_episode(env, {"task": tasks[0]})):
        return not_seeded
    same_tasks = len({repr(task_tools.plain(task)) for task in tasks}) == 1
    if not same_tasks and all(episodes[0].equals(episode) for episode in episodes[1:]):
        if parameterized:
            return [f"episodes of different tasks are the same, so no parameter makes a difference; {advice(env, '')}"]
        return [
            'episodes of different tasks are the same; reset must read options["task"], and rewards or transitions '
            "must depend on it"
        ]
    for index in (1, 0):
        env.reset(seed=SEED, options={"task": tasks[index]})
        if not episodes[index].equals(play_episode(env, None)):
            return forgets
    for number, seed in enumerate(SEEDS):
        options = {"task": tasks[number % len(tasks)]}
        first = play_episode(env, options, seed, SHORT)
        if not first.equals(play_episode(env, options, seed, SHORT)):
            return not_seeded
        for _ in range(UNSEEDED):
            env.reset()
        if not first.equals(play_episode(env, None, seed, SHORT)):
            return forgets
    return []


def _check_large_seeds(env: gymnasium.Env[Any, Any], task: Any) -> list[str]:
    for seed in LARGE_SEEDS:
        try:
            env.reset(seed=seed, options={"task": task})
        except Exception as error:  # the environment may raise anything
            return [
                f"reset(seed={seed}) raises {type(error).__name__}: {error}; any whole number from 0 on is a seed, so "
                "where a simulator takes only smaller ones, give it int(self.np_random.integers(2**31))"
            ]
    return []


def _check_secrecy(env: gymnasium.Env[Any, Any], tasks: list[Any], episodes: list[Episode]) -> list[str]:
    """Find tasks that can be read from the first observation, or from a constant entry of the later ones."""
    if task_tools.attribute(env, "observation_reveals_task", False):
        return []
    first = [episode.observations[0] for episode in episodes]
    if not all(data_equivalence(first[0], other) for other in first[1:]):
        return [
            "the first observation differs between tasks at the same seed, so it gives the task away; leave the task "
            "out of the observation, or declare it with observation_reveals_task = True"
        ]
    numbers = [[float(x) for part in arrays_in(as_arrays(task)) for x in np.ravel(part)] for task in tasks]
    for index in range(min(len(entries) for entries in numbers)):
        if len({entries[index] for entries in numbers}) == 1:
            continue
        found = [_places(episode, entries[index]) for episode, entries in zip(episodes, numbers, strict=True)]
        if set.intersection(*found):
            return [
                f"entry {sorted(set.intersection(*found))[0]} of the observations after the first is always entry "
                f"{index} of the task; leave it out, or declare it with observation_reveals_task = True"
            ]
    return []


def _places(episode: Episode, value: float) -> set[int]:
    """Return the entries that have this value in every observation after the first."""
    flat = [np.concatenate([np.ravel(part) for part in arrays_in(as_arrays(o))]) for o in episode.observations[1:]]
    return set(
        np.flatnonzero(np.all([np.isclose(entries, value, rtol=1e-6, atol=0) for entries in flat], axis=0)).tolist()
    )


def _check_vector(family: str, kwargs: dict[str, Any], env: gymnasium.Env[Any, Any], tasks: list[Any]) -> list[str]:
    """Compare sub-environments, each with a seed and a task of its own, with the single environment."""
    vector = registry.make_vec(family, len(tasks), **kwargs)
    try:
        fault = _disagreement(vector, env, tasks)
        if fault is None:
            return []
        if _disagreement(vector, env, tasks[:1] * len(tasks)) is None:
            return [
                f"sub-environments leak tasks into each other: {fault} when their tasks differ, not when they are the "
                "same; keep the task on the instance (one row of the batch), never on the class or the module"
            ]
        return [
            f"{fault} between the batched and the single environment for the same seed, task and actions; make both "
            "compute the same dynamics"
        ]
    finally:
        vector.close()


def _disagreement(vector: VectorEnv[Any, Any, Any], env: gymnasium.Env[Any, Any], tasks: Sequence[Any]) -> str | None:
    seeds = [SEED + index for index in range(len(tasks))]
    episodes = [play_episode(env, {"task": task}, seed) for task, seed in zip(tasks, seeds, strict=True)]
    batch = task_tools.stack_tasks(task_tools.task_space(env), tasks)
    observations, _ = vector.reset(seed=seeds, options={"tasks": batch})  # type: ignore[arg-type]
    env.action_space.seed(SEED)
    running = [True] * len(tasks)
    for step in range(max(len(episode.rewards) for episode in episodes)):
        action = env.action_space.sample()
        for index, episode in enumerate(episodes):
            expected = episode.observations[min(step, len(episode.rewards))]
            if not _close(task_tools.take_tasks(observations, index), expected):
                return f"the observation at step {step} of sub-environment {index} differs"
        actions = task_tools.stack_tasks(env.action_space, [action] * len(tasks))
        observations, rewards, terminated, truncated, _ = vector.step(actions)
        for index, episode in enumerate(episodes):
            if not running[index]:
                continue
            if not np.isclose(rewards[index], episode.rewards[step], rtol=1e-6, atol=1e-6):
                return f"the reward at step {step + 1} of sub-environment {index} differs"
            if (bool(terminated[index]), bool(truncated[index])) != episode.ends[step]:
                return f"the end of the episode at step {step + 1} of sub-environment {index} differs"
            running[index] = not (terminated[index] or truncated[index])
    return None


def _close(found: Any, expected: Any) -> bool:
    pairs = zip(arrays_in(as_arrays(found)), arrays_in(as_arrays(expected)), strict=True)
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in pairs)


def _check_gymnasium(family: str, kwargs: dict[str, Any]) -> list[str]:
    if not __debug__:
        return [
            "Python runs without assertions (-O or PYTHONOPTIMIZE), but gymnasium.utils.env_checker.check_env needs "
            "them; run the check without this option"
        ]
    env = registry.make(family, **{"disable_env_checker": True, **kwargs})
    plain = env.unwrapped
    step = plain.step

    def with_python_ends(action: Any) -> Any:
        observation, reward, terminated, truncated, info = step(action)
        return observation, reward, bool(terminated), bool(truncated), info

    # check_env takes numpy's False for a fault, although Gymnasium allows it.
    plain.step = with_python_ends  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            check_env(plain, skip_render_check=True)
    except Exception as error:  # assertions, and whatever the environment raises
        return [f"gymnasium.utils.env_checker.check_env finds: {error}"]
    finally:
        close_or_warn(env)
    return []
