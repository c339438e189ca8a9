"""The ``VecEnv`` over a batched family: all environments in one step, as stable-baselines3 expects them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from metarl.agents.observations import map_observations
from metarl.envs import tasks as task_tools
from metarl.envs.wrappers import OBSERVATION, TOLD_KEYS

# What of a single environment exists only there: the batch has one state for all.
_NOT_HERE = ("batch", "env", "unwrapped", "reset", "step", "close")


class BatchedVecEnv(VecEnv):
    """A ``VecEnv`` whose environments are the sub-environments of a batched family.

    ``env_method`` and ``get_attr`` reach what does not depend on an environment's state (``oracle_return``,
    ``task_space``, ``spec``, ...), ``task``, and what stable-baselines3's monitor knows (``get_episode_rewards``, ...).
    ``set_attr`` keeps the value for later ``get_attr``, as setting it on an outer wrapper does.

    Args:
        batch: of a family, with metarl's masked resets.
        example: a single environment of it, wrapped as each of them is; closed with this one.
        trial_episodes: episodes in a trial; with more than 1, observations are those of ``metarl.Trial``.
        tasks: one for each environment, or None for a new one in each episode or trial.
    """

    def __init__(
        self,
        batch: VectorEnv[Any, Any, Any],
        example: gymnasium.Env[Any, Any],
        trial_episodes: int,
        tasks: Sequence[Any] | None,
    ) -> None:
        self.batch = batch
        count = batch.num_envs
        self._example = example
        self._given = None if tasks is None else list(tasks)
        self._task_space = task_tools.task_space(batch)
        self._rngs = [task_tools.task_rng(0, "train") for _ in range(count)]
        self._tasks: list[Any] = [task_tools.attribute(example, "default_task")] * count
        self._trial_episodes = trial_episodes
        self._episode = np.zeros(count, dtype=np.int64)
        self._own: list[dict[str, Any]] = [{} for _ in range(count)]
        self._began = time.time()
        self._returns, self._lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        self._records: list[list[tuple[float, int, float]]] = [[] for _ in range(count)]
        self._steps = 0
        self._actions: Any = None
        self._rows = _choices(batch.single_action_space)
        super().__init__(count, example.observation_space, example.action_space)
        self.metadata = example.metadata

    def reset(self) -> Any:
        """Start an episode, or a trial, in every environment, with the seeds and options that were given."""
        for index, seed in enumerate(self._seeds):
            if seed is not None:
                self._rngs[index] = task_tools.task_rng(seed, "train")
        everywhere = np.ones(self.num_envs, dtype=np.bool_)
        self._choose_tasks(everywhere)
        for index, options in enumerate(self._options):
            if options.get("task") is not None:
                self._tasks[index] = task_tools.as_task(self._example, options["task"])
        observations = self._start(everywhere, list(self._seeds))
        self._episode[:], self._returns[:], self._lengths[:] = 0, 0.0, 0
        self._reset_seeds()
        self._reset_options()
        told = self._told(observations, None, np.zeros(self.num_envs), np.zeros(self.num_envs))
        self.reset_infos = [self._reset_info() for _ in range(self.num_envs)]
        return told

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all environments; those whose episode ended begin the next one."""
        observations, rewards, terminated, truncated, _ = self.batch.step(self._actions)
        ended = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        self._steps += 1
        number = self._episode.copy()
        self._episode += ended
        done = ended & (self._episode >= self._trial_episodes)
        whole = self._trial_episodes == 1
        infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": cut} if whole else {"trial_episode": part, "TimeLimit.truncated": cut}
            for cut, part in zip((truncated & done).tolist(), number.tolist(), strict=True)
        ]
        seen = self._told(observations, self._actions, rewards, ended)
        if ended.any():
            for index in np.flatnonzero(ended & ~done).tolist():
                infos[index]["last_observation"] = _row(observations, index)
            for index in np.flatnonzero(done).tolist():
                infos[index]["episode"] = self._record(index)
                infos[index]["terminal_observation"] = _row(seen, index)
            self._choose_tasks(done)
            observations = self._start(ended, None)
            self._episode[done] = 0
            self._returns[done], self._lengths[done] = 0.0, 0
            for index in np.flatnonzero(done).tolist():
                self.reset_infos[index] = self._reset_info()
            seen = self._told(observations, self._actions, rewards, ended, begun=done)
        return seen, rewards.astype(np.float32), done, infos

    def _reset_info(self) -> dict[str, Any]:
        return {} if self._trial_episodes == 1 else {"trial_episode": 0}

    def _choose_tasks(self, where: NDArray[np.bool_]) -> None:
        for index in np.flatnonzero(where).tolist():
            if self._given is not None:
                self._tasks[index] = self._given[index]
            else:
                drawn = task_tools.draw_tasks(self._example, 1, self._rngs[index], "train")
                self._tasks[index] = task_tools.take_tasks(drawn, 0)

    def _start(self, where: NDArray[np.bool_], seeds: list[int | None] | None) -> Any:
        tasks = task_tools.stack_tasks(self._task_space, self._tasks)
        return self.batch.reset(seed=seeds, options={"tasks": tasks, "reset_mask": where})[0]  # type: ignore[arg-type]

    def _told(
        self,
        observations: Any,
        actions: NDArray[Any] | None,
        rewards: NDArray[Any],
        ended: NDArray[Any],
        begun: NDArray[np.bool_] | None = None,
    ) -> Any:
        """Return observations with what ``metarl.Trial`` tells beside them; ``begun``: where a trial has just begun."""
        if self._trial_episodes == 1:
            return observations
        space = self.observation_space
        assert isinstance(space, spaces.Dict)
        coded = (
            np.zeros((self.num_envs, *(space[TOLD_KEYS[0]].shape or ())), np.float32)
            if actions is None
            else self._coded(actions)
        )
        last = np.asarray(rewards, np.float32)[:, None], np.asarray(ended, np.float32)[:, None]
        told = dict(zip(TOLD_KEYS, (coded, *last), strict=True))
        if begun is not None:
            told = {key: np.where(begun[:, None], np.float32(0.0), part) for key, part in told.items()}
        return {**(observations if isinstance(observations, dict) else {OBSERVATION: observations}), **told}

    def _coded(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        space = self.batch.single_action_space
        if isinstance(space, spaces.Box):
            return np.clip(np.asarray(actions, np.float32), space.low, space.high).reshape(self.num_envs, -1)
        columns = np.asarray(actions).reshape(self.num_envs, -1)
        return np.concatenate(
            [rows[columns[:, part] - start] for part, (start, rows) in enumerate(self._rows)],
            axis=1,
        )

    def _record(self, index: int) -> dict[str, Any]:
        """Return what stable-baselines3's monitor tells of an episode, and keep it."""
        seconds = time.time() - self._began
        total, length = float(self._returns[index]), int(self._lengths[index])
        self._records[index].append((total, length, seconds))
        return {"r": round(total, 6), "l": length, "t": round(seconds, 6)}

    def close(self) -> None:
        """Close the batch and the example."""
        self.batch.close()
        self._example.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of environments; see the class.

        Raises:
            AttributeError: there is none, or it belongs to the state of a single environment.
        """
        return [self._attribute(attr_name, index) for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Keep a value for later ``get_attr``."""
        for index in self._get_indices(indices):
            self._own[index][attr_name] = value

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of environments; see the class."""
        return [
            self._attribute(method_name, index)(*method_args, **method_kwargs) for index in self._get_indices(indices)
        ]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """Return whether environments are wrapped so; each has a monitor's records."""
        wrapped = issubclass(wrapper_class, Monitor) or is_wrapped(self._example, wrapper_class)
        return [wrapped for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[Any] | None]:
        """Return None for each environment, since a batch is not drawn; ``render_mode=`` makes one that is."""
        return [None] * self.num_envs

    def _attribute(self, name: str, index: int) -> Any:
        if name in self._own[index]:
            return self._own[index][name]
        if name == "task":
            return self._tasks[index]
        columns = ("get_episode_rewards", "get_episode_lengths", "get_episode_times")
        if name in columns:
            return lambda: [entry[columns.index(name)] for entry in self._records[index]]
        if name == "get_total_steps":
            return lambda: self._steps
        if name in _NOT_HERE:
            raise AttributeError(
                f"{name} belongs to a single environment, and these are stepped in one batch; use the VecEnv's own "
                "methods, or stable-baselines3's DummyVecEnv of metarl.make"
            )
        return self._example.get_wrapper_attr(name)


def _choices(space: spaces.Space[Any]) -> list[tuple[int, NDArray[np.float32]]]:
    """Return for each entry of discrete actions its first value and one-hot rows; none for a box."""
    if isinstance(space, spaces.Discrete):
        return [(int(space.start), np.eye(int(space.n), dtype=np.float32))]
    if isinstance(space, spaces.MultiDiscrete):
        starts = np.asarray(space.start).reshape(-1).tolist()
        sizes = np.asarray(space.nvec).reshape(-1).tolist()
        return [(start, np.eye(size, dtype=np.float32)) for start, size in zip(starts, sizes, strict=True)]
    return []


def _row(observations: Any, index: int) -> Any:
    return map_observations(lambda part: part[index].copy(), observations)
