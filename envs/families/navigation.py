"""2-D navigation: a point that has to find a goal it cannot see.

What the navigation families share, and ``Navigation2D-v0``; the others are in ``half_circle.py`` and ``corner.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, Rows, SingleFamily
from metarl.envs.families.drawing import Canvas

STEP_LENGTH = 0.1  # distance per unit of action and step
GOAL_RANGE = 0.5  # goals lie in [-GOAL_RANGE, GOAL_RANGE]^2
GOAL_RADIUS = 0.01  # half side of the box around the goal that ends the episode
POSITION_RANGE = 1000.0  # out of reach in 5,000 steps, so that the space has bounds


def distance(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean length of offsets ``[..., 2]``."""
    return np.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2)


def check_reward(reward: str) -> str:
    """Return the name of a reward, ``dense`` or ``sparse``.

    Raises:
        ValueError: it is another.
    """
    if reward not in ("dense", "sparse"):
        raise ValueError(f"reward is {reward!r}; expected 'dense' or 'sparse'")
    return reward


class PointVectorEnv(BatchedFamily):
    """A point in the plane, stepped in batches; a family adds its tasks, goals, start and reward."""

    step_length: ClassVar[float] = STEP_LENGTH

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None) -> None:
        self.single_observation_space = spaces.Box(-POSITION_RANGE, POSITION_RANGE, (2,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._positions = np.zeros((self.num_envs, 2))
        self._goals = np.zeros((self.num_envs, 2))

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the goals ``[..., 2]`` of tasks ``[...]``."""
        raise NotImplementedError

    def _start(self, rows: Rows) -> None:
        self._positions[rows] = 0.0
        self._goals[rows] = self.goals(self.tasks[rows])

    def _move(self, actions: NDArray[Any], rows: Rows | slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        before = self._positions[rows]
        after = before + self.step_length * np.clip(actions.astype(np.float64), -1.0, 1.0)
        result = self._outcome(before, after, self._goals[rows])
        self._positions[rows] = after
        return result

    def _outcome(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the rewards of moves and which of them end the episode."""
        raise NotImplementedError

    def _observe(self) -> NDArray[np.float32]:
        return self._positions.astype(np.float32)

    def _straight(self, offset: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """Return the distances to the goal ``[step, ...]`` after each step straight to it from ``offset [..., 2]``.

        Each coordinate closes as fast as it can, so every one of these distances is the least possible.
        """
        times = np.arange(1, steps + 1).reshape(-1, *[1] * offset.ndim)
        return distance(np.maximum(np.abs(offset) - self.step_length * times, 0.0))


class PointEnv(SingleFamily):
    """One point in the plane, which remembers its path for the picture."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]
    view_range: ClassVar[float] = 0.8  # half side of the rendered area

    def __init__(self, batch: PointVectorEnv, render_mode: str | None) -> None:
        self._batch: PointVectorEnv
        super().__init__(batch, render_mode)
        self._path: list[NDArray[np.float32]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see ``SingleFamily.reset``."""
        observation, info = super().reset(seed=seed, options=options)
        self._path = [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the point; see ``SingleFamily.step``."""
        result = super().step(action)
        self._path.append(result[0])
        return result

    def positions(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the positions that observations ``[..., 2]`` are, for pictures of paths."""
        return observations

    def landmarks(self, task: Any) -> NDArray[Any]:
        """Return the points of a task, ``[1, 2]``: its goal."""
        return self._batch.goals(task)[None]

    def _picture(self) -> NDArray[np.uint8]:
        """Draw the path of the episode so far, its start and its goal."""
        canvas = Canvas(size=256, extent=self.view_range)
        canvas.disc(self._batch.goals(self.task), radius=self.view_range / 27, colour=(214, 69, 65))
        canvas.disc(self._path[0], radius=self.view_range / 54, colour=(120, 120, 120))
        canvas.line(np.stack(self._path), colour=(46, 92, 184))
        return canvas.pixels


class Navigation2DVectorEnv(PointVectorEnv):
    """``metarl/Navigation2D-v0``, batched in numpy; the data sheet is in ``Navigation2DEnv``."""

    def __init__(self, num_envs: int, max_episode_steps: int | None = 100, render_mode: str | None = None) -> None:
        self.task_space = spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)
        self.default_task = np.array([0.3, 0.4], dtype=np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the tasks, which are the goals."""
        return np.asarray(tasks, dtype=np.float64)

    def _outcome(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        offset = goals - after
        near = np.abs(offset) < GOAL_RADIUS
        return -distance(offset), near[:, 0] & near[:, 1]

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who sees the goal: each coordinate closes its distance as fast as it can.

        The time limit counts; the episode ends when both coordinates are within ``GOAL_RADIUS``.
        """
        offset = np.abs(np.asarray(task, dtype=np.float64))
        steps = int(max(1, np.ceil((offset.max() - GOAL_RADIUS) / STEP_LENGTH)))
        return -float(self._straight(offset, min(steps, self.max_episode_steps or steps)).sum())


class Navigation2DEnv(PointEnv):
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

    def __init__(self, render_mode: str | None = None) -> None:
        self._batch: Navigation2DVectorEnv
        super().__init__(Navigation2DVectorEnv(1, max_episode_steps=None), render_mode)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of one who sees the goal; see ``Navigation2DVectorEnv.oracle_return``."""
        return self._batch.oracle_return(task)
