"""An ant that has to walk in an unseen direction, at an unseen speed or to an unseen place: ``Ant*-v0``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.goals import Directions
from metarl.envs.families.locomotion import DirectedVectorEnv, LocomotionEnv, LocomotionVectorEnv, VelocityVectorEnv
from metarl.envs.families.simulations import Read

HEIGHTS = (0.2, 1.0)  # m, of the torso; an ant beyond them has fallen
GOAL_RADIUS = 3.0  # m, of the disc that goals lie in


class AntVectorEnv(LocomotionVectorEnv):
    """Gymnasium's ant in batches, without contact forces; its velocity is the torso's, as Gymnasium measures it."""

    file: ClassVar[str] = "ant.xml"
    hidden: ClassVar[int] = 2
    control_cost: ClassVar[float] = 0.5
    alive: ClassVar[float] = 1.0
    reads: ClassVar[dict[str, Read]] = {"torso": lambda data: data.xpos[1, :2]}

    def body_positions(self, indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return x and y of the torso (m), ``[len(indices), 2]``."""
        return self.simulations.values["torso"][indices].copy()

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return which ants have fallen: the torso is too low or too high."""
        heights = self.simulations.values["qpos"][indices, 2]
        return ~((heights >= HEIGHTS[0]) & (heights <= HEIGHTS[1]))


class AntDirVectorEnv(DirectedVectorEnv, AntVectorEnv):
    """``metarl/AntDir-v0``, batched; the data sheet is in ``AntDirEnv``."""

    def __init__(
        self,
        num_envs: int,
        directions: str = "two",
        max_episode_steps: int | None = 200,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode, Directions(directions))


class AntVelVectorEnv(VelocityVectorEnv, AntVectorEnv):
    """``metarl/AntVel-v0``, batched; the data sheet is in ``AntVelEnv``."""

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Add 1 to minus the difference of speeds."""
        return 1.0 + super().progress_rewards(velocities, indices)


class AntGoalVectorEnv(AntVectorEnv):
    """``metarl/AntGoal-v0``, batched; the data sheet is in ``AntGoalEnv``."""

    hidden: ClassVar[int] = 0
    control_cost: ClassVar[float] = 0.1
    alive: ClassVar[float] = 0.0

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        self.task_space = spaces.Box(-GOAL_RADIUS, GOAL_RADIUS, (2,), np.float64)
        self.default_task = np.array([2.0, 0.0])
        super().__init__(num_envs, max_episode_steps, render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> NDArray[np.float64]:
        """Draw n goals ``[task, 2]``, uniform over the disc by area."""
        return sample_disc(n, rng)

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return minus the distance from the goal along x plus that along y (m)."""
        away: NDArray[np.float64] = np.abs(self.simulations.values["qpos"][indices, :2] - self.tasks[indices]).sum(
            axis=1
        )
        return -away

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return False for each: an ant on its way to a goal may fall."""
        return LocomotionVectorEnv.terminated(self, indices)


def sample_disc(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return n points ``[point, 2]``, uniform by area over the disc of radius ``GOAL_RADIUS``."""
    radii, angles = GOAL_RADIUS * np.sqrt(rng.random(n)), rng.uniform(0.0, 2 * np.pi, n)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


class AntDirEnv(LocomotionEnv):
    """Walk in a hidden direction (``metarl/AntDir-v0``).

    - **What varies** (the task): the direction. With ``directions="two"``, the default, ``Discrete(2)``: 0 along x,
      1 against it. With ``directions="any"`` an angle in [0, 2π] rad, uniform. **Hidden**: the observation does not
      show it.
    - **Observation**: Gymnasium's Ant-v5 without contact forces: positions without x and y, then velocities, 27
      numbers, float64.
    - **Action**: ``Box(-1, 1, (8,))``, clipped to it: the joints' torques.
    - **Reward**: direction · velocity (m/s, of the torso, over the control step of 0.05 s) - 0.5 × the sum of squared
      actions + 1, in the last step too.
    - **Ends**: terminates with the torso's height outside [0.2, 1] m; truncates after 200 steps (10 s).
    - **Splits**: the two directions are all there are, so every split has both, in equal numbers as far as possible;
      of any direction the same distribution with disjoint seeds.
    - **Source**: the reward as in Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), without their contact
      cost; survival counts 1, not the 0.05 of Finn et al. 2017 (MAML). The physics is Gymnasium's Ant-v5.
    - **Versions**: v0, the first.
    """

    def __init__(self, directions: str = "two", render_mode: str | None = None) -> None:
        super().__init__(AntDirVectorEnv(1, directions, max_episode_steps=None), render_mode)


class AntVelEnv(LocomotionEnv):
    """Walk forwards at a hidden speed (``metarl/AntVel-v0``).

    - **What varies** (the task): the speed wanted, uniform over [0, ``max_velocity``] m/s; ``max_velocity`` is 3.
      **Hidden**: the observation does not show it.
    - **Observation**: Gymnasium's Ant-v5 without contact forces: positions without x and y, then velocities, 27
      numbers, float64.
    - **Action**: ``Box(-1, 1, (8,))``, clipped to it: the joints' torques.
    - **Reward**: 1 - |forward velocity - speed wanted| (m/s, of the torso, over the control step of 0.05 s) - 0.5 × the
      sum of squared actions + 1, in the last step too.
    - **Ends**: terminates with the torso's height outside [0.2, 1] m; truncates after 200 steps (10 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the terms of Finn et al. 2017 (MAML) with the costs and the survival reward of ``AntDir-v0``. The
      physics is Gymnasium's Ant-v5.
    - **Versions**: v0, the first.
    """

    def __init__(self, max_velocity: float = 3.0, render_mode: str | None = None) -> None:
        super().__init__(AntVelVectorEnv(1, max_velocity, max_episode_steps=None), render_mode)


class AntGoalEnv(LocomotionEnv):
    """Walk to a hidden place (``metarl/AntGoal-v0``).

    - **What varies** (the task): the goal (x, y) in m, uniform by area over the disc of radius 3 around the start.
      **Hidden**: the observation does not show it.
    - **Observation**: Gymnasium's Ant-v5 without contact forces but with x and y: positions, then velocities, 29
      numbers, float64.
    - **Action**: ``Box(-1, 1, (8,))``, clipped to it: the joints' torques.
    - **Reward**: -(|x - goal's x| + |y - goal's y|) (m, after the step) - 0.1 × the sum of squared actions.
    - **Ends**: never terminates; truncates after 200 steps (10 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), without their contact cost. The physics
      is Gymnasium's Ant-v5.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(AntGoalVectorEnv(1, max_episode_steps=None), render_mode)
