"""The base class of batched families: it handles tasks, seeds, masks and time limits; a family adds its dynamics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.answers import conform
from metarl.envs.sequence import batch_for
from metarl.envs.streams import Streams

# Numbers of sub-environments, counted from 0, in ascending order.
EnvIndices = NDArray[np.intp]


class BatchedFamily(VectorEnv[Any, Any, Any]):
    """A family that steps ``num_envs`` sub-environments at once, each with a task and random numbers of its own.

    ``reset`` takes ``options={"tasks": batch}`` with exactly ``num_envs`` tasks, and ``"reset_mask"``; a task stays
    until another is given. An episode that ended does not restart by itself: until the next reset its observation
    stays and its reward is 0. A family whose actions are a box of [-1, 1] clips them itself.

    A subclass sets ``single_observation_space``, ``single_action_space``, ``task_space`` and ``default_task`` before
    it calls this constructor. It defines ``start_episodes``, ``apply_actions`` and ``observe``, and may define
    ``validate_tasks``, ``infos`` and the optional methods that every family may have, such as ``sample_tasks``. Random
    numbers come from ``streams``, which draws for all sub-environments at once, or from ``generator`` and
    ``draw_each``, whose numbers are those that a Gymnasium environment draws with the same seed.

    Attributes:
        tasks: the current tasks, a batch of ``num_envs``.
        elapsed_steps: how many steps of its episode each sub-environment has made, ``[num_envs]``, int64; during
            ``apply_actions`` without the current one.
        streams: one random stream for each sub-environment; a seed starts it again.
        max_episode_steps: the time limit in steps, or None.

    Args:
        num_envs: how many sub-environments, at least 1.
        max_episode_steps: the time limit in steps, at least 1, or None for no limit.
        render_mode: must be None, since only the single environment renders.

    Raises:
        ValueError: one of the arguments is another value.
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
        self.streams = Streams(self.num_envs)
        self.elapsed_steps = np.zeros(self.num_envs, dtype=np.int64)
        self._running = np.zeros(self.num_envs, dtype=np.bool_)

    def horizon(self) -> int:
        """Return the time limit in steps, which the best return of a task without end depends on.

        Raises:
            ValueError: there is no time limit.
        """
        if self.max_episode_steps is None:
            raise ValueError(f"{task_tools.family_name(self)} has no time limit; give it max_episode_steps")
        return self.max_episode_steps

    def validate_tasks(self, batch: Any) -> None:
        """Refuse tasks that lie in the task space and yet make no sense; the base class refuses none.

        Args:
            batch: ``num_envs`` elements of the task space.

        Raises:
            ValueError: one of them is no task, with a sentence that says which and why.
        """

    def start_episodes(self, indices: EnvIndices) -> None:
        """Put some sub-environments at the start of an episode of their task in ``tasks``.

        Args:
            indices: the numbers of the sub-environments, ``[n]``, at least one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define start_episodes(indices)")

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Advance some sub-environments by one step.

        Args:
            actions: one for each of these sub-environments, ``[n, *action]``.
            indices: which sub-environments: their numbers ``[n]``, or ``slice(None)`` for all.

        Returns:
            Their rewards ``[n]``, and which of them terminated ``[n]``; the time limit is handled by the base class.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply_actions(actions, indices)")

    def infos(self, ended: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return what ``info`` says of this step, ``[num_envs]`` for each name; of the base class nothing.

        Args:
            ended: which episodes this step terminated or truncated, ``[num_envs]``.
        """
        return {}

    def observe(self) -> NDArray[Any]:
        """Return the observations of all sub-environments ``[num_envs, *observation]``, as a new array each time."""
        raise NotImplementedError(f"{type(self).__name__} must define observe()")

    def generator(self, index: int) -> np.random.Generator:
        """Return the numpy generator of one sub-environment, started by the last seed that was given to it."""
        if index not in self._generators:
            self._generators[index] = np.random.default_rng(self._seeds[index])
        return self._generators[index]

    def draw_each(self, indices: EnvIndices, draw: Callable[[np.random.Generator], NDArray[Any]]) -> NDArray[Any]:
        """Call ``draw`` with the generator of each of the sub-environments; return its arrays stacked, ``[n, ...]``."""
        return np.stack([draw(self.generator(index)) for index in indices.tolist()])

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start episodes, in all sub-environments or in those of ``options["reset_mask"]``.

        Raises:
            ValueError: ``options["tasks"]`` are not ``num_envs`` tasks or one of them is outside the task space;
                the seeds are not ``num_envs``; the mask has another shape or type.
        """
        options = options or {}
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(
                f"reset_mask has shape {mask.shape} and type {mask.dtype}, expected ({self.num_envs},) and bool"
            )
        indices = np.flatnonzero(mask)
        if options.get("tasks") is not None:
            self._assign(options["tasks"], indices)
        seeds = task_tools.spread_seed(seed, self.num_envs)
        given = {index: int(seeds[index]) for index in indices.tolist() if seeds[index] is not None}
        if given:
            self.streams.seed(list(given), list(given.values()))
            for index, own in given.items():
                self._seeds[index] = own
                self._generators.pop(index, None)
        self.elapsed_steps[indices] = 0
        self._running[indices] = True
        if len(indices):
            self.start_episodes(indices)
        return self._observed(), {}

    def _assign(self, batch: Any, indices: EnvIndices) -> None:
        count = self.num_envs
        batch = batch_for(self.task_space, batch, count)
        if not batch_space(self.task_space, count).contains(batch):
            batch = task_tools.stack_tasks(
                self.task_space,
                [task_tools.as_task(self, task) for task in task_tools.unstack_tasks(self.task_space, batch)],
            )
        self.validate_tasks(batch)
        keep = task_tools.unstack_tasks(self.task_space, self.tasks) if len(indices) < count else None
        if keep is None:
            self.tasks = task_tools.take_tasks(batch, np.arange(count))
            return
        given = task_tools.unstack_tasks(self.task_space, batch)
        for index in indices:
            keep[index] = given[index]
        self.tasks = task_tools.stack_tasks(self.task_space, keep)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Step every running sub-environment; a finished one keeps its observation and gets reward 0.

        Raises:
            ValueError: the actions have another shape, are not finite, or are no elements of a discrete space; or a
                subclass returns arrays of other shapes or types than it must.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions have shape {actions.shape}, expected {self.action_space.shape}")
        self._check_actions(actions)
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        indices: EnvIndices | slice = slice(None) if self._running.all() else np.flatnonzero(self._running)
        paid, ended = self.apply_actions(actions[indices], indices)
        for what, given in (("rewards", paid), ("which terminated", ended)):
            if np.shape(given) != rewards[indices].shape:
                raise ValueError(
                    f"apply_actions of {task_tools.family_name(self)} returned {what} of shape {np.shape(given)}, "
                    f"expected {rewards[indices].shape}, one for each sub-environment that was stepped"
                )
        rewards[indices], terminated[indices] = paid, ended
        self.elapsed_steps[indices] += 1
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        if self.max_episode_steps is not None:
            truncated[indices] = self.elapsed_steps[indices] >= self.max_episode_steps
            truncated &= ~terminated
        ended = terminated | truncated
        self._running &= ~ended
        return self._observed(), rewards, terminated, truncated, self.infos(ended)

    def _observed(self) -> Any:
        try:
            return conform(self.observation_space, self.observe())
        except ValueError as error:
            raise ValueError(f"observe of {task_tools.family_name(self)} {error}") from error

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
        index = int(np.argwhere(wrong)[0][0])
        raise ValueError(
            f"the action of sub-environment {index} of {task_tools.family_name(self)} is {actions[index]}; "
            f"expected {expected}"
        )
