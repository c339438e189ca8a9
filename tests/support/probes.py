"""Probe families: each isolates one thing that can be wrong, with a known answer, in seconds."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import BatchedFamily


class Probe(BatchedFamily):
    """Episodes of ``steps`` steps, whose observation is a sign drawn anew, and whose task is a sign too."""

    steps: ClassVar[int] = 1
    actions: ClassVar[spaces.Space[Any]] = spaces.Discrete(2)

    def __init__(self, num_envs: int, max_episode_steps: int | None = None) -> None:
        self.single_observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.single_action_space = self.actions
        self.task_space = spaces.Discrete(2)
        self.default_task = np.int64(0)
        super().__init__(num_envs, max_episode_steps)
        self.signs = np.ones(self.num_envs, dtype=np.float32)

    def start_episodes(self, indices: NDArray[np.intp]) -> None:
        self.signs[indices] = self.first_signs(indices)

    def first_signs(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return np.ones(len(indices))

    def random_signs(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return np.array([self.generator(int(index)).choice([-1.0, 1.0]) for index in indices])

    def apply_actions(self, actions: NDArray[Any], indices: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        ended = self.elapsed_steps[indices] + 1 == self.steps
        return self.reward(actions, indices, ended), ended

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        raise NotImplementedError

    def observe(self) -> NDArray[np.float32]:
        return self.signs[:, None].copy()


class Constant(Probe):
    """(a) The reward is always 1."""

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return np.ones(len(actions))


class Observed(Probe):
    """(b) The reward is the observation, a random sign."""

    def first_signs(self, indices: NDArray[np.intp]) -> NDArray[Any]:
        return self.random_signs(indices)

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return self.signs[indices].astype(np.float64)


class Delayed(Probe):
    """(c) Of three steps only the last is rewarded, with 1."""

    steps = 3

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return ended.astype(np.float64)


class Acted(Probe):
    """(d) Action 1 is rewarded with 1, action 0 with -1."""

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return 2.0 * actions - 1.0


class Matched(Observed):
    """(e) The action that is the sign observed is rewarded with 1, the other with -1."""

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return self.signs[indices] * (2.0 * actions - 1.0)


class HiddenSign(Probe):
    """(f) The task is the sign of the reward of action 1: without adaptation 0 is the best, with it 1."""

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        return (2.0 * self.tasks[indices] - 1.0) * (2.0 * actions - 1.0)


class CostlyLook(Probe):
    """(g) As (f), but only who also looks sees the reward without much noise, and looking costs.

    After adaptation looking is of no use, so only a learner that credits what was sampled before adaptation looks.
    """

    actions = spaces.MultiDiscrete([2, 2])
    noise: ClassVar[float] = 3.0
    cost: ClassVar[float] = 0.2

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        looks, sides = actions[:, 0], 2.0 * actions[:, 1] - 1.0
        chosen = np.arange(self.num_envs)[indices]
        noise = np.array([self.generator(int(index)).normal() for index in chosen])
        return (2.0 * self.tasks[indices] - 1.0) * sides - self.cost * looks + self.noise * noise * (1 - looks)


class CostlyLookAhead(CostlyLook):
    """As (g), in two steps: looking costs in the first, and lets the second's reward be seen without much noise.

    The observation is 1 in the first step and -1 in the second. Credit for looking has to reach from step to step.
    """

    steps = 2

    def __init__(self, num_envs: int, max_episode_steps: int | None = None) -> None:
        super().__init__(num_envs, max_episode_steps)
        self._looked = np.zeros(self.num_envs)

    def reward(self, actions: NDArray[Any], indices: Any, ended: NDArray[np.bool_]) -> NDArray[Any]:
        chosen = np.arange(self.num_envs)[indices]
        self.signs[chosen] = -1.0
        begun = chosen[~ended]
        self._looked[begun] = actions[~ended, 0]
        costs = self.cost * self._looked[chosen]
        actions = np.stack([self._looked[chosen], actions[:, 1]], axis=1)
        rewards = -costs
        # What (g) gives, without its cost, which was paid.
        rewards[ended] = super().reward(actions[ended], chosen[ended], ended[ended]) + costs[ended]
        return rewards


class SingleProbe(gymnasium.Env[Any, Any]):
    """The single environment of a probe, of which only the spaces are used."""

    probe: ClassVar[type[Probe]]

    def __init__(self) -> None:
        batch = self.probe(1)
        self.observation_space, self.action_space = batch.single_observation_space, batch.single_action_space
        self.task_space = batch.task_space


for kind in (Constant, Observed, Delayed, Acted, Matched, HiddenSign, CostlyLook, CostlyLookAhead):
    single = f"{kind.__name__}Env"
    globals()[single] = type(single, (SingleProbe,), {"probe": kind})
    if f"probe/{kind.__name__}-v0" not in gymnasium.registry:
        gymnasium.register(
            id=f"probe/{kind.__name__}-v0",
            entry_point=f"probes:{single}",
            vector_entry_point=f"probes:{kind.__name__}",
        )
