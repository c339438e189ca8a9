"""Small families for the tests that are sound. Those in ``toy_edges`` and ``toy_faults`` are registered here too."""

from __future__ import annotations

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


class TellsOfSuccess(SignEnv):
    """Tells in ``info`` of success, in the second step of a positive task.

    Args:
        name: under which name.
    """

    def __init__(self, name: str = "success") -> None:
        super().__init__()
        self._name = name

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, self._name: bool(self.task[0] > 0 and self.time == 2)}


class TellsOfSpeed(SignEnv):
    """Tells in ``info`` of its speed, the time times the task, and of success at its first step only."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "speed": float(self.time * self.task[0]), "is_success": self.time == 1, "word": "fast"}


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


class Slow(SignEnv):
    """Takes 2 ms for a step, as a simulator does."""

    def step(self, action: Any) -> Any:
        time.sleep(0.002)
        return super().step(action)


def wrapped() -> gymnasium.Env[Any, Any]:
    """Return a family in wrappers of Gymnasium, as people put them around environments."""
    inner = TimeLimit(SignEnv(), max_episode_steps=2)
    return FrameStackObservation(RecordEpisodeStatistics(inner), stack_size=3)


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


def _register(name: str, entry: str, vector: str | None = None, module: str = "toy_families") -> None:
    if f"toy/{name}" not in gymnasium.registry:
        gymnasium.register(
            id=f"toy/{name}",
            entry_point=f"{module}:{entry}",
            vector_entry_point=None if vector is None else f"{module}:{vector}",
        )


_register("Sign-v0", "SignEnv")
_register("SignBatched-v0", "SignEnv", "SameDynamics")
_register("Disagreeing-v0", "SignEnv", "OtherDynamics")
_register("Wrapped-v0", "wrapped")
for sound in ("Refuses", "CountsFromOne", "TellsOfSuccess", "TellsOfSpeed", "LengthsDiffer", "Slow"):
    _register(f"{sound}-v0", sound)
for unusual in (
    "KeepsConfig",
    "KeepsDefault",
    "ClassConfig",
    "Swallows",
    "ChangingInfo",
    "SeedOfC",
    "NumpyEnds",
    "Words",
):
    _register(f"{unusual}-v0", unusual, module="toy_edges")
for broken in (
    "Dies",
    "Forgets",
    "GivesAway",
    "GivesAwayLater",
    "Hangs",
    "LeaksTasks",
    "NanReward",
    "NoSpace",
    "NotReseeded",
    "NotSeeded",
    "OutsideSpace",
    "Raises",
    "Redraws",
    "Returns",
    "SaysSo",
    "SharesMemory",
    "TaskIgnored",
    "TasksOutside",
    "Unbatchable",
    "WrongDtype",
):
    _register(f"{broken}-v0", broken, module="toy_faults")
