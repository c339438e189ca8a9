"""What batched families share: tasks, seeds, masks and time limits; a family adds only its dynamics.

The single environment of such a family is its batched one with one sub-environment, so the dynamics are written
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.streams import Streams

Rows = NDArray[np.intp]


class BatchedFamily(VectorEnv[Any, Any, Any]):
    """A family stepped as arrays: ``num_envs`` sub-environments, each with a task and a generator of its own.

    ``reset`` takes ``options={"tasks": batch}`` with exactly ``num_envs`` rows and ``"reset_mask"``; a task stays
    until another is given. An episode that ended is not restarted: its observation stays and its reward is 0. A family
    whose actions are a box of [-1, 1] clips them itself.

    A subclass sets its spaces and ``default_task`` before calling this constructor, and defines ``_start``,
    ``_move`` and ``_observe``. The array ``_steps`` counts the steps of each running episode. Noise comes from
    ``_streams``, for all sub-environments at once, or from ``_draw``, where it must be what Gymnasium draws.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]
    task_space: spaces.Space[Any]
    default_task: Any

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise ValueError(f"render_mode is {render_mode!r}; a batch does not render, make the single environment")
        self.num_envs = task_tools.whole_number("num_envs", num_envs)
        if max_episode_steps is not None:
            max_episode_steps = task_tools.whole_number("max_episode_steps", max_episode_steps)
        self.max_episode_steps = max_episode_steps
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.tasks = task_tools.stack_tasks(self.task_space, [self.default_task] * self.num_envs)
        self._seeds: list[int | None] = [None] * self.num_envs
        self._generators: dict[int, np.random.Generator] = {}
        self._streams = Streams(self.num_envs)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._running = np.zeros(self.num_envs, dtype=np.bool_)

    def horizon(self) -> int:
        """Return the time limit, which the best return of an endless task depends on.

        Raises:
            ValueError: there is none.
        """
        if self.max_episode_steps is None:
            raise ValueError(f"{task_tools.family_name(self)} has no time limit; give it max_episode_steps")
        return self.max_episode_steps

    def _accept(self, batch: Any) -> None:
        """Refuse a batch of elements of the task space of which one is no task."""

    def _start(self, rows: Rows) -> None:
        """Put the sub-environments ``rows`` at the start of an episode."""
        raise NotImplementedError

    def _move(self, actions: NDArray[Any], rows: Rows | slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Step the sub-environments ``rows``; return their rewards and which of them terminated."""
        raise NotImplementedError

    def _observe(self) -> NDArray[Any]:
        """Return the observations of all sub-environments, as a new array."""
        raise NotImplementedError

    def _generator(self, row: int) -> np.random.Generator:
        """Return the generator of one sub-environment's noise, which depends on its seed only."""
        if row not in self._generators:
            self._generators[row] = np.random.default_rng(self._seeds[row])
        return self._generators[row]

    def _draw(self, rows: Rows, draw: Callable[[np.random.Generator], NDArray[Any]]) -> NDArray[Any]:
        """Return what ``draw`` gives for each of the sub-environments' own numpy generators, ``[row, ...]``."""
        return np.stack([draw(self._generator(row)) for row in rows.tolist()])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start episodes, in all sub-environments or in those of ``options["reset_mask"]``.

        Raises:
            ValueError: ``options["tasks"]`` does not have ``num_envs`` rows or holds one outside the task space;
                the seeds are not ``num_envs``; the mask has another shape.
        """
        options = options or {}
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"reset_mask has shape {mask.shape} and type {mask.dtype}, expected ({self.num_envs},) and bool"
            )
        rows = np.flatnonzero(mask)
        if options.get("tasks") is not None:
            self._assign(options["tasks"], rows)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        if seeds is not None:
            if len(seeds) != self.num_envs:
                raise ValueError(f"{len(seeds)} seeds for {self.num_envs} sub-environments; expected one for each")
            given = {row: seed for row in rows.tolist() if (seed := seeds[row]) is not None}
            self._streams.seed(list(given), list(given.values()))
            for row, seed in given.items():
                self._seeds[row] = seed
                self._generators.pop(row, None)
        self._steps[rows] = 0
        self._running[rows] = True
        if len(rows):
            self._start(rows)
        return self._observe(), {}

    def _assign(self, batch: Any, rows: Rows) -> None:
        task_tools.check_count(batch, self.num_envs)
        count = self.num_envs
        if not batch_space(self.task_space, count).contains(batch):
            batch = task_tools.stack_tasks(
                self.task_space,
                [task_tools.as_task(self, task) for task in task_tools.unstack_tasks(self.task_space, batch)],
            )
        self._accept(batch)
        keep = task_tools.unstack_tasks(self.task_space, self.tasks) if len(rows) < count else None
        if keep is None:
            self.tasks = task_tools.take_tasks(batch, np.arange(count))
            return
        given = task_tools.unstack_tasks(self.task_space, batch)
        for row in rows:
            keep[row] = given[row]
        self.tasks = task_tools.stack_tasks(self.task_space, keep)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every running sub-environment; a finished one keeps its observation and gets reward 0.

        Raises:
            ValueError: the actions have another shape, are not finite, or are no elements of a discrete space.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {actions.shape}, expected {self.action_space.shape}")
        self._check_actions(actions)
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        rows: Rows | slice = slice(None) if self._running.all() else np.flatnonzero(self._running)
        rewards[rows], terminated[rows] = self._move(actions[rows], rows)
        self._steps[rows] += 1
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        if self.max_episode_steps is not None:
            truncated[rows] = self._steps[rows] >= self.max_episode_steps
            truncated &= ~terminated
        self._running &= ~(terminated | truncated)
        return self._observe(), rewards, terminated, truncated, {}

    def _check_actions(self, actions: NDArray[Any]) -> None:
        space = self.single_action_space
        if isinstance(space, spaces.Discrete):
            expected = f"whole numbers from 0 to {space.n - 1}"
            if actions.dtype.kind in "iu":
                if actions.min() >= 0 and actions.max() < space.n:
                    return
                wrong = (actions < 0) | (actions >= space.n)
            else:
                wrong = np.ones(self.num_envs, dtype=np.bool_)
        else:
            expected = "finite numbers"
            if actions.dtype.kind != "f" or np.isfinite(actions).all():
                return
            wrong = ~np.isfinite(actions)
        row = int(np.argwhere(wrong)[0][0])
        raise ValueError(
            f"the action of sub-environment {row} of {task_tools.family_name(self)} is {actions[row]}; "
            f"expected {expected}"
        )


class SingleFamily(gymnasium.Env[Any, Any]):
    """One environment of a batched family: the same dynamics with one sub-environment.

    ``reset`` takes ``options={"task": task}``; the task stays until another is given. A subclass that can be drawn
    defines ``_picture``.
    """

    def __init__(self, batch: BatchedFamily, render_mode: str | None = None) -> None:
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            expected = ", ".join(["None", *modes])
            raise ValueError(f"unknown render_mode {render_mode!r}; expected one of {expected}")
        self._batch = batch
        self.render_mode = render_mode
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self.task_space = batch.task_space
        self.default_task = batch.default_task

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit, which ``make`` sets: the environment's own code may need it (for its optimum, say)."""
        return self._batch.max_episode_steps

    @max_episode_steps.setter
    def max_episode_steps(self, limit: int | None) -> None:
        self._batch.max_episode_steps = limit

    @property
    def task(self) -> Any:
        """The task of the current episode."""
        return task_tools.unstack_tasks(self.task_space, self._batch.tasks)[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given.

        Raises:
            ValueError: the task is outside the task space.
        """
        super().reset(seed=seed)
        batch_options = {}
        if options is not None and options.get("task") is not None:
            task = task_tools.as_task(self, options["task"])
            batch_options["tasks"] = task_tools.stack_tasks(self.task_space, [task])
        observations, info = self._batch.reset(seed=None if seed is None else [seed], options=batch_options)
        return observations[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the episode; it is truncated at ``max_episode_steps``."""
        observations, rewards, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def _picture(self) -> NDArray[np.uint8]:
        """Return a picture of the episode as it stands, ``[height, width, 3]``."""
        raise NotImplementedError

    def render(self) -> Any:
        """Return a picture of the episode as it stands, an RGB array of uint8; None where ``render_mode`` is None."""
        return self._picture() if self.render_mode == "rgb_array" else None
