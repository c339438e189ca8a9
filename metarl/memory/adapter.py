"""Acting and remembering in a given environment, whose task need not be known."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from metarl import seeding
from metarl.adapter import FamilyLearner, action_map
from metarl.agents import Parameters
from metarl.agents.observations import map_observations
from metarl.agents.policies import GruPolicy, Memory, TrialPolicy
from metarl.envs import RolloutError
from metarl.sampler import MAX_STEPS, refuse_non_finite
from metarl.state import State


class RememberingLearner(FamilyLearner, Protocol):
    """The part of a learner with memory that a ``TrialAdapter`` needs."""

    functional_policy: GruPolicy

    def as_policy(
        self,
        parameters: Parameters,
        state: State,
        start: Memory | None = None,
        env: gymnasium.Env[Any, Any] | None = None,
    ) -> TrialPolicy:
        """Return a policy that starts from a memory."""


class TrialAdapter:
    """Acts in one environment with a learner's policy, which remembers everything from the first episode on.

    ``play()`` plays an episode in the environment. In a loop of your own, ``start`` and ``observe`` return the actions,
    in the environment's action space, and are told rewards and ends::

        action = adapter.start(env.reset()[0])
        while action is not None:
            observation, reward, terminated, truncated, _ = env.step(action)
            action = adapter.observe(observation, reward, terminated, truncated)

    The learner does not change, and its later training does not affect the adapter. Made by ``MemoryLearner.adapter``.

    Attributes:
        returns: the undiscounted returns of all episodes so far; list k has that of the episode after k others.
    """

    def __init__(self, learner: RememberingLearner, state: State, env: gymnasium.Env[Any, Any], seed: int) -> None:
        self._learner = learner
        self._state = state
        self._env = env
        self._to_env = action_map(learner, env)
        self._seed = seed
        self._space = env.observation_space
        self._actor = learner.functional_policy.actor(state.parameters, state.normalizer)
        self._memory: Memory | None = None  # after the episodes that have ended
        self._begun = False
        self.returns: list[list[float]] = [[]]

    @property
    def updates(self) -> int:
        """The number of episodes so far that have ended, which is what the policy has adapted to."""
        return len(self.returns) - 1

    @property
    def policy(self) -> TrialPolicy:
        """The policy that remembers the episodes so far that have ended, for ``metarl.Trial(env, episodes)``.

        It acts in the environment's own action space.
        """
        return self._learner.as_policy(self._state.parameters, self._state, self._memory, self._env)

    def play(self) -> float:
        """Play an episode in the environment, and return its return.

        Raises:
            RolloutError: the environment returned numbers that are not finite, or the episode does not end.
        """
        observation, _ = self._env.reset(seed=seeding.foreign_seed(self._stream().environment_seeds(1)[0]))
        action = self.start(observation)
        for _ in range(MAX_STEPS):
            observation, reward, terminated, truncated, _ = self._env.step(action)
            action = self.observe(observation, float(reward), terminated, truncated)
            if action is None:
                return self.returns[-2][0]
        raise RolloutError(f"the episode is still running after {MAX_STEPS} steps; give the environment a limit", 0)

    def start(self, observation: Any) -> Any:
        """Begin an episode with its first observation; return the first action.

        An episode that has not ended yet is dropped, and what was remembered of it is forgotten.

        Raises:
            RolloutError: the observation is not finite.
        """
        first = self._batched(observation, 0)
        self._actor.memory = self._memory
        self._noise = self._actor.noise([self._stream().noise()], 1)
        self._time, self._return = 0, 0.0
        self._begun = True
        return self._act(first)

    def observe(self, observation: Any, reward: float, terminated: bool, truncated: bool) -> Any:
        """Remember the environment's response to the last action; return the next action, or None at the episode's end.

        Raises:
            ValueError: no episode was begun.
            RolloutError: the observation or reward is not finite.
        """
        if not self._begun:
            raise ValueError("no episode was begun; call start(observation) with the first observation of an episode")
        given = np.array([float(reward)])
        refuse_non_finite("gave the reward", given, f"at step {self._time}")
        following = self._batched(observation, self._time)
        ended = bool(terminated or truncated)
        self._actor.tell(given, np.array([ended]))
        self._return += float(reward)
        self._time += 1
        if not ended:
            return self._act(following)
        self._begun = False
        self._memory = self._actor.memory
        self.returns[-1].append(self._return)
        self.returns.append([])
        return None

    def table(self) -> str:
        """Return a table of the returns so far, for the terminal: episodes before, return."""
        lines = [f"{'earlier episodes':>16}  {'return':>11}"]
        lines += [f"{number:>16}  {found[0]:>11.2f}" for number, found in enumerate(self.returns) if found]
        return "\n".join(lines)

    def _stream(self) -> seeding.Stream:
        return seeding.Stream(self._seed, (seeding.ADAPTATION, self.updates, 0))

    def _batched(self, observation: Any, step: int) -> Any:
        batch = map_observations(lambda part: np.asarray(part)[None].copy(), observation)
        refuse_non_finite("gave the observation", batch, f"at step {step}")
        return self._actor.see(self._space, batch)

    def _act(self, observation: Any) -> Any:
        latest = map_observations(lambda part: part[None], observation)
        actions, _ = self._actor.act(latest, self._noise.at(self._time))
        action: NDArray[Any] = actions[0, 0]
        refuse_non_finite("got the action", np.asarray(action)[None], f"at step {self._time}")
        return self._to_env(action)
