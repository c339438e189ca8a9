"""2-D navigation: a point that has to find a goal it cannot see.

Each family is a batched environment and, with one sub-environment, a single one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, Rows, SingleFamily
from metarl.envs.drawing import Canvas

STEP_LENGTH = 0.1  # distance per unit of action and step
GOAL_RANGE = 0.5  # goals lie in [-GOAL_RANGE, GOAL_RANGE]^2
GOAL_RADIUS = 0.01  # half side of the box around the goal that ends the episode
POSITION_RANGE = 1000.0  # out of reach in 10,000 steps, so that the space has bounds
VIEW_RANGE = 0.8  # half side of the rendered area


def distance(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean length of offsets ``[..., 2]``."""
    return np.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2)


class Navigation2DVectorEnv(BatchedFamily):
    """``metarl/Navigation2D-v0``, batched in numpy; the data sheet is in ``Navigation2DEnv``."""

    def __init__(self, num_envs: int, max_episode_steps: int | None = 100, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise ValueError("the batched navigation does not render; render the single environment")
        self.single_observation_space = spaces.Box(-POSITION_RANGE, POSITION_RANGE, (2,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.task_space = spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)
        self.default_task = np.array([0.3, 0.4], dtype=np.float32)
        super().__init__(num_envs, max_episode_steps)
        self._positions = np.zeros((self.num_envs, 2))

    def _start(self, rows: Rows) -> None:
        self._positions[rows] = 0.0

    def _move(self, actions: NDArray[Any], rows: Rows | slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        positions = self._positions[rows] + STEP_LENGTH * np.clip(actions.astype(np.float64), -1.0, 1.0)
        self._positions[rows] = positions
        offset = self.tasks[rows].astype(np.float64) - positions
        reached = (np.abs(offset) < GOAL_RADIUS).all(axis=-1)
        return -distance(offset), reached

    def _observe(self) -> NDArray[np.float32]:
        return self._positions.astype(np.float32)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who sees the goal: each coordinate closes its distance as fast as it can.

        The time limit counts; the episode ends when both coordinates are within ``GOAL_RADIUS``.
        """
        remaining = np.abs(np.asarray(task, dtype=np.float64))
        total = 0.0
        steps = 0
        while (remaining >= GOAL_RADIUS).any() or steps == 0:
            remaining = np.maximum(remaining - STEP_LENGTH, 0.0)
            total -= float(distance(remaining))
            steps += 1
            if self.max_episode_steps is not None and steps >= self.max_episode_steps:
                break
        return total


class Navigation2DEnv(SingleFamily):
    """Find an unseen goal in the plane (``metarl/Navigation2D-v0``).

    - **What varies** (the task): the goal, uniform over [-0.5, 0.5]^2. **Hidden**: the observation does not show it.
    - **Observation**: the position, ``Box(-1000, 1000, (2,))``. Episodes start at (0, 0).
    - **Action**: ``Box(-1, 1, (2,))``, clipped to it; a unit moves the point by 0.1 along a coordinate.
    - **Reward**: minus the Euclidean distance to the goal after the move.
    - **Ends**: terminates within 0.01 of the goal in both coordinates; truncates after 100 steps.
    - **Optimum**: -0.51 on average over goals (``oracle_return``).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the point robot of Finn et al. 2017 (MAML), whose actions are scaled in the same way.
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]

    def __init__(self, render_mode: str | None = None) -> None:
        self._batch: Navigation2DVectorEnv
        super().__init__(Navigation2DVectorEnv(1, max_episode_steps=None), render_mode)
        self._path: list[NDArray[np.float32]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode at the origin; see ``SingleFamily.reset``."""
        observation, info = super().reset(seed=seed, options=options)
        self._path = [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the point; see ``SingleFamily.step``."""
        result = super().step(action)
        self._path.append(result[0])
        return result

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who sees the goal; see ``Navigation2DVectorEnv.oracle_return``."""
        return self._batch.oracle_return(task)

    def positions(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the positions that observations ``[..., 2]`` are, for pictures of paths."""
        return observations

    def landmarks(self, task: Any) -> NDArray[Any]:
        """Return the points of a task, ``[1, 2]``: its goal."""
        return np.asarray(task)[None]

    def render(self) -> Any:
        """Draw the path of the episode so far, its start and its goal: an RGB array ``[256, 256, 3]``, uint8."""
        if self.render_mode != "rgb_array":
            return None
        canvas = Canvas(size=256, extent=VIEW_RANGE)
        canvas.disc(self.task, radius=0.03, colour=(214, 69, 65))
        canvas.disc(np.zeros(2), radius=0.015, colour=(120, 120, 120))
        canvas.line(np.stack(self._path), colour=(46, 92, 184))
        return canvas.pixels
