"""Small families that break the contract, one for each way."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from toy_families import SignEnv


class Dies(SignEnv):
    """Takes its process with it in the second step of a positive task."""

    def step(self, action: Any) -> Any:
        if self.time == 1 and self.task[0] > 0:
            os._exit(7)
        return super().step(action)


class Hangs(SignEnv):
    """Never comes back from the second step of a positive task."""

    def step(self, action: Any) -> Any:
        while self.time == 1 and self.task[0] > 0:
            time.sleep(0.01)
        return super().step(action)


class TaskIgnored(SignEnv):
    """Never reads the task."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(seed=seed)


class OutsideSpace(SignEnv):
    """Observes more than its space holds."""

    def observe(self) -> Any:
        return np.array([self.time * 20.0, 1.0], dtype=np.float32)


class NotSeeded(SignEnv):
    """Draws noise from a generator of its own."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward + float(np.random.default_rng().normal()), terminated, truncated, info


class NanReward(SignEnv):
    """Gives a reward that is no number."""

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


class Raises(SignEnv):
    """Raises an error in its second step."""

    def step(self, action: Any) -> Any:
        if self.time == 1:
            raise OSError("broken")
        return super().step(action)


class TasksOutside(SignEnv):
    """Draws tasks outside its own space."""

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        return np.full((n, 1), 3.0, dtype=np.float32)


class WrongDtype(SignEnv):
    """Observes in double precision what its space holds in single."""

    def observe(self) -> Any:
        return np.array([self.time, 1.0])


class LeaksTasks(SignEnv):
    """Keeps the task on the class, where all sub-environments share it."""

    shared: ClassVar[list[Any]] = [np.zeros(1, dtype=np.float32)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        if options and options.get("task") is not None:
            self.shared[0] = self.task
        return result

    def step(self, action: Any) -> Any:
        self.task = self.shared[0]
        return super().step(action)


class GivesAway(SignEnv):
    """Observes the task from the start."""

    def observe(self) -> Any:
        return np.array([self.time, self.task[0]], dtype=np.float32)


class GivesAwayLater(SignEnv):
    """Observes the task from the first step on."""

    def observe(self) -> Any:
        return np.array([self.time, self.task[0] * (self.time > 0)], dtype=np.float32)


class SaysSo(GivesAway):
    """Observes the task, and declares it."""

    observation_reveals_task = True


class SharesMemory(SignEnv):
    """Returns the same array each time."""

    buffer = np.zeros(2, dtype=np.float32)

    def observe(self) -> Any:
        self.buffer[:] = self.time, 1.0
        return self.buffer


class Unbatchable(SignEnv):
    """Has a task space whose elements have no fixed shape."""

    def __init__(self) -> None:
        super().__init__()
        self.task_space = spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (1,))])


class Forgets(SignEnv):
    """Goes back to a task of its own when reset is given none."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.task = np.array([0.3], dtype=np.float32)
        return super().reset(seed=seed, options=options)


class NotReseeded(SignEnv):
    """Breaks Gymnasium's own contract: reset does not hand on its seed."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return super().reset(options=options)


class NoSpace(gymnasium.Env):
    """No family: it does not say what varies."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, dtype=np.float32), 0.0, True, False, {}


class Redraws(SignEnv):
    """Draws a task of its own in every eighth reset that is given none."""

    def __init__(self) -> None:
        super().__init__()
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.resets += not options
        if not options and self.resets % 8 == 0:
            self.task = np.array([0.7], dtype=np.float32)
        return super().reset(seed=seed, options=options)


class Returns(SignEnv):
    """Returns something else than it should, in its second step of a positive task."""

    def __init__(self, wrong: str = "nothing", observations: str = "box") -> None:
        super().__init__(observations=observations)
        self.wrong = wrong

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.time < 2 or self.task[0] <= 0:
            return observation, reward, terminated, truncated, info
        return {
            "nothing": (observation, reward, terminated, truncated, info),
            "shape": (np.zeros(3, np.float32), reward, terminated, truncated, info),
            "dtype": (np.array(["a", "b"]), reward, terminated, truncated, info),
            "none": (None, reward, terminated, truncated, info),
            "key": ({"image": np.zeros((36, 40, 3), np.uint8)}, reward, terminated, truncated, info),
            "part": ({**observation, "image": np.zeros((36, 40))}, reward, terminated, truncated, info)
            if isinstance(observation, dict)
            else (),
            "choice": (7, reward, terminated, truncated, info),
            "reward": (observation, None, terminated, truncated, info),
            "end": (observation, reward, None, truncated, info),
            "end_nan": (observation, reward, terminated, float("nan"), info),
            "end_two": (observation, reward, np.int8(2), truncated, info),
            "four": (observation, reward, terminated, info),
            "info": (observation, reward, terminated, truncated, None),
        }[self.wrong]


class Unheard(BaseException):
    """Not an error, for Python."""


class Leaves(SignEnv):
    """Ends the program, or tries to, in the method ``where``."""

    def __init__(self, where: str = "step", what: str = "exit") -> None:
        super().__init__()
        self.where, self.what = where, what
        self._leave("init")

    def _leave(self, where: str) -> None:
        if where == self.where:
            if self.what == "interrupt":
                raise KeyboardInterrupt
            raise {"exit": SystemExit(3), "unheard": Unheard("enough"), "error": RuntimeError("no")}[self.what]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._leave("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._leave("step")
        return super().step(action)

    def close(self) -> None:
        self._leave("close")


class Huge(SignEnv):
    """Gives finite rewards that are too large for single precision."""

    def __init__(self, reward: float = 1e30) -> None:
        super().__init__()
        self.reward = reward

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self.reward, terminated, truncated, info
