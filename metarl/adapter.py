"""Adaptation episode by episode in a given environment, whose task need not be known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl import seeding
from metarl.agents import Parameters, Policy, Rollouts, join_episodes
from metarl.agents.observations import map_observations
from metarl.envs import RolloutError
from metarl.envs.actions import standard_actions
from metarl.gradients.flat import one_task, task_parameters
from metarl.sampler import MAX_STEPS, refuse_huge, refuse_non_finite, stack_steps
from metarl.sb3.own_actions import unfold_actions
from metarl.settings import Settings
from metarl.state import State


class FamilyLearner(Protocol):
    """The part of a learner that says which environments it acts in."""

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    @property
    def settings(self) -> Settings:
        """All settings of a run."""


class AdaptingLearner(FamilyLearner, Protocol):
    """The part of a learner that an ``Adapter`` needs."""

    functional_policy: Policy

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters after an adaptation step."""

    def as_policy(self, parameters: Parameters, state: State) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy."""


class Adapter:
    """Adapts a learner's policy to one environment, with an update after every ``episodes`` episodes.

    ``play()`` plays an episode in the environment. In a loop of your own, ``start`` and ``observe`` return the actions,
    in the environment's action space::

        action = adapter.start(env.reset()[0])
        while action is not None:
            observation, reward, terminated, truncated, _ = env.step(action)
            action = adapter.observe(observation, reward, terminated, truncated)

    The learner does not change, and its later training does not affect the adapter. Made by ``MetaAgent.adapter``.

    Attributes:
        returns: the undiscounted returns of all episodes so far; list k has those played after k updates.
        max_updates: the number of updates after which the policy stays as it is; by default there is no limit.
    """

    def __init__(
        self, learner: AdaptingLearner, state: State, env: gymnasium.Env[Any, Any], episodes: int, seed: int
    ) -> None:
        self._learner = learner
        self._state = state
        self._env = env
        self._to_env = action_map(learner, env)
        self._episodes = episodes
        self._seed = seed
        self._space = env.observation_space
        self._parameters: Parameters = one_task(state.parameters)
        self._played: list[Rollouts] = []
        self._begun = False
        self._set_actor()
        self.returns: list[list[float]] = [[]]
        self.max_updates: float = math.inf

    @property
    def updates(self) -> int:
        """The number of updates so far."""
        return len(self.returns) - 1

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy after the updates so far, a stable-baselines3 policy that acts in the environment's own space."""
        policy = self._learner.as_policy(task_parameters(self._parameters, 0), self._state)
        return unfold_actions(policy, self._env.action_space)

    @property
    def rollouts(self) -> Rollouts:
        """The episodes since the last update, as rollouts of one task.

        Raises:
            ValueError: there is none.
        """
        if not self._played:
            raise ValueError("no episode was played since the last update; call play() first")
        return join_episodes(self._played)

    def play(self) -> float:
        """Play an episode in the environment, update if enough episodes were played, and return the episode's return.

        Raises:
            RolloutError: the environment returned numbers that are not finite, or the episode does not end.
        """
        observation, _ = self._env.reset(seed=seeding.foreign_seed(self._stream().environment_seeds(1)[0]))
        action = self.start(observation)
        for _ in range(MAX_STEPS):
            observation, reward, terminated, truncated, _ = self._env.step(action)
            action = self.observe(observation, float(reward), terminated, truncated)
            if action is None:
                return (self.returns[-1] or self.returns[-2])[-1]
        raise RolloutError(f"the episode is still running after {MAX_STEPS} steps; give the environment a limit", 0)

    def start(self, observation: Any) -> Any:
        """Begin an episode with its first observation; return the first action.

        An episode that has not ended yet is dropped.

        Raises:
            RolloutError: the observation is not finite.
        """
        self._observations = [self._batched(observation, 0)]
        self._steps: list[tuple[NDArray[Any], ...]] = []
        self._noise = self._actor.noise([self._stream().noise()], 1)
        self._begun = True
        return self._act()

    def observe(self, observation: Any, reward: float, terminated: bool, truncated: bool) -> Any:
        """Record the environment's response to the last action; return the next action, or None at the episode's end.

        At the end of every ``episodes``-th episode the policy is updated.

        Raises:
            ValueError: no episode was begun.
            RolloutError: the observation or reward is not finite.
        """
        if not self._begun:
            raise ValueError("no episode was begun; call start(observation) with the first observation of an episode")
        step = len(self._steps)
        given = np.array([float(reward)])
        refuse_non_finite("gave the reward", given, f"at step {step}")
        refuse_huge(given, f"at step {step}")
        self._observations.append(self._batched(observation, step))
        ends = np.array([bool(terminated)]), np.array([bool(truncated) and not terminated])
        self._steps.append((self._action, self._log_prob, given, np.array([True]), *ends))
        if not terminated and not truncated:
            return self._act()
        self._begun = False
        double = bool(self._state.normalizer.observations)
        rollouts = stack_steps(self._observations, self._steps, 1, 1, double=double)
        self._played.append(rollouts)
        self.returns[-1].append(float(rollouts.returns()))
        if len(self._played) >= self._episodes and self.updates < self.max_updates:
            self._update()
        return None

    def table(self) -> str:
        """Return a table of the returns so far, for the terminal: updates, episodes, mean return."""
        lines = [f"{'updates':>7}  {'episodes':>8}  {'mean return':>11}"]
        for number, returns in enumerate(self.returns):
            if returns:
                lines.append(f"{number:>7}  {len(returns):>8}  {np.mean(returns):>11.2f}")
        return "\n".join(lines)

    def _stream(self) -> seeding.Stream:
        return seeding.Stream(self._seed, (seeding.ADAPTATION, self.updates, len(self._played)))

    def _set_actor(self) -> None:
        self._actor = self._learner.functional_policy.actor(self._parameters, self._state.normalizer)

    def _batched(self, observation: Any, step: int) -> Any:
        batch = map_observations(lambda part: np.asarray(part)[None].copy(), observation)
        refuse_non_finite("gave the observation", batch, f"at step {step}")
        return self._actor.see(self._space, batch)

    def _act(self) -> Any:
        latest = map_observations(lambda part: part[None], self._observations[-1])
        actions, log_probs = self._actor.act(latest, self._noise.at(len(self._steps)))
        self._action, self._log_prob = actions[0], log_probs[0]
        refuse_non_finite("got the action", self._action, f"at step {len(self._steps)}")
        return self._to_env(self._action[0])

    def _update(self) -> None:
        self._parameters = self._learner.adapted(self._state, self._parameters, self.rollouts, self.updates)
        self._set_actor()
        self._played = []
        self.returns.append([])


def action_map(learner: FamilyLearner, env: gymnasium.Env[Any, Any]) -> Callable[[Any], Any]:
    """Return the map from the actions that a learner's policy samples to an environment's actions.

    Raises:
        ValueError: the environment's spaces differ from those of the learner's family.
    """
    mapped = standard_actions(env.action_space)
    space, convert = (env.action_space, _unchanged) if mapped is None else mapped
    for kind, found in (("observation_space", env.observation_space), ("action_space", space)):
        if found != getattr(learner, kind):
            raise ValueError(
                f"the environment's {kind} is {found}, that of {learner.settings.family} {getattr(learner, kind)}; "
                "expected an environment like those it was trained on"
            )
    return convert


def _unchanged(action: Any) -> Any:
    return action
