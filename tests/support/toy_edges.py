"""Small families and wrappers that are sound and yet unusual: in what they keep, take, return or need."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from toy_families import SignEnv


class KeepsConfig(SignEnv):
    """Keeps the dict that its constructor was given, and writes its task into it, as many environments do."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = {"sign": 0.0} if config is None else config

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self.config["sign"] = float(self.task[0])
        return result

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, self.config["sign"] * float(action[0]), terminated, truncated, info


class KeepsDefault(KeepsConfig):
    """Keeps a default that Python makes once for all environments."""

    def __init__(self, config: dict[str, Any] = {"sign": 0.0}) -> None:  # noqa: B006
        super().__init__(config)


SHARED_CONFIG = {"factor": 1.0}


class ClassConfig(gymnasium.Env):
    """Reads a factor from a dict of its class, or of this module."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    config: ClassVar[dict[str, Any]] = {"factor": 1.0, "robot/arm": 1.0}

    def __init__(self, of_module: bool = False) -> None:
        if of_module:
            self.config = SHARED_CONFIG

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        reward = self.config["factor"] * self.config.get("robot/arm", 1.0)
        return np.zeros(1, dtype=np.float32), reward, False, False, {}


class Swallows(gymnasium.Env):
    """Takes any argument, and reads two."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, **kwargs: Any) -> None:
        self.factor, self.offset = kwargs.get("factor", 1.0), kwargs.get("offset", 0.0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, dtype=np.float32), self.factor + self.offset, False, False, {}


class ChangingInfo(SignEnv):
    """Gives infos whose entries come and go and change type and shape."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, _ = super().step(action)
        infos: list[dict[str, Any]] = [
            {"success": self.task[0] > 0, "path": np.zeros(1), "mixed": 1, "text": "far"},
            {"success": True, "path": np.zeros((2, 3)), "mixed": "now a text", "speed": np.array(0.5)},
            {"path": None, "mixed": [1, 2], "speed": np.float32(0.25), "count": np.int64(3), "inside": {"a": 1}},
        ]
        return observation, reward, terminated, truncated, infos[self.time - 1]


class SeedOfC(SignEnv):
    """Seeds a simulator whose seeds are 32-bit C integers with a sign."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        struct.pack("i", 0 if seed is None else seed)
        return super().reset(seed=seed, options=options)


class NumpyEnds(SignEnv):
    """Ends with numpy's truth values, as comparisons of numpy give them."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, np.bool_(terminated), np.bool_(truncated), info


class Words(SignEnv):
    """Has a word as its task, whose length is the reward."""

    def __init__(self) -> None:
        super().__init__()
        self.task_space = spaces.Text(min_length=1, max_length=5)
        self.default_task = self.task = "a"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        task = options.get("task", self.task) if options else self.task
        result = super().reset(seed=seed)
        assert isinstance(task, str)
        self.task = task
        return result

    def step(self, action: Any) -> Any:
        self.time += 1
        return self.observe(), float(len(self.task)), self.time == 3, False, {}


class SkipFrames(gymnasium.Wrapper):
    """Repeats each action four times, and counts the truncations that it saw."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.cuts = 0

    def step(self, action: Any) -> Any:
        total = 0.0
        for _ in range(4):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        self.cuts += truncated
        return observation, total, terminated, truncated, info


class NeedsLimit(gymnasium.Wrapper):
    """Refuses environments without a time limit, and keeps the limit."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert env.spec is not None
        assert env.spec.max_episode_steps is not None
        assert isinstance(env, TimeLimit)
        self.limit = env.spec.max_episode_steps
