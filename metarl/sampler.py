"""The sampler: plays episodes of many tasks at once and returns rollouts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.agents import Noise, Parameters, Policy, Rollouts, join_episodes
from metarl.envs import RolloutError, make_vec
from metarl.envs import tasks as task_tools
from metarl.seeding import Stream

MAX_STEPS = 100_000


class Sampler:
    """Owns the vector environments of a family, one for each number of sub-environments that was asked for."""

    def __init__(self, family: str, family_kwargs: dict[str, Any]) -> None:
        self.family = family
        self.family_kwargs = family_kwargs
        self._vectors: dict[int, VectorEnv[Any, Any, Any]] = {}

    def vector(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """Return the vector environment with ``num_envs`` sub-environments, made when first asked for."""
        if num_envs not in self._vectors:
            self._vectors[num_envs] = make_vec(self.family, num_envs, **self.family_kwargs)
        return self._vectors[num_envs]

    def collect(
        self, policy: Policy, parameters: Parameters, tasks: Any, episodes: int, streams: Sequence[Stream]
    ) -> Rollouts:
        """Play ``episodes`` episodes of each task with parameters, shared or stacked in the order of the tasks.

        Args:
            policy: whose distribution draws the actions.
            parameters: shared (no task axis), or stacked with one row for each task.
            tasks: a batch of tasks.
            episodes: for each task.
            streams: the randomness of each task.

        Raises:
            RolloutError: an environment raised an error, gave an observation or reward that is not finite, or
                does not end; the message names family, task, sub-environment and step.
        """
        n_tasks = task_tools.count_tasks(tasks)
        env = self.vector(n_tasks * episodes)
        seeds = [seed for stream in streams for seed in stream.environment_seeds(episodes)]
        options = {"tasks": task_tools.repeat_tasks(tasks, episodes)}
        with _naming(self.family, tasks, episodes):
            observations, _ = env.reset(seed=seeds, options=options)  # type: ignore[arg-type]
            return _play(env, policy, parameters, observations, n_tasks, episodes, streams)

    def close(self) -> None:
        """Close the environments."""
        for vector in self._vectors.values():
            vector.close()
        self._vectors.clear()


def _play(
    env: VectorEnv[Any, Any, Any] | _OneEnvironment,
    policy: Policy,
    parameters: Parameters,
    first: NDArray[Any],
    n_tasks: int,
    episodes: int,
    streams: Sequence[Stream],
) -> Rollouts:
    actor = policy.actor(parameters)
    noise = Noise([stream.noise() for stream in streams], episodes, policy.action_space)
    observations = [first]
    steps: list[tuple[NDArray[Any], ...]] = []
    running = np.ones(n_tasks * episodes, dtype=np.bool_)
    while running.any():
        if len(steps) == MAX_STEPS:
            raise RolloutError(
                f"is still running after {MAX_STEPS} steps; set family_kwargs.max_episode_steps", int(running.argmax())
            )
        shaped = observations[-1].reshape(n_tasks, episodes, *observations[-1].shape[1:])
        actions, log_probs = actor.act(shaped, noise.at(len(steps)))
        flat = actions.reshape(n_tasks * episodes, *actions.shape[2:])
        _refuse_non_finite("got the action", flat, len(steps))
        try:
            following, rewards, terminated, truncated, _ = env.step(flat)
        except RolloutError as error:
            raise RolloutError(f"{error}, at step {len(steps)}", error.row) from error
        _refuse_non_finite("gave the observation", following, len(steps))
        _refuse_non_finite("gave the reward", rewards, len(steps))
        steps.append(
            (
                flat,
                log_probs.reshape(-1),
                rewards * running,
                running,
                terminated & running,
                truncated & running,
            )
        )
        observations.append(following)
        running = running & ~(terminated | truncated)
    parts = [_stack(list(part), n_tasks, episodes) for part in zip(*steps, strict=True)]
    return Rollouts(
        observations=_stack(observations, n_tasks, episodes),
        actions=parts[0],
        log_probs=parts[1],
        rewards=parts[2].float(),
        mask=parts[3].float(),
        terminated=parts[4],
        truncated=parts[5],
    )


def _stack(steps: list[NDArray[Any]], n_tasks: int, episodes: int) -> torch.Tensor:
    """Stack arrays ``[sub-environment, ...]``, one a step, into ``[task, episode, time, ...]``."""
    stacked = np.stack(steps, axis=1)
    if stacked.dtype == np.float64:
        stacked = stacked.astype(np.float32)
    return torch.from_numpy(stacked.reshape(n_tasks, episodes, *stacked.shape[1:]))


def _refuse_non_finite(what: str, values: NDArray[Any], step: int) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise RolloutError(f"{what} {values[row]}, at step {step}", row)


@contextlib.contextmanager
def _naming(family: str, tasks: Any, episodes: int) -> Iterator[None]:
    """Add family, task and sub-environment to a failure."""
    try:
        yield
    except RolloutError as error:
        task = task_tools.plain(task_tools.take_tasks(tasks, error.row // episodes))
        message = f"{family}, task {task}, sub-environment {error.row} {error}"
        raise RolloutError(message, error.row) from error


class _OneEnvironment:
    """A single environment that steps as a vector environment with one sub-environment."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._env = env

    def step(self, actions: NDArray[Any]) -> tuple[Any, ...]:
        observation, reward, terminated, truncated, info = self._env.step(actions[0])
        ends = np.array([terminated]), np.array([truncated])
        return np.asarray(observation)[None], np.array([float(reward)]), *ends, info


def collect_single(
    env: gymnasium.Env[Any, Any], policy: Policy, parameters: Parameters, streams: Sequence[Stream]
) -> Rollouts:
    """Play episodes, one for each stream, in an environment whose task we need not know.

    Args:
        env: an environment with the policy's spaces.
        policy: whose distribution draws the actions.
        parameters: without a task axis.
        streams: the randomness of each episode.

    Returns:
        rollouts of one task.
    """
    played = []
    for stream in streams:
        observation, _ = env.reset(seed=stream.environment_seeds(1)[0])
        first = np.asarray(observation)[None]
        played.append(_play(_OneEnvironment(env), policy, parameters, first, 1, 1, [stream]))
    return join_episodes(played)
