"""A two-link pendulum whose physical constants vary, ``AcrobotParams-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.families.physics import Constant, PhysicsEnv, PhysicsVectorEnv

TIME_STEP = 0.2  # s
LINK_LENGTH = 1.0  # m, of each link
MAX_SPEED_1, MAX_SPEED_2 = 4 * np.pi, 9 * np.pi  # rad/s
GOAL_HEIGHT = 1.0  # m above the pivot
START_RANGE = 0.1  # each variable of the state starts in [-START_RANGE, START_RANGE]


def wrap(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles (rad) in [-pi, pi]; whole turns are subtracted one by one, so rounding is as in Gymnasium."""
    while (over := angle > np.pi).any():
        angle = np.where(over, angle - 2 * np.pi, angle)
    while (under := angle < -np.pi).any():
        angle = np.where(under, angle + 2 * np.pi, angle)
    return angle


class AcrobotParamsVectorEnv(PhysicsVectorEnv):
    """``metarl/AcrobotParams-v0``, batched in numpy; the data sheet is in ``AcrobotParamsEnv``."""

    constants: ClassVar = {
        "gravity": Constant(9.8, 4.9, 14.7),  # m/s^2
        "link_mass_1": Constant(1.0, 0.5, 1.5),  # kg
        "link_mass_2": Constant(1.0, 0.5, 1.5),  # kg
        "link_com_pos_1": Constant(0.5, 0.25, 0.75),  # m, the centre of mass along the link
        "link_com_pos_2": Constant(0.5, 0.25, 0.75),  # m
        "link_moi": Constant(1.0, 0.5, 1.5),  # kg m^2, of each link
    }
    variables = 4

    def __init__(self, num_envs: int, max_episode_steps: int | None = 500, render_mode: str | None = None) -> None:
        high = np.array([1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2], dtype=np.float32)
        self.single_observation_space = spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = spaces.Discrete(3)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw both angles and both velocities from [-0.1, 0.1]."""
        state = self.draw_uniform(indices, [-START_RANGE] * 4, [START_RANGE] * 4)
        # Gymnasium keeps the first state in single precision.
        self.state[:, indices] = state.astype(np.float32)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Integrate the motion over one time step (fourth-order Runge-Kutta)."""
        constants = self.constant_values(indices)
        torque = actions - 1.0
        state = np.ascontiguousarray(self.state[:, indices])
        half = TIME_STEP / 2.0
        k1 = derivative(state, torque, *constants)
        k2 = derivative(state + half * k1, torque, *constants)
        k3 = derivative(state + half * k2, torque, *constants)
        k4 = derivative(state + TIME_STEP * k3, torque, *constants)
        theta_1, theta_2, speed_1, speed_2 = state + TIME_STEP / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        theta_1, theta_2 = wrap(theta_1), wrap(theta_2)
        self.state[0, indices] = theta_1
        self.state[1, indices] = theta_2
        self.state[2, indices] = np.clip(speed_1, -MAX_SPEED_1, MAX_SPEED_1)
        self.state[3, indices] = np.clip(speed_2, -MAX_SPEED_2, MAX_SPEED_2)
        reached = -np.cos(theta_1) - np.cos(theta_2 + theta_1) > GOAL_HEIGHT
        return np.where(reached, 0.0, -1.0), reached

    def observe(self) -> NDArray[np.float32]:
        """Return cosine and sine of each angle and the velocities, ``[num_envs, 6]``."""
        theta_1, theta_2, speed_1, speed_2 = self.state
        columns = [np.cos(theta_1), np.sin(theta_1), np.cos(theta_2), np.sin(theta_2), speed_1, speed_2]
        return np.stack(columns, axis=1).astype(np.float32)


def derivative(
    state: NDArray[np.float64],
    torque: NDArray[np.float64],
    g: NDArray[np.float64],
    m1: NDArray[np.float64],
    m2: NDArray[np.float64],
    lc1: NDArray[np.float64],
    lc2: NDArray[np.float64],
    moi: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the time derivative of states ``[4, sub-environment]``: two angles (rad) and their velocities (rad/s).

    Args:
        state: the first angle is 0 where its link hangs; the second is relative to the first link.
        torque: on the joint between the links (N m).
        g: gravity (m/s^2).
        m1: mass of the first link (kg).
        m2: mass of the second link.
        lc1: distance of the first link's centre of mass from its joint (m).
        lc2: that of the second.
        moi: moment of inertia of each link (kg m^2).

    Source: Sutton and Barto 2018, chapter 11; the order of the operations is Gymnasium's.
    """
    l1 = LINK_LENGTH
    theta_1, theta_2, speed_1, speed_2 = state
    cos_2, sin_2 = np.cos(theta_2), np.sin(theta_2)
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * cos_2) + moi + moi
    d2 = m2 * (lc2**2 + l1 * lc2 * cos_2) + moi
    phi2 = m2 * lc2 * g * np.cos(theta_1 + theta_2 - np.pi / 2.0)
    phi1 = (
        -m2 * l1 * lc2 * speed_2**2 * sin_2
        - 2 * m2 * l1 * lc2 * speed_2 * speed_1 * sin_2
        + (m1 * lc1 + m2 * l1) * g * np.cos(theta_1 - np.pi / 2)
        + phi2
    )
    acc_2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * speed_1**2 * sin_2 - phi2) / (m2 * lc2**2 + moi - d2**2 / d1)
    acc_1 = -(d2 * acc_2 + phi1) / d1
    return np.stack([speed_1, speed_2, acc_1, acc_2])


class AcrobotParamsEnv(PhysicsEnv):
    """Swing the tip of a two-link pendulum of unknown physics up (``metarl/AcrobotParams-v0``).

    - **What varies** (the task), each uniformly, Gymnasium's value in brackets: ``gravity`` 4.9 to 14.7 m/s^2 (9.8),
      ``link_mass_1`` and ``link_mass_2`` 0.5 to 1.5 kg (1), the positions of the links' centres of mass
      ``link_com_pos_1`` and ``link_com_pos_2`` 0.25 to 0.75 m (0.5), the links' moment of inertia ``link_moi`` 0.5 to
      1.5 kg m^2 (1). Both links are 1 m long. **Hidden**: none is observed.
    - **Observation**: cosine and sine of the first angle, 0 where the link hangs, and of the second, relative to the
      first; the two angular velocities (rad/s), ``Box(6,)``. Each variable starts uniformly in [-0.1, 0.1].
    - **Action**: ``Discrete(3)``: a torque of -1, 0 or 1 N m on the joint between the links.
    - **Reward**: -1 for every step but the one that reaches the goal.
    - **Ends**: terminates when the tip is more than 1 m above the pivot; truncates after 500 steps.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Gymnasium's Acrobot-v1 (Sutton 1996), to which it is equal for the default task.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(AcrobotParamsVectorEnv(1, max_episode_steps=None), render_mode)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the height to reach and the two links."""
        theta_1, theta_2, _, _ = self.state
        elbow = LINK_LENGTH * np.array([np.sin(theta_1), -np.cos(theta_1)])
        tip = elbow + LINK_LENGTH * np.array([np.sin(theta_1 + theta_2), -np.cos(theta_1 + theta_2)])
        canvas = Canvas(size=256, extent=2.2)
        canvas.line(np.array([[-2.2, GOAL_HEIGHT], [2.2, GOAL_HEIGHT]]), colour=(120, 120, 120))
        canvas.line(np.stack([np.zeros(2), elbow, tip]), colour=(46, 92, 184))
        for joint in (np.zeros(2), elbow):
            canvas.disc(joint, radius=0.08, colour=(60, 60, 60))
        return canvas.pixels
