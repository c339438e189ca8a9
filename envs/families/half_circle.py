"""2-D navigation to a goal on the half circle, ``HalfCircleNavigation2D-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.families.navigation import PointEnv, PointVectorEnv, check_reward, distance

RADIUS = 1.0  # of the half circle around the start on which goals lie
REWARD_RADIUS = 0.2  # distance to the goal within which the sparse reward is paid


class HalfCircleNavigation2DVectorEnv(PointVectorEnv):
    """``metarl/HalfCircleNavigation2D-v0``, batched in numpy; the data sheet is in ``HalfCircleNavigation2DEnv``."""

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = 20,
        render_mode: str | None = None,
        reward: str = "dense",
    ) -> None:
        self.task_space: spaces.Box = spaces.Box(0.0, np.pi, (), np.float32)
        self.default_task = np.array(np.pi / 2, dtype=np.float32)
        self._sparse = check_reward(reward) == "sparse"
        super().__init__(num_envs, max_episode_steps, render_mode)

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the goals ``[..., 2]`` at the angles ``[...]``."""
        angles = np.asarray(tasks, dtype=np.float64)
        return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    def _rewards(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._sparse:
            return np.where(distances <= REWARD_RADIUS, 1.0 - distances, 0.0)
        return -distances

    def outcomes(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the rewards of moves; none ends the episode."""
        return self._rewards(distance(goals - after)), np.zeros(len(after), dtype=np.bool_)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of an agent that knows the goal and goes straight to it."""
        return float(self._rewards(self.straight_distances(self.goals(task), self.horizon())).sum())

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return angles ``[task]``, each reflected in the vertical axis, or not, at random.

        Done to positions and actions too, this changes no reward beyond rounding.
        """
        angles = np.asarray(tasks)
        other = np.clip(np.pi - angles, self.task_space.low, self.task_space.high)
        return np.where(rng.random(len(angles)) < 0.5, other, angles).astype(angles.dtype)


class HalfCircleNavigation2DEnv(PointEnv):
    """Find an unseen goal on the half circle (``metarl/HalfCircleNavigation2D-v0``).

    - **What varies** (the task): the angle of the goal on the unit half circle, uniform over [0, pi] radians.
      **Hidden**: the observation does not show it.
    - **Observation**: the position, ``Box(-1000, 1000, (2,))``. Episodes start at (0, 0).
    - **Action**: ``Box(-1, 1, (2,))``, clipped to it; a unit moves the point by 0.1 along a coordinate.
    - **Reward**, d being the Euclidean distance to the goal after the move: ``reward="dense"`` (the default) -d;
      ``reward="sparse"`` 1 - d where d <= 0.2, else 0.
    - **Ends**: never terminates; truncates after 20 steps.
    - **Optimum**: ``oracle_return``, for both rewards.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the sparse point robot of Rakelly et al. 2019 (PEARL), who train with the dense reward and evaluate
      with the sparse one; Zintgraf et al. 2020 (VariBAD) train with the sparse one, over 100 steps.
    - **Versions**: v0, the first.
    """

    view_range: ClassVar[float] = 1.3

    def __init__(self, render_mode: str | None = None, reward: str = "dense") -> None:
        self.batch: HalfCircleNavigation2DVectorEnv
        super().__init__(HalfCircleNavigation2DVectorEnv(1, max_episode_steps=None, reward=reward), render_mode)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of an agent that knows the goal; see the batched class."""
        return self.batch.oracle_return(task)

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return angles, each reflected or not, at random; see the batched class."""
        return self.batch.mirror_tasks(tasks, rng)
