"""2-D navigation to one of four corners, ``CornerNavigation2D-v0``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.navigation import PointEnv, PointVectorEnv, check_reward, distance

CORNERS = np.array([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
START_RANGE = 0.2  # episodes start in [-START_RANGE, START_RANGE]^2
SILENT_RADIUS = 0.5  # L1 norm of the position below which the sparse reward is 0


class CornerNavigation2DVectorEnv(PointVectorEnv):
    """``metarl/CornerNavigation2D-v0``, batched in numpy; the data sheet is in ``CornerNavigation2DEnv``."""

    step_length: ClassVar[float] = 0.2
    splits_share_tasks = True
    oracle_return: Callable[[Any], float] | None

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = 100,
        render_mode: str | None = None,
        reward: str = "dense",
    ) -> None:
        self.task_space = spaces.Discrete(len(CORNERS))
        self.default_task = np.int64(0)
        self._sparse = check_reward(reward) == "sparse"
        self.oracle_return = None if self._sparse else self._dense_oracle
        super().__init__(num_envs, max_episode_steps, render_mode)

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the corners ``[..., 2]`` of the tasks ``[...]``."""
        corners: NDArray[np.float64] = CORNERS[tasks]
        return corners

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw the position uniformly from [-0.2, 0.2]^2."""
        super().start_episodes(indices)
        self.locations[indices] = START_RANGE * (2.0 * self.streams.uniform(indices, 2) - 1.0)

    def outcomes(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the rewards of moves; none ends the episode."""
        never = np.zeros(len(after), dtype=np.bool_)
        left = distance(goals - after)
        if not self._sparse:
            return -left, never
        silent = np.abs(after).sum(axis=-1) < SILENT_RADIUS
        beside = after * goals >= 0.0
        nearest = beside[:, 0] & beside[:, 1]
        return np.where(~silent & nearest, distance(goals - before) - left, 0.0), never

    def _dense_oracle(self, task: Any) -> float:
        """Return the best expected return of an agent that goes straight to the goal, on average over starts."""
        nodes, weights = np.polynomial.legendre.leggauss(16)
        starts = START_RANGE * np.stack(np.meshgrid(nodes, nodes), axis=-1)
        returns = -self.straight_distances(self.goals(task) - starts, self.horizon()).sum(axis=0)
        return float(weights @ returns @ weights / 4.0)


class CornerNavigation2DEnv(PointEnv):
    """Find the right one of four corners (``metarl/CornerNavigation2D-v0``).

    - **What varies** (the task): the goal's corner, uniform over 0: (2, 2), 1: (-2, 2), 2: (-2, -2), 3: (2, -2).
      **Hidden**: the observation does not show it.
    - **Observation**: the position, ``Box(-1000, 1000, (2,))``. Episodes start uniformly in [-0.2, 0.2]^2.
    - **Action**: ``Box(-1, 1, (2,))``, clipped to it; a unit moves the point by 0.2 along a coordinate.
    - **Reward**: ``reward="dense"`` (the default) minus the Euclidean distance to the goal after the move;
      ``reward="sparse"`` the decrease of that distance, but 0 where the L1 norm of the position after the move is
      under 0.5, or another corner than the goal's is the nearest to it.
    - **Ends**: never terminates; truncates after 100 steps.
    - **Optimum**: ``oracle_return`` for the dense reward. There is none for the sparse one: going away where another
      corner is the nearest costs nothing, and coming back from further off is paid.
    - **Splits**: all the same four tasks.
    - **Source**: the point mass of Rothfuss et al. 2019 (ProMP), whose default is the sparse reward.
    - **Versions**: v0, the first.
    """

    view_range: ClassVar[float] = 3.0
    splits_share_tasks = True

    def __init__(self, render_mode: str | None = None, reward: str = "dense") -> None:
        self.batch: CornerNavigation2DVectorEnv
        super().__init__(CornerNavigation2DVectorEnv(1, max_episode_steps=None, reward=reward), render_mode)
        self.oracle_return = self.batch.oracle_return
