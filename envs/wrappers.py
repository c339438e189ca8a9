"""Wrappers that choose the task of each episode."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from metarl.envs import tasks as task_tools


class FixedTask(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A family's environment in which every episode plays the same task, unless ``reset`` names another.

    Args:
        env: an environment of a family.
        task: anything that ``as_task`` takes.

    Raises:
        ValueError: the task is outside the task space.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], task: Any) -> None:
        RecordConstructorArgs.__init__(self, task=task)
        super().__init__(env)
        self.task = task_tools.as_task(env, task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the task."""
        # A copy, because an environment may keep and change it.
        return self.env.reset(seed=seed, options={"task": copy.deepcopy(self.task), **(options or {})})


class RandomTask(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A family's environment in which every episode plays a new task, for training one policy on all tasks.

    Which tasks come depends only on the last seed that ``reset`` was given.

    Args:
        env: an environment of a family.
        split: ``train``, ``validation`` or ``test``: the split from which tasks are drawn.

    Raises:
        ValueError: unknown split.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], split: str = "train") -> None:
        RecordConstructorArgs.__init__(self, split=split)
        super().__init__(env)
        self._split = split
        self._rng = task_tools.task_rng(0, split)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of a new task, unless ``options["task"]`` names one."""
        if seed is not None:
            self._rng = task_tools.task_rng(seed, self._split)
        task = task_tools.take_tasks(task_tools.draw_tasks(self.env, 1, self._rng, self._split), 0)
        return self.env.reset(seed=seed, options={"task": task, **(options or {})})
