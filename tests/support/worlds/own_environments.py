"""Environments as people write them, who know nothing of metarl."""

import time
from dataclasses import dataclass
from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class Frozen:
    """Physics that cannot be changed, only replaced."""

    mass: float = 1.0


SHARED = {"drag": [0.1, 0.2]}


class Cart(gymnasium.Env):
    """A cart in one dimension: no render_mode, no time limit, parameters wherever people keep them."""

    table = {"friction": 0.0}  # noqa: RUF012  (shared by all of them, as people write it)

    def __init__(self, size=10.0):
        self.observation_space = spaces.Box(-size, size, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.params = {"mass": 1.0, "motor": {"gain": 1.0}}
        self.physics = SimpleNamespace(mass=1.0)
        self.frozen = Frozen()
        self.wind = np.zeros(2)
        self.pair = (1.0, 2.0)
        self.gears = np.array([1, 2])
        self.cfg = SHARED
        self.power = 1.0
        self._twice = 2.0 * self.power
        self.overwritten = 1.0
        self.unused = 1.0
        self.x = np.zeros(2, np.float32)

    def set_mass(self, mass):
        self.params["mass"] = mass

    def recompute(self):
        self._twice = 2.0 * self.power

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.overwritten = 1.0
        self.x = self.np_random.uniform(-0.1, 0.1, 2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        push = float(action[0]) * self._twice * self.params["motor"]["gain"] * self.gears[0] + self.wind[0]
        push += self.cfg["drag"][1] + self.table["friction"] + self.pair[1] + self.overwritten
        self.x[1] = 0.9 * self.x[1] + 0.1 * push / (self.params["mass"] * self.frozen.mass * self.physics.mass)
        self.x[0] += 0.1 * self.x[1]
        self.x = np.clip(self.x, self.observation_space.low, self.observation_space.high)
        return self.x.copy(), -abs(float(self.x[0])), False, False, {}


class Slow(Cart):
    """A cart that is slow to step, so that several processes pay."""

    def step(self, action):
        time.sleep(0.002)
        return super().step(action)


class Needs(Cart):
    """A cart whose constructor must be told the mass."""

    def __init__(self, mass):
        super().__init__()
        self.params["mass"] = mass


class Gain(gymnasium.Wrapper):
    """A wrapper with a parameter of its own."""

    def __init__(self, env, gain=1.0):
        super().__init__(env)
        self.gain = gain

    def step(self, action):
        return self.env.step(self.gain * action)


def make_limited_cart():
    """Return a cart in a wrapper, with a time limit."""
    return gymnasium.wrappers.TimeLimit(Gain(Cart()), 15)


def set_motor(env, value):
    """Set the motor's gain."""
    env.params["motor"]["gain"] = value


class Endless(Cart):
    """A cart with a task space, whose episodes never end."""

    task_space = spaces.Box(0.5, 2.0, (), np.float64)

    def reset(self, *, seed=None, options=None):
        if options and "task" in options:
            self.params["mass"] = float(options["task"])
        return super().reset(seed=seed)


class Deaf(Endless):
    """It has tasks but does not listen."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


class Broken(Endless):
    """Its rewards are not numbers after three steps."""

    steps = 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.steps += 1
        observation, reward, *rest = super().step(action)
        return observation, float("nan") if self.steps == 3 else reward, *rest


class SeldomBroken(Endless):
    """In one of eight episodes a reward is not a number."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        self.broken = self.np_random.random() < 1 / 8
        return observation, info

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, float("nan") if self.broken else reward, *rest


class Wearing(Cart):
    """A cart whose mass, an argument of its constructor, grows while it is stepped."""

    def __init__(self, mass=1.0):
        super().__init__()
        self.mass = mass

    def step(self, action):
        self.params["mass"] = self.mass
        self.mass *= 1.2
        return super().step(action)


class Clipping(Cart):
    """A cart that takes masses up to 1.5 only."""

    heavy = 1.0

    @property
    def load(self):
        return self.heavy

    @load.setter
    def load(self, value):
        self.heavy = min(value, 1.5)


class Classy(Cart):
    """A cart that keeps its motor on its class."""

    gain = 1.0

    def set_gain(self, value):
        Classy.gain = value

    def step(self, action):
        self.params["motor"]["gain"] = Classy.gain
        return super().step(action)


class BadClose(Cart):
    """A cart that cannot be closed."""

    def close(self):
        raise RuntimeError("stuck")


class Texts(Cart):
    """A cart whose rewards, or ends, are texts."""

    def __init__(self, what="reward"):
        super().__init__()
        self.what = what

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.what == "reward":
            return observation, str(reward), terminated, truncated, info
        return observation, reward, str(terminated), truncated, info
