"""The base class of single environments that play one sub-environment of a batched family.

The dynamics are so written only once, in the batched family.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.batched import BatchedFamily


class SingleFamily(gymnasium.Env[Any, Any]):
    """The single environment of a batched family: it plays the only sub-environment of ``batch``.

    ``reset`` takes ``options={"task": task}``; the task stays until another is given. A subclass lists ``rgb_array``
    in ``metadata["render_modes"]`` if it can be drawn, and then defines ``draw_picture``.

    Args:
        batch: the family's batched implementation with one sub-environment; kept as the attribute ``batch``.
        render_mode: one of ``metadata["render_modes"]``, or None.

    Raises:
        ValueError: unknown ``render_mode``.
    """

    def __init__(self, batch: BatchedFamily, render_mode: str | None = None) -> None:
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            expected = ", ".join(["None", *modes])
            raise ValueError(f"unknown render_mode {render_mode!r}; expected one of {expected}")
        self.batch = batch
        self.render_mode = render_mode
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self.task_space = batch.task_space
        self.default_task = batch.default_task

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit in steps, or None. ``make`` sets it, and ``oracle_return`` may need it."""
        return self.batch.max_episode_steps

    @max_episode_steps.setter
    def max_episode_steps(self, limit: int | None) -> None:
        self.batch.max_episode_steps = limit

    @property
    def task(self) -> Any:
        """The task of the current episode."""
        return task_tools.unstack_tasks(self.task_space, self.batch.tasks)[0]

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
        observations, info = self.batch.reset(seed=None if seed is None else [seed], options=batch_options)
        return observations[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the episode; it is truncated at ``max_episode_steps``."""
        observations, rewards, terminated, truncated, info = self.batch.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Return a picture of the current state of the episode, ``[height, width, 3]``."""
        raise NotImplementedError(f"{type(self).__name__} must define draw_picture()")

    def render(self) -> Any:
        """Return what ``draw_picture`` returns, or None where ``render_mode`` is None."""
        return self.draw_picture() if self.render_mode == "rgb_array" else None


def _first(info: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what is said of the only sub-environment, as plain numbers and truth values."""
    return {name: values[0].item() for name, values in info.items()}
