"""A family as a vector environment of stable-baselines3, stepped in one batch where the family has one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl.envs import BatchedFamily, RandomTask, Trial, make, make_vec
from metarl.envs import tasks as task_tools
from metarl.envs.references import as_family
from metarl.envs.registry import FamilyLike, find_family
from metarl.envs.sequence import task_list
from metarl.envs.sync import close_or_warn
from metarl.sb3.batched_vec_env import BatchedVecEnv
from metarl.sb3.named import Named

RANDOM = "random"


def make_vec_env(
    family: FamilyLike,
    n_envs: int,
    tasks: Any = RANDOM,
    trial_episodes: int = 1,
    seed: int | None = None,
    **kwargs: Any,
) -> VecEnv:
    """Return ``n_envs`` environments of a family as a ``VecEnv``, for any algorithm of stable-baselines3.

    It gives what stable-baselines3's ``DummyVecEnv`` of ``Monitor(RandomTask(metarl.make(family)))`` gives,
    step by step: the same observations, rewards, ends and infos (``terminal_observation``, ``TimeLimit.truncated``,
    ``episode``). A family with a batched implementation is stepped in one batch, which is many times faster; any other,
    and one that is to be drawn (``render_mode``), is stepped one environment after the other.

    Args:
        family: as for ``metarl.make``: an id or ``module:Id``, a ``Family``, or a class or function that makes an
            environment.
        n_envs: how many environments.
        tasks: ``"random"``, a new one of the training tasks for each episode; or ``n_envs`` tasks, one for each
            environment, as ``metarl.sample_tasks`` draws them.
        trial_episodes: episodes in a trial. With more than 1, observations are those of ``metarl.Trial``, an episode of
            the ``VecEnv`` is a trial, and a new task comes with each trial.
        seed: environment i has the seed ``seed + i``, as with ``VecEnv.seed``, which an algorithm's own ``seed`` calls
            too; None is a seed that nobody knows.
        kwargs: arguments of the family's constructor, ``max_episode_steps`` and ``render_mode``.

    Raises:
        ValueError: a count or a seed that is none, tasks that are neither ``"random"`` nor ``n_envs`` tasks of the
            family, or what ``metarl.make`` refuses.
        TypeError: the environment has no task space.

    While it is stepped, an environment that raises an error, or that returns what a step must not, ends it with a
    ``metarl.envs.RolloutError`` that names family, task, sub-environment and step.
    """
    n_envs = task_tools.whole_number("n_envs", n_envs)
    trial_episodes = task_tools.whole_number("trial_episodes", trial_episodes)
    seed = int(np.random.default_rng().integers(2**31 - n_envs)) if seed is None else seed
    seed = task_tools.whole_number("the seed", seed, least=0)
    family, kwargs = as_family(family, kwargs)
    one = functools.partial(_single, family, trial_episodes, kwargs)
    first = one(None, 0)
    try:
        given = None if isinstance(tasks, str) and tasks == RANDOM else _given(first, n_envs, tasks)
        batch = None if kwargs.get("render_mode") is not None else _batch(family, n_envs, kwargs)
    finally:
        close_or_warn(first)
    made: VecEnv
    if batch is not None:
        made = BatchedVecEnv(batch, one(None if given is None else given[0], 0), trial_episodes, given)
    else:
        listed = [None] * n_envs if given is None else given
        made = DummyVecEnv([functools.partial(_monitored, one, task, index) for index, task in enumerate(listed)])
    made.seed(seed)
    return made


def _single(family: str, trial_episodes: int, kwargs: dict[str, Any], task: Any, index: int) -> gymnasium.Env[Any, Any]:
    """Return a single environment without its monitor; a task of None stands for random ones."""
    # Gymnasium's checker helps people who write environments, but slows every step down.
    env: gymnasium.Env[Any, Any] = Named(make(family, task=task, **{"disable_env_checker": True, **kwargs}), index)
    env = env if trial_episodes == 1 else Trial(env, trial_episodes)
    return RandomTask(env) if task is None else env


def _monitored(one: Callable[[Any, int], gymnasium.Env[Any, Any]], task: Any, index: int) -> Monitor[Any, Any]:
    return Monitor(one(task, index))


def _given(family: gymnasium.Env[Any, Any], n_envs: int, tasks: Any) -> list[Any]:
    if isinstance(tasks, str):
        raise ValueError(
            f"tasks is {tasks!r}; expected 'random', or {n_envs} tasks as metarl.sample_tasks draws them, one for each "
            "environment"
        )
    found = task_list(family, tasks)
    if len(found) != n_envs:
        raise ValueError(f"{len(found)} tasks for n_envs = {n_envs} environments; give one for each")
    return found


def _batch(family: str, n_envs: int, kwargs: dict[str, Any]) -> VectorEnv[Any, Any, Any] | None:
    """Return the batched implementation of a family that has one of metarl's kind, else None."""
    if find_family(family).vector_entry_point is None:
        return None
    batch = make_vec(family, n_envs, **{name: value for name, value in kwargs.items() if name != "render_mode"})
    if isinstance(batch.unwrapped, BatchedFamily):
        return batch
    batch.close()
    return None
