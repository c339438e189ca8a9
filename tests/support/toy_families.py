"""Small families for the tests: one sound, and one for each way of breaking the contract."""

from __future__ import annotations

import os
import struct
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics, TimeLimit

from metarl.envs import BatchedFamily


class SignEnv(gymnasium.Env):
    """The reward is the hidden sign times the action; single environment only, three steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, actions: str = "box", observations: str = "box", noise: float = 0.0) -> None:
        self.task_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = {
            "box": spaces.Box(-2.0, 2.0, (1,), np.float32),
            "standard box": spaces.Box(-1.0, 1.0, (1,), np.float32),
            "matrix": spaces.Box(-1.0, 1.0, (2, 3), np.float32),
            "number": spaces.Box(-1.0, 1.0, (), np.float32),
            "wide number": spaces.Box(-2.0, 3.0, (), np.float64),
            "some ends": spaces.Box(
                np.array([0.1, -np.inf, -2.0, -np.inf]), np.array([np.inf, 0.5, 3.0, np.inf]), dtype=np.float64
            ),
            "whole numbers": spaces.Box(0, 3, (2,), np.int64),
            "discrete": spaces.Discrete(3, start=-1),
            "multi": spaces.MultiDiscrete([2, 3]),
        }[actions]
        self.observation_space = {
            "box": spaces.Box(-10.0, 10.0, (2,), np.float32),
            "discrete": spaces.Discrete(4),
            "image": spaces.Box(0, 255, (1, 36, 36), np.uint8),
            "image channels last": spaces.Box(0, 255, (36, 40, 3), np.uint8),
            "dots": spaces.Dict({"robot.arm": spaces.Box(-10.0, 10.0, (2,), np.float32)}),
            "dict": spaces.Dict(
                {
                    "image": spaces.Box(0, 255, (36, 40, 3), np.uint8),
                    "vector": spaces.Box(-10.0, 10.0, (2,), np.float32),
                    "count": spaces.Discrete(4),
                }
            ),
        }[observations]
        self._noise = noise
        self.task = np.zeros(1, dtype=np.float32)
        self.time = 0

    def observe(self) -> Any:
        return self._observed(self.observation_space)

    def _observed(self, space: spaces.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._observed(part) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Discrete):
            return np.int64(self.time)
        if space.dtype == np.uint8:
            return np.full(space.shape, self.time, dtype=np.uint8)
        return np.array([self.time, 1.0], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if options and options.get("task") is not None:
            self.task = np.array(options["task"], dtype=np.float32)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.time += 1
        reward = float(self.task[0] * np.sum(action)) + self._noise * float(self.np_random.normal())
        return self.observe(), reward, self.time == 3, False, {}


class Refuses(SignEnv):
    """Says itself which tasks it takes."""

    def check_task(self, task: Any) -> None:
        if task[0] < -0.5:
            raise ValueError(f"the sign {task[0]} is too low; give one of at least -0.5")


class CountsFromOne(SignEnv):
    """Observes a whole number that starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Discrete(4, start=1)


class LengthsDiffer(SignEnv):
    """Ends after one to six steps, by its own noise; sometimes for good and sometimes from outside."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed, options=options)
        self._last = int(self.np_random.integers(1, 7))
        return result

    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        ended = self.time == self._last
        return observation, reward, ended and self._last % 2 == 0, ended and self._last % 2 == 1, info


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


class Slow(SignEnv):
    """Takes 2 ms for a step, as a simulator does."""

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return super().step(action)


def wrapped() -> gymnasium.Env[Any, Any]:
    """Return a family in wrappers of Gymnasium, as people put them around environments."""
    inner = TimeLimit(SignEnv(), max_episode_steps=2)
    return FrameStackObservation(RecordEpisodeStatistics(inner), stack_size=3)


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
            "four": (observation, reward, terminated, info),
            "info": (observation, reward, terminated, truncated, None),
        }[self.wrong]


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


class OtherDynamics(BatchedFamily):
    """The batched twin of ``SignEnv``, with another reward."""

    factor = 2.0

    def __init__(self, num_envs: int, max_episode_steps: int | None = None) -> None:
        self.single_observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.single_action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.task_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.default_task = np.zeros(1, dtype=np.float32)
        super().__init__(num_envs, max_episode_steps)
        self._t = np.zeros(self.num_envs)

    def start_episodes(self, indices: Any) -> None:
        self._t[indices] = 0

    def apply_actions(self, actions: Any, indices: Any) -> Any:
        self._t[indices] += 1
        return self.factor * self.tasks[indices, 0] * actions[:, 0], self._t[indices] == 3

    def observe(self) -> Any:
        return np.stack([self._t, np.ones(self.num_envs)], axis=1).astype(np.float32)


class SameDynamics(OtherDynamics):
    """The batched twin of ``SignEnv``."""

    factor = 1.0


def _register(name: str, entry: str, vector: str | None = None, **kwargs: Any) -> None:
    if f"toy/{name}" not in gymnasium.registry:
        gymnasium.register(
            id=f"toy/{name}",
            entry_point=f"toy_families:{entry}",
            vector_entry_point=None if vector is None else f"toy_families:{vector}",
            **kwargs,
        )


_register("Sign-v0", "SignEnv")
_register("SignBatched-v0", "SignEnv", "SameDynamics")
_register("Disagreeing-v0", "SignEnv", "OtherDynamics")
_register("Wrapped-v0", "wrapped")
for broken in (
    "Refuses",
    "CountsFromOne",
    "LengthsDiffer",
    "Dies",
    "Hangs",
    "Slow",
    "TaskIgnored",
    "OutsideSpace",
    "WrongDtype",
    "NotSeeded",
    "NanReward",
    "Raises",
    "TasksOutside",
    "LeaksTasks",
    "GivesAway",
    "GivesAwayLater",
    "SaysSo",
    "SharesMemory",
    "Unbatchable",
    "Forgets",
    "NotReseeded",
    "NoSpace",
    "KeepsConfig",
    "ClassConfig",
    "Swallows",
    "ChangingInfo",
    "Redraws",
    "SeedOfC",
    "NumpyEnds",
    "Returns",
    "Words",
):
    _register(f"{broken}-v0", broken)
