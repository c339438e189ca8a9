"""A baseline without learning: uniform actions."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agents import Parameters, Policy, Rollouts
from metarl.agents.policies import UniformPolicy
from metarl.learner import BaseLearner
from metarl.learners.scratch import Nothing
from metarl.state import State


class Random(BaseLearner):
    """At random: actions uniform over the action space, independent of observations; nothing is learned.

    It shows the return without any skill. It has no stable-baselines3 policy.
    """

    name = "random"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Nothing,)
    source = "no learning"
    learns_to_adapt = False
    trains = False

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return a policy that acts uniformly."""
        return UniformPolicy(policy)

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return the parameters unchanged."""
        return parameters

    def as_policy(self, parameters: Parameters, state: State) -> ActorCriticPolicy:
        """Raise an error: a stable-baselines3 policy cannot act uniformly."""
        raise ValueError("learner random acts uniformly and has no policy to give; use learner scratch")
