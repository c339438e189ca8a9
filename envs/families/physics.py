"""What the classic-control families share: a task is a set of physical constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, Rows, SingleFamily


@dataclass(frozen=True)
class Constant:
    """A physical constant: Gymnasium's value and the range that tasks are drawn from, uniformly."""

    default: float
    low: float
    high: float


class PhysicsVectorEnv(BatchedFamily):
    """A classic-control environment, stepped in batches, in which physical constants vary.

    A subclass names its ``constants``, sets its spaces before calling this constructor and keeps its state in
    ``_state [variable, sub-environment]``. Starts are drawn as Gymnasium draws them: the same seed gives the same.
    """

    task_space: spaces.Dict
    constants: ClassVar[dict[str, Constant]]
    variables: ClassVar[int]

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None) -> None:
        self.task_space = spaces.Dict(
            {name: spaces.Box(c.low, c.high, (), np.float64) for name, c in self.constants.items()}
        )
        self.default_task = {name: np.array(c.default) for name, c in self.constants.items()}
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._state = np.zeros((self.variables, self.num_envs))

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw ``n`` tasks, each constant uniformly; every split is the same distribution."""
        return {name: rng.uniform(constant.low, constant.high, n) for name, constant in self.constants.items()}

    def _uniform(self, rows: Rows, low: Any, high: Any) -> NDArray[np.float64]:
        """Draw numbers between bounds ``[variable]`` for each of the sub-environments, ``[variable, row]``."""
        low, high = np.asarray(low), np.asarray(high)
        drawn: NDArray[np.float64] = low + (high - low) * self._draw(rows, lambda generator: generator.random(len(low)))
        return drawn.T

    def _constants(self, rows: Rows | slice) -> list[NDArray[np.float64]]:
        """Return the constants of the sub-environments, in the order in which they are named."""
        return [self.tasks[name][rows] for name in self.constants]


class PhysicsEnv(SingleFamily):
    """One classic-control environment in which physical constants vary."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}  # type: ignore[misc]

    def __init__(self, batch: PhysicsVectorEnv, render_mode: str | None) -> None:
        self._batch: PhysicsVectorEnv
        super().__init__(batch, render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw ``n`` tasks; every split is the same distribution."""
        return self._batch.sample_tasks(n, rng, split)

    @property
    def state(self) -> NDArray[np.float64]:
        """The state, as Gymnasium's environment of the same name keeps it."""
        return self._batch._state[:, 0].copy()
