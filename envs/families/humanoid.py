"""A humanoid that has to walk in an unseen direction, ``HumanoidDir-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.goals import Directions
from metarl.envs.families.locomotion import DirectedVectorEnv, LocomotionEnv
from metarl.envs.families.simulations import Read

HEIGHTS = (1.0, 2.0)  # m, of the torso; a humanoid beyond them has fallen
PROGRESS_WEIGHT = 1.25


class HumanoidDirVectorEnv(DirectedVectorEnv):
    """``metarl/HumanoidDir-v0``, batched; the data sheet is in ``HumanoidDirEnv``."""

    file: ClassVar[str] = "humanoid.xml"
    normal_velocities: ClassVar[bool] = False
    reset_noise: ClassVar[float] = 0.01
    hidden: ClassVar[int] = 2
    control_cost: ClassVar[float] = 0.1
    alive: ClassVar[float] = 5.0
    reads: ClassVar[dict[str, Read]] = {
        "mass_centers": lambda data: data.xipos,
        "cinert": lambda data: data.cinert[1:],
        "cvel": lambda data: data.cvel[1:],
        "qfrc_actuator": lambda data: data.qfrc_actuator[6:],
    }
    observed: ClassVar[tuple[str, ...]] = ("cinert", "cvel", "qfrc_actuator")

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode, Directions("any"))

    def body_positions(self, indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return x and y of the centers of mass (m), ``[len(indices), 2]``, as Gymnasium does."""
        masses, centers = self.model.body_mass, self.simulations.values["mass_centers"][indices, :, :2]
        center: NDArray[np.float64] = np.einsum("b,nbj->nj", masses, centers) / masses.sum()
        return center

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return 1.25 times the velocity in the wanted direction."""
        progress: NDArray[np.float64] = PROGRESS_WEIGHT * super().progress_rewards(velocities, indices)
        return progress

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return which humanoids have fallen: the torso is too low or too high."""
        heights = self.simulations.values["qpos"][indices, 2]
        return ~((heights > HEIGHTS[0]) & (heights < HEIGHTS[1]))


class HumanoidDirEnv(LocomotionEnv):
    """Walk upright in a hidden direction (``metarl/HumanoidDir-v0``).

    - **What varies** (the task): the direction, an angle in [0, 2π] rad, uniform. **Hidden**: the observation does not
      show it.
    - **Observation**: Gymnasium's Humanoid-v5 without contact forces: positions without x and y, velocities, inertia
      and velocity of each body and the actuators' forces, 270 numbers, float64.
    - **Action**: ``Box(-1, 1, (17,))``, clipped to it: the joints' torques, a unit is 0.4 (Gymnasium's box is ±0.4).
    - **Reward**: 1.25 × direction · velocity (m/s, of the center of mass, over the control step of 0.015 s) - 0.1 × the
      sum of squared torques + 5, in the last step too.
    - **Ends**: terminates with the torso's height outside (1, 2) m; truncates after 200 steps (3 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Rakelly et al. 2019 (PEARL), without the contact cost; they divide the way of a control step by the
      model's time step, which is the velocity times 5. The physics is Gymnasium's Humanoid-v5.
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 67}  # type: ignore[misc]
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0, "trackbodyid": 1, "elevation": -20.0}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(HumanoidDirVectorEnv(1, max_episode_steps=None), render_mode)
