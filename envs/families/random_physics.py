"""Walker and hopper whose masses, inertias, friction and damping vary: ``Walker2DParams-v0``, ``HopperParams-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.locomotion import LocomotionEnv, LocomotionVectorEnv
from metarl.envs.families.simulations import load_model, scale_model
from metarl.envs.tasks import take_tasks

BASES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
EXPONENT = 3.0  # a multiplier is its base to the power of U(-EXPONENT, EXPONENT)
WALKER_HEIGHTS = (0.8, 2.0)  # m, of the torso; beyond them it has fallen
WALKER_ANGLE = 1.0  # rad, of the torso
HOPPER_HEIGHT = 0.7  # m
HOPPER_ANGLE = 0.2  # rad
HOPPER_STATE = 100.0  # of angles (rad) and velocities


class RandomPhysicsVectorEnv(LocomotionVectorEnv):
    """Bodies of random physics, rewarded for forward velocity.

    Sub-environments with the same task share one model of MuJoCo.
    """

    frame_skip: ClassVar[int] = 4
    reset_noise: ClassVar[float] = 0.005
    normal_velocities: ClassVar[bool] = False
    speed_limit: ClassVar[float | None] = 10.0
    control_cost: ClassVar[float] = 0.001
    alive: ClassVar[float] = 1.0

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None) -> None:
        model = load_model(self.file)
        self._bases = {name: np.full(getattr(model, name).shape, base) for name, base in BASES.items()}
        self.task_space = spaces.Dict(
            {name: spaces.Box(base**-EXPONENT, base**EXPONENT, dtype=np.float64) for name, base in self._bases.items()}
        )
        self.default_task = {name: np.ones(base.shape) for name, base in self._bases.items()}
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._keys = [_key(self.default_task)] * self.num_envs
        self._models = {_key(self.default_task): self.model}

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw n tasks, field to multipliers ``[task, ...]``: each its base to the power of U(-3, 3)."""
        return {name: base ** rng.uniform(-EXPONENT, EXPONENT, (n, *base.shape)) for name, base in self._bases.items()}

    def start_episodes(self, indices: EnvIndices) -> None:
        """Give each sub-environment the model of its task, and start as the base class does."""
        for index in indices.tolist():
            task = take_tasks(self.tasks, index)
            key = self._keys[index] = _key(task)
            if key not in self._models:
                self._models[key] = scale_model(self.model, task)
            self.simulations.models[index] = self._models[key]
        used = {*self._keys, _key(self.default_task)}
        self._models = {key: model for key, model in self._models.items() if key in used}
        super().start_episodes(indices)

    def progress_rewards(self, velocities: NDArray[np.float64], indices: EnvIndices | slice) -> NDArray[np.float64]:
        """Return the forward velocity."""
        return velocities[:, 0]


def _key(task: dict[str, NDArray[np.float64]]) -> bytes:
    return b"".join(task[name].tobytes() for name in BASES)


class Walker2DParamsVectorEnv(RandomPhysicsVectorEnv):
    """``metarl/Walker2DParams-v0``, batched; the data sheet is in ``Walker2DParamsEnv``."""

    file: ClassVar[str] = "walker2d_v5.xml"

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode)

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return which walkers have fallen: the torso is too low, too high or tilted too far."""
        height, angle = self.simulations.values["qpos"][indices, 1:3].T
        upright: NDArray[np.bool_] = (height > WALKER_HEIGHTS[0]) & (height < WALKER_HEIGHTS[1])
        upright &= np.abs(angle) < WALKER_ANGLE
        return ~upright


class HopperParamsVectorEnv(RandomPhysicsVectorEnv):
    """``metarl/HopperParams-v0``, batched; the data sheet is in ``HopperParamsEnv``."""

    file: ClassVar[str] = "hopper.xml"

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        super().__init__(num_envs, max_episode_steps, render_mode)

    def terminated(self, indices: EnvIndices | slice) -> NDArray[np.bool_]:
        """Return which hoppers have fallen, or move beyond all measure."""
        positions, velocities = (self.simulations.values[name][indices] for name in ("qpos", "qvel"))
        height, angle = positions[:, 1:3].T
        state = np.concatenate([positions[:, 2:], velocities], axis=1)
        upright: NDArray[np.bool_] = (np.abs(state) < HOPPER_STATE).all(axis=1)
        upright &= (height > HOPPER_HEIGHT) & (np.abs(angle) < HOPPER_ANGLE)
        return ~upright


class Walker2DParamsEnv(LocomotionEnv):
    """Walk forwards with a body of unknown physics (``metarl/Walker2DParams-v0``).

    - **What varies** (the task): multipliers of fields of MuJoCo's model, one for each of their entries:
      ``body_mass`` (8), ``body_inertia`` (8 × 3) and ``geom_friction`` (8 × 3) 1.5 to the power of U(-3, 3),
      ``dof_damping`` (9) 1.3 to the power of U(-3, 3); the first body is the world, whose mass is 0. What MuJoCo
      derives from them is computed anew. **Hidden**: none is observed.
    - **Observation**: Gymnasium's Walker2d-v5: positions without x, then velocities clipped to ±10, 17 numbers,
      float64.
    - **Action**: ``Box(-1, 1, (6,))``, clipped to it: the joints' torques.
    - **Reward**: forward velocity (m/s, over the control step of 0.008 s) + 1 - 0.001 × the sum of squared actions, in
      the last step too.
    - **Ends**: terminates with the torso's height outside (0.8, 2) m or its angle outside (-1, 1) rad; truncates after
      200 steps (1.6 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: rand_param_envs, as in Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), which do not
      compute anew what MuJoCo derives. For the default task, multipliers of 1, the physics is Gymnasium's Walker2d-v5.
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 125}  # type: ignore[misc]
    camera: ClassVar[dict[str, Any]] = {"distance": 4.0, "trackbodyid": 2, "elevation": -20.0}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(Walker2DParamsVectorEnv(1, max_episode_steps=None), render_mode)


class HopperParamsEnv(LocomotionEnv):
    """Hop forwards with a body of unknown physics (``metarl/HopperParams-v0``).

    - **What varies** (the task): multipliers of fields of MuJoCo's model, one for each of their entries:
      ``body_mass`` (5), ``body_inertia`` (5 × 3) and ``geom_friction`` (5 × 3) 1.5 to the power of U(-3, 3),
      ``dof_damping`` (6) 1.3 to the power of U(-3, 3); the first body is the world, whose mass is 0. What MuJoCo
      derives from them is computed anew. **Hidden**: none is observed.
    - **Observation**: Gymnasium's Hopper-v5: positions without x, then velocities clipped to ±10, 11 numbers, float64.
    - **Action**: ``Box(-1, 1, (3,))``, clipped to it: the joints' torques.
    - **Reward**: forward velocity (m/s, over the control step of 0.008 s) + 1 - 0.001 × the sum of squared actions, in
      the last step too.
    - **Ends**: terminates with the torso's height not above 0.7 m, its angle outside (-0.2, 0.2) rad, or an angle or
      velocity of 100 and more; truncates after 200 steps (1.6 s).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: rand_param_envs, as in Rothfuss et al. 2019 (ProMP) and Rakelly et al. 2019 (PEARL), which do not
      compute anew what MuJoCo derives. For the default task, multipliers of 1, the physics is Gymnasium's Hopper-v5.
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 125}  # type: ignore[misc]
    camera: ClassVar[dict[str, Any]] = {"distance": 3.0, "trackbodyid": 2, "elevation": -20.0}

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(HopperParamsVectorEnv(1, max_episode_steps=None), render_mode)
