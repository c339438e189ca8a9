"""A pendulum whose physical constants vary, ``PendulumParams-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.families.physics import Constant, PhysicsEnv, PhysicsVectorEnv

TIME_STEP = 0.05  # s
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m, per unit of action
START_RANGE = np.array([np.pi, 1.0])  # of angle (rad) and angular velocity (rad/s)


class PendulumParamsVectorEnv(PhysicsVectorEnv):
    """``metarl/PendulumParams-v0``, batched in numpy; the data sheet is in ``PendulumParamsEnv``."""

    constants: ClassVar = {
        "g": Constant(10.0, 5.0, 15.0),  # m/s^2
        "m": Constant(1.0, 0.5, 1.5),  # kg
        "l": Constant(1.0, 0.5, 1.5),  # m
    }
    variables = 2

    def __init__(self, num_envs: int, max_episode_steps: int | None = 200, render_mode: str | None = None) -> None:
        high = np.array([1.0, 1.0, MAX_SPEED], dtype=np.float32)
        self.single_observation_space = spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw the angle from [-pi, pi] and the velocity from [-1, 1]."""
        self.state[:, indices] = self.draw_uniform(indices, -START_RANGE, START_RANGE)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Apply the torques for one time step."""
        g, m, l = self.constant_values(indices)  # noqa: E741 Gymnasium's names
        theta, theta_dot = self.state[:, indices]
        torque = MAX_TORQUE * np.clip(actions[:, 0], -1.0, 1.0)
        # As Gymnasium does it, in the precision of the actions.
        control = (3.0 / (m * l**2)).astype(torque.dtype) * torque
        lean = (theta + np.pi) % (2 * np.pi) - np.pi
        cost = lean**2 + 0.1 * theta_dot**2 + 0.001 * torque**2
        acceleration = 3 * g / (2 * l) * np.sin(theta) + control
        theta_dot = np.clip(theta_dot + acceleration * TIME_STEP, -MAX_SPEED, MAX_SPEED)
        self.state[:, indices] = theta + theta_dot * TIME_STEP, theta_dot
        return -cost, np.zeros(len(cost), dtype=np.bool_)

    def observe(self) -> NDArray[np.float32]:
        """Return cosine and sine of the angle and the velocity, ``[num_envs, 3]``."""
        theta, theta_dot = self.state
        return np.stack([np.cos(theta), np.sin(theta), theta_dot], axis=1).astype(np.float32)


class PendulumParamsEnv(PhysicsEnv):
    """Swing up and hold a pendulum of unknown physics (``metarl/PendulumParams-v0``).

    - **What varies** (the task), each uniformly, Gymnasium's value in brackets: gravity ``g`` 5 to 15 m/s^2 (10), mass
      ``m`` 0.5 to 1.5 kg (1), length ``l`` 0.5 to 1.5 m (1). **Hidden**: none is observed.
    - **Observation**: cosine and sine of the angle, 0 being upright, and the angular velocity (rad/s),
      ``Box(3,)``. The angle starts uniformly in [-pi, pi], the velocity in [-1, 1].
    - **Action**: ``Box(-1, 1, (1,))``, clipped to it; a unit is a torque of 2 N m (Gymnasium's box is [-2, 2] N m).
    - **Reward**: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) before the step, the angle within [-pi, pi].
    - **Ends**: never terminates; truncates after 200 steps.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Gymnasium's Pendulum-v1, to which it is equal for the default task.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(PendulumParamsVectorEnv(1, max_episode_steps=None), render_mode)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the pivot and the rod."""
        theta, length = self.state[0], float(self.task["l"])
        canvas = Canvas(size=256, extent=1.8)
        end = length * np.array([-np.sin(theta), np.cos(theta)])
        canvas.line(np.stack([np.zeros(2), end]), colour=(214, 69, 65))
        canvas.disc(end, radius=0.12, colour=(214, 69, 65))
        canvas.disc(np.zeros(2), radius=0.05, colour=(60, 60, 60))
        return canvas.pixels
