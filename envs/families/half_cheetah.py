"""A half cheetah that has to run in an unseen direction or at an unseen speed, ``HalfCheetahDir`` and ``-Vel``."""

from __future__ import annotations

from typing import ClassVar

from metarl.envs.families.goals import Directions
from metarl.envs.families.locomotion import DirectedVectorEnv, LocomotionEnv, LocomotionVectorEnv, VelocityVectorEnv


class HalfCheetahVectorEnv(LocomotionVectorEnv):
    """Gymnasium's half cheetah in batches."""

    file: ClassVar[str] = "half_cheetah.xml"
    control_cost: ClassVar[float] = 0.05


class HalfCheetahDirVectorEnv(DirectedVectorEnv, HalfCheetahVectorEnv):
    """``metarl/HalfCheetahDir-v0``, batched; the data sheet is in ``HalfCheetahDirEnv``."""

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode, Directions("two"))


class HalfCheetahVelVectorEnv(VelocityVectorEnv, HalfCheetahVectorEnv):
    """``metarl/HalfCheetahVel-v0``, batched; the data sheet is in ``HalfCheetahVelEnv``."""


class HalfCheetahDirEnv(LocomotionEnv):
    """Run forwards or backwards, which one is hidden (``metarl/HalfCheetahDir-v0``).

    - **What varies** (the task): the direction, ``Discrete(2)``: 0 forwards, 1 backwards. **Hidden**: the observation
      does not show it.
    - **Observation**: Gymnasium's HalfCheetah-v5: positions without x, then velocities, 17 numbers, float64.
    - **Action**: ``Box(-1, 1, (6,))``, clipped to it: the joints' torques.
    - **Reward**: direction × forward velocity (m/s, over the control step of 0.05 s) - 0.05 × the sum of squared
      actions.
    - **Ends**: never terminates; truncates after 200 steps (10 s).
    - **Splits**: the two tasks are all there are, so every split has both, in equal numbers as far as possible.
    - **Source**: the reward as in Finn et al. 2017 (MAML), Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019
      (PEARL); the physics is Gymnasium's HalfCheetah-v5. MAML's own physics steps 0.01 s, so its returns are others.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(HalfCheetahDirVectorEnv(1, max_episode_steps=None), render_mode)


class HalfCheetahVelEnv(LocomotionEnv):
    """Run forwards at a hidden speed (``metarl/HalfCheetahVel-v0``).

    - **What varies** (the task): the speed wanted, uniform over [0, ``max_velocity``] m/s; ``max_velocity`` is 3, as in
      ProMP, PEARL and VariBAD; 2 is MAML's range. **Hidden**: the observation does not show it.
    - **Observation**: Gymnasium's HalfCheetah-v5: positions without x, then velocities, 17 numbers, float64.
    - **Action**: ``Box(-1, 1, (6,))``, clipped to it: the joints' torques.
    - **Reward**: -|forward velocity - speed wanted| (m/s, over the control step of 0.05 s) - 0.05 × the sum of squared
      actions.
    - **Ends**: never terminates; truncates after 200 steps (10 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the reward as in Finn et al. 2017 (MAML) and Rakelly et al. 2019 (PEARL); the physics is Gymnasium's
      HalfCheetah-v5.
    - **Versions**: v0, the first.
    """

    def __init__(self, max_velocity: float = 3.0, render_mode: str | None = None) -> None:
        super().__init__(HalfCheetahVelVectorEnv(1, max_velocity, max_episode_steps=None), render_mode)
