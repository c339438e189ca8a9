"""A car too weak for its hill, of unknown power and gravity, ``MountainCarContinuousParams-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.families.physics import Constant, PhysicsEnv, PhysicsVectorEnv

LOW_POSITION, HIGH_POSITION = -1.2, 0.6  # the car is stopped at the low end; the goal lies before the high end
MAX_SPEED = 0.07  # per step
GOAL_POSITION = 0.45  # only reached going up
GOAL_REWARD = 100.0
ACTION_COST = 0.1  # per squared unit of action and step
LOW_START, HIGH_START = -0.6, -0.4


class MountainCarContinuousParamsVectorEnv(PhysicsVectorEnv):
    """``metarl/MountainCarContinuousParams-v0``, batched in numpy; see ``MountainCarContinuousParamsEnv``."""

    constants: ClassVar = {
        "power": Constant(0.0015, 0.001, 0.002),  # speed gained per step and unit of action
        "gravity": Constant(0.0025, 0.0015, 0.0035),  # speed gained per step on a vertical slope
    }
    variables = 2

    def __init__(self, num_envs: int, max_episode_steps: int | None = 999, render_mode: str | None = None) -> None:
        low = np.array([LOW_POSITION, -MAX_SPEED], dtype=np.float32)
        high = np.array([HIGH_POSITION, MAX_SPEED], dtype=np.float32)
        self.single_observation_space = spaces.Box(low, high, dtype=np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw the position from [-0.6, -0.4]; the velocity is 0."""
        self.state[0, indices] = self.draw_uniform(indices, [LOW_START], [HIGH_START])[0]
        self.state[1, indices] = 0.0

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Push the cars for one step."""
        power, gravity = self.constant_values(indices)
        position, velocity = self.state[:, indices]
        # Round where Gymnasium rounds: it computes in the precision of the actions, and keeps every state but the first
        # in single precision.
        precision = np.result_type(actions, np.float32)
        force = np.clip(actions[:, 0].astype(precision), -1.0, 1.0)
        angle, started = 3 * position, self.elapsed_steps[indices] > 0
        rounded = angle.astype(np.float32).astype(np.float64)
        angle = rounded if started.all() else np.where(started, rounded, angle)
        push = force * power.astype(precision) - (gravity * np.cos(angle)).astype(precision)
        velocity = np.clip((velocity + push).astype(precision), -MAX_SPEED, MAX_SPEED)
        position = np.maximum(position + velocity, LOW_POSITION)
        stopped = position == LOW_POSITION
        if stopped.any():
            velocity[stopped] = np.maximum(velocity[stopped], 0.0)
        self.state[0, indices] = position.astype(np.float32)
        self.state[1, indices] = velocity.astype(np.float32)
        reached = position >= GOAL_POSITION
        return GOAL_REWARD * reached - ACTION_COST * force**2, reached

    def observe(self) -> NDArray[np.float32]:
        """Return positions and velocities, ``[num_envs, 2]``."""
        return self.state.T.astype(np.float32, order="C")


class MountainCarContinuousParamsEnv(PhysicsEnv):
    """Swing a weak car of unknown power up a hill (``metarl/MountainCarContinuousParams-v0``).

    - **What varies** (the task), each uniformly, Gymnasium's value in brackets: ``power`` 0.001 to 0.002 (0.0015),
      ``gravity`` 0.0015 to 0.0035 (0.0025), both in position per squared step. **Hidden**: neither is observed.
    - **Observation**: position and velocity per step, in Gymnasium's ``Box(2,)``. The position starts uniformly in
      [-0.6, -0.4], the velocity is 0.
    - **Action**: ``Box(-1, 1, (1,))``, clipped to it: the force.
    - **Reward**: 100 on reaching the goal, less 0.1 force^2 each step.
    - **Ends**: terminates at position 0.45; truncates after 999 steps.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Gymnasium's MountainCarContinuous-v0 (Moore 1990), to which it is equal for the default task and
      actions in [-1, 1] (Gymnasium charges for what it clips off).
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(MountainCarContinuousParamsVectorEnv(1, max_episode_steps=None), render_mode)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the hill, the goal and the car."""
        middle = (LOW_POSITION + HIGH_POSITION) / 2

        def point(position: Any) -> NDArray[Any]:
            return np.stack([position - middle, 0.45 * np.sin(3 * position) - 0.1], axis=-1)

        canvas = Canvas(size=256, extent=(HIGH_POSITION - LOW_POSITION) / 2)
        canvas.line(point(np.linspace(LOW_POSITION, HIGH_POSITION, 60)), colour=(120, 120, 120))
        goal = point(np.array(GOAL_POSITION))
        canvas.line(np.stack([goal, goal + np.array([0.0, 0.2])]), colour=(214, 69, 65))
        canvas.disc(point(self.state[0]) + np.array([0.0, 0.04]), radius=0.04, colour=(46, 92, 184))
        return canvas.pixels
