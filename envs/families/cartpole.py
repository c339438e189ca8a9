"""A pole on a cart whose physical constants vary, ``CartPoleParams-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.families.physics import Constant, PhysicsEnv, PhysicsVectorEnv

TIME_STEP = 0.02  # s
POSITION_LIMIT = 2.4  # m, beyond which the episode ends
ANGLE_LIMIT = 12 * 2 * np.pi / 360  # rad, beyond which the episode ends
START_RANGE = 0.05  # each variable of the state starts in [-START_RANGE, START_RANGE]


class CartPoleParamsVectorEnv(PhysicsVectorEnv):
    """``metarl/CartPoleParams-v0``, batched in numpy; the data sheet is in ``CartPoleParamsEnv``."""

    constants: ClassVar = {
        "gravity": Constant(9.8, 4.9, 19.6),  # m/s^2
        "masscart": Constant(1.0, 0.5, 2.0),  # kg
        "masspole": Constant(0.1, 0.05, 0.5),  # kg
        "length": Constant(0.5, 0.25, 1.0),  # m, half the pole's
        "force_mag": Constant(10.0, 5.0, 20.0),  # N
    }
    variables = 4

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = 500,
        render_mode: str | None = None,
        polarity: str = "normal",
    ) -> None:
        if polarity not in ("normal", "either"):
            raise ValueError(f"polarity is {polarity!r}; expected 'normal' or 'either'")
        self._either = polarity == "either"
        high = np.array([2 * POSITION_LIMIT, np.inf, 2 * ANGLE_LIMIT, np.inf], dtype=np.float32)
        self.single_observation_space = spaces.Box(-high, high, dtype=np.float32)
        self.single_action_space = spaces.Discrete(2)
        super().__init__(num_envs, max_episode_steps, render_mode)
        if self._either:
            most = self.constants["force_mag"].high
            self.task_space["force_mag"] = spaces.Box(-most, most, (), np.float64)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float64]]:
        """Draw ``n`` tasks, each constant uniformly and the force's sign by a coin; every split is the same."""
        tasks = super().sample_tasks(n, rng, split)
        if self._either:
            tasks["force_mag"] *= rng.choice([-1.0, 1.0], n)
        return tasks

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw each variable of the state from [-0.05, 0.05]."""
        self.state[:, indices] = self.draw_uniform(indices, [-START_RANGE] * 4, [START_RANGE] * 4)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Push the carts for one time step (Euler's method)."""
        gravity, masscart, masspole, length, force_mag = self.constant_values(indices)
        x, x_dot, theta, theta_dot = self.state[:, indices]
        total_mass = masspole + masscart
        polemass_length = masspole * length
        force = np.where(actions == 1, force_mag, -force_mag)
        cos, sin = np.cos(theta), np.sin(theta)
        push = (force + polemass_length * np.square(theta_dot) * sin) / total_mass
        theta_acc = (gravity * sin - cos * push) / (length * (4.0 / 3.0 - masspole * np.square(cos) / total_mass))
        x_acc = push - polemass_length * theta_acc * cos / total_mass
        x, theta = x + TIME_STEP * x_dot, theta + TIME_STEP * theta_dot
        state = np.stack([x, x_dot + TIME_STEP * x_acc, theta, theta_dot + TIME_STEP * theta_acc])
        self.state[:, indices] = state
        return np.ones(len(x)), (np.abs(x) > POSITION_LIMIT) | (np.abs(theta) > ANGLE_LIMIT)

    def observe(self) -> NDArray[np.float32]:
        """Return the states, ``[num_envs, 4]``."""
        return self.state.T.astype(np.float32, order="C")


class CartPoleParamsEnv(PhysicsEnv):
    """Balance a pole on a cart of unknown physics (``metarl/CartPoleParams-v0``).

    - **What varies** (the task), each uniformly, Gymnasium's value in brackets: ``gravity`` 4.9 to 19.6 m/s^2 (9.8),
      ``masscart`` 0.5 to 2 kg (1), ``masspole`` 0.05 to 0.5 kg (0.1), ``length``, half the pole's, 0.25 to 1 m (0.5),
      ``force_mag`` 5 to 20 N (10). The total mass and the pole's moment follow. **Hidden**: none is observed.
      For all of these one policy does without adapting. With ``polarity="either"`` (the default is ``"normal"``) the
      motor of every other cart is connected the wrong way round, a negative ``force_mag``, and it takes adaptation.
    - **Observation**: position (m), velocity (m/s), angle (rad) and angular velocity (rad/s), in Gymnasium's
      ``Box(4,)``. Each starts uniformly in [-0.05, 0.05].
    - **Action**: ``Discrete(2)``: 0 pushes to the left, 1 to the right.
    - **Reward**: 1 for every step, the last included.
    - **Ends**: terminates when the cart is further than 2.4 m from the middle, or the pole leans more than 12 degrees;
      truncates after 500 steps.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Gymnasium's CartPole-v1 (Barto, Sutton and Anderson 1983), to which it is equal for the default task.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None, polarity: str = "normal") -> None:
        super().__init__(CartPoleParamsVectorEnv(1, max_episode_steps=None, polarity=polarity), render_mode)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw track, cart and pole."""
        x, _, theta, _ = self.state
        length = 2.0 * float(self.task["length"])
        canvas = Canvas(size=256, extent=POSITION_LIMIT)
        canvas.line(np.array([[-POSITION_LIMIT, -1.0], [POSITION_LIMIT, -1.0]]), colour=(120, 120, 120))
        canvas.box((x - 0.25, -1.1), (x + 0.25, -0.9), colour=(60, 60, 60))
        pole = np.array([[x, -0.9], [x + length * np.sin(theta), -0.9 + length * np.cos(theta)]])
        canvas.line(pole, colour=(214, 69, 65))
        return canvas.pixels
