"""A vector environment for families that have only a single environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, iterate

from metarl.envs import tasks as task_tools


class RolloutError(RuntimeError):
    """A rollout failed: an environment raised an error, or gave numbers that are not finite; the message says where.

    ``env_index`` is the number of the sub-environment, None where it is not known.
    """

    def __init__(self, message: str, env_index: int | None) -> None:
        super().__init__(message)
        self.env_index = env_index


class SyncFamilyVectorEnv(SyncVectorEnv):
    """Gymnasium's ``SyncVectorEnv`` with a task for each sub-environment, where a finished episode waits.

    ``reset`` takes ``options={"tasks": batch}`` with ``num_envs`` tasks and ``"reset_mask"``; ``step`` skips finished
    sub-environments (last observation, reward 0), which Gymnasium's class refuses to do without autoreset.
    """

    def __init__(self, env_fns: Any) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.DISABLED)
        self.task_space = task_tools.task_space(self.envs[0])
        # Shared memory (a ctypes number) through which another process sees which sub-environment is at work.
        self.watch: Any = None

    def __getattr__(self, name: str) -> Any:
        """Return an optional attribute of the family, such as ``sample_tasks``, from the first environment."""
        if name in ("sample_tasks", "oracle_return", "default_task", "check_task"):
            return task_tools.attribute(self.envs[0], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _show(self, env_index: int) -> None:
        if self.watch is not None:
            self.watch.value = env_index

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes; see the class.

        Raises:
            ValueError: ``options["tasks"]`` are not ``num_envs`` tasks.
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        batch = options.pop("tasks", None)
        given = None
        if batch is not None:
            task_tools.check_count(batch, self.num_envs)
            given = task_tools.unstack_tasks(self.task_space, batch)
        seed = task_tools.spread_seed(seed, self.num_envs)
        self._terminations[mask] = False
        self._truncations[mask] = False
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask):
            own = {**options, "task": given[i]} if given is not None else dict(options)
            self._show(int(i))
            try:
                self._env_obs[i], info = self.envs[i].reset(seed=seed[i], options=own)
            except Exception as error:
                raise RolloutError(f"raised {type(error).__name__} in reset: {error}", int(i)) from error
            infos = self._add_info(infos, info, int(i))
        self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        return task_tools.take_tasks(self._observations, np.arange(self.num_envs)), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sub-environments whose episode is running."""
        infos: dict[str, Any] = {}
        rewards = np.zeros(self.num_envs)
        finished = self._terminations | self._truncations
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        for i, action in enumerate(iterate(self.action_space, actions)):
            if not finished[i]:
                self._show(i)
                try:
                    observation, rewards[i], terminated[i], truncated[i], info = self.envs[i].step(action)
                except Exception as error:
                    raise RolloutError(f"raised {type(error).__name__}: {error}", i) from error
                self._env_obs[i] = observation
                infos = self._add_info(infos, info, i)
        self._terminations |= terminated
        self._truncations |= truncated
        self._observations = concatenate(self.single_observation_space, self._env_obs, self._observations)
        return (
            task_tools.take_tasks(self._observations, np.arange(self.num_envs)),
            rewards,
            terminated,
            truncated,
            infos,
        )
