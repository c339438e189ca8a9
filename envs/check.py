"""``check_family``: what breaks the contract of a family, one sentence a fault.

It comes on top of ``gymnasium.utils.env_checker.check_env``, which knows nothing of tasks.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import VectorEnv

from metarl.envs import registry
from metarl.envs import tasks as task_tools

EPISODE_STEPS = 250
TASKS = 3
SEED = 1234


def check_family(family: str, **kwargs: Any) -> list[str]:
    """Return the faults of a family, each a sentence that says what to do; an empty list where there is none.

    Args:
        family: an id, or ``module:Id``.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: the family is unknown or cannot be made.
        TypeError: the environment has no task space.
    """
    env = registry.make(family, **kwargs)
    vector = None
    try:
        tasks = _tasks(env)
        if isinstance(tasks, str):
            return [tasks]
        episodes = [_episode(env, task) for task in tasks]
        faults = _check_observations(env, episodes) or _check_repeats(env, tasks, episodes)
        if not faults and registry.find_family(family).vector_entry_point is not None:
            vector = registry.make_vec(family, len(tasks), **kwargs)
            faults += _check_batched(vector, env, tasks, episodes)
        return faults
    finally:
        env.close()
        if vector is not None:
            vector.close()


def _tasks(env: gymnasium.Env[Any, Any]) -> list[Any] | str:
    space = task_tools.task_space(env)
    try:
        batch = task_tools.draw_tasks(env, TASKS, task_tools.task_rng(SEED, "train"), "train")
        tasks = task_tools.unstack_tasks(space, batch)
    except (TypeError, ValueError, AttributeError, NotImplementedError, gymnasium.error.Error) as error:
        return f"tasks cannot be drawn and batched ({error}); sample_tasks(n, rng, split) must return a batch of n"
    for task in tasks:
        if not space.contains(task):
            return f"sample_tasks draws {task_tools.plain(task)}, which is outside task_space {space}; make them agree"
    return tasks


def _episode(env: gymnasium.Env[Any, Any], task: Any) -> dict[str, list[Any]]:
    """Play an episode of a task with actions and seed that are the same for every task."""
    actions = task_tools.attribute(env, "action_space")
    actions.seed(SEED)
    observation, _ = env.reset(seed=SEED, options={"task": task})
    episode: dict[str, list[Any]] = {"observations": [observation], "rewards": [], "ends": []}
    for _ in range(EPISODE_STEPS):
        observation, reward, terminated, truncated, _ = env.step(actions.sample())
        episode["observations"].append(observation)
        episode["rewards"].append(float(reward))
        episode["ends"].append((bool(terminated), bool(truncated)))
        if terminated or truncated:
            break
    return episode


def _same(a: dict[str, list[Any]], b: dict[str, list[Any]]) -> bool:
    return (
        a["ends"] == b["ends"]
        and np.array_equal(a["rewards"], b["rewards"])
        and all(data_equivalence(x, y) for x, y in zip(a["observations"], b["observations"], strict=True))
    )


def _check_observations(env: gymnasium.Env[Any, Any], episodes: list[dict[str, list[Any]]]) -> list[str]:
    for episode in episodes:
        for step, observation in enumerate(episode["observations"]):
            if not env.observation_space.contains(observation):
                return [
                    f"the observation after {step} steps, {observation!r}, is outside observation_space "
                    f"{env.observation_space}; widen the space or fix the observation's values, shape or dtype"
                ]
        for step, reward in enumerate(episode["rewards"]):
            if not np.isfinite(reward):
                return [f"the reward of step {step + 1} is {reward}; rewards must be finite numbers"]
    return []


def _check_repeats(env: gymnasium.Env[Any, Any], tasks: list[Any], episodes: list[dict[str, list[Any]]]) -> list[str]:
    faults = []
    if not _same(episodes[0], _episode(env, tasks[0])):
        faults.append(
            "the same seed and task do not give the same episode; call super().reset(seed=seed) and draw all noise "
            "from self.np_random"
        )
    elif all(_same(episodes[0], episode) for episode in episodes[1:]):
        faults.append(
            'episodes of different tasks are the same; reset must read options["task"], and rewards or transitions '
            "must depend on it"
        )
    return faults


def _check_batched(
    vector: VectorEnv[Any, Any, Any],
    env: gymnasium.Env[Any, Any],
    tasks: list[Any],
    episodes: list[dict[str, list[Any]]],
) -> list[str]:
    batch = task_tools.stack_tasks(task_tools.task_space(env), tasks)
    observations, _ = vector.reset(seed=[SEED] * len(tasks), options={"tasks": batch})  # type: ignore[arg-type]
    env.action_space.seed(SEED)
    running = [True] * len(tasks)
    for step in range(max(len(episode["rewards"]) for episode in episodes)):
        action = env.action_space.sample()
        actions = np.stack([action] * len(tasks))
        for row, episode in enumerate(episodes):
            expected = episode["observations"][min(step, len(episode["rewards"]))]
            if not np.allclose(task_tools.take_tasks(observations, row), expected, rtol=1e-6, atol=1e-6):
                return [_disagreement("observation", step, row)]
        observations, rewards, terminated, truncated, _ = vector.step(actions)
        for row, episode in enumerate(episodes):
            if not running[row]:
                continue
            if not np.isclose(rewards[row], episode["rewards"][step], rtol=1e-6, atol=1e-6):
                return [_disagreement("reward", step + 1, row)]
            if (bool(terminated[row]), bool(truncated[row])) != episode["ends"][step]:
                return [_disagreement("end of the episode", step + 1, row)]
            running[row] = not (terminated[row] or truncated[row])
    return []


def _disagreement(what: str, step: int, row: int) -> str:
    return (
        f"the {what} at step {step} of sub-environment {row} differs between the batched and the single environment "
        "for the same seed, task and actions; make both compute the same dynamics"
    )
