"""What the classic-control families share: their tasks are sets of physical constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.single import SingleFamily


@dataclass(frozen=True)
class Constant:
    """A physical constant: Gymnasium's value, and the ends of the range from which tasks draw it uniformly."""

    default: float
    low: float
    high: float


class PhysicsVectorEnv(BatchedFamily):
    """A classic-control environment, stepped in batches, in which physical constants vary.

    A subclass names its ``constants`` and the number of ``variables`` of its state, and sets its spaces before it calls
    this constructor. It keeps the state in ``state [variable, num_envs]``. Episodes start from the same state as
    Gymnasium's for the same seed.
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
        self.state = np.zeros((self.variables, self.num_envs))

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw ``n`` tasks, each constant uniformly; every split is the same distribution."""
        return {name: rng.uniform(constant.low, constant.high, n) for name, constant in self.constants.items()}

    def draw_uniform(self, indices: EnvIndices, low: Any, high: Any) -> NDArray[np.float64]:
        """Draw numbers from each sub-environment's generator, uniformly between ``low`` and ``high``.

        Args:
            indices: the numbers of the sub-environments.
            low: the lower ends, ``[variable]``.
            high: the upper ends, ``[variable]``.

        Returns:
            ``[variable, len(indices)]``.
        """
        low, high = np.asarray(low), np.asarray(high)
        drawn: NDArray[np.float64] = low + (high - low) * self.draw_each(
            indices, lambda generator: generator.random(len(low))
        )
        return drawn.T

    def constant_values(self, indices: EnvIndices | slice) -> list[NDArray[np.float64]]:
        """Return one array ``[len(indices)]`` for each constant, in the order of ``constants``: the tasks' values."""
        return [self.tasks[name][indices] for name in self.constants]


class PhysicsEnv(SingleFamily):
    """One classic-control environment in which physical constants vary."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}  # type: ignore[misc]

    def __init__(self, batch: PhysicsVectorEnv, render_mode: str | None) -> None:
        self.batch: PhysicsVectorEnv
        super().__init__(batch, render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw ``n`` tasks; every split is the same distribution."""
        return self.batch.sample_tasks(n, rng, split)

    @property
    def state(self) -> NDArray[np.float64]:
        """The state ``[variable]``, in the order in which Gymnasium's environment of this name keeps it."""
        return self.batch.state[:, 0].copy()
