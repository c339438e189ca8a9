"""Baselines that are not meta-trained: from scratch, and at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pydantic import ConfigDict
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agents import Normalizer, Parameters, Policy, Rollouts
from metarl.agents.policies import Actor
from metarl.learner import BaseLearner
from metarl.settings import FORBID


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """There is no meta-update."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID


class Scratch(BaseLearner):
    """From scratch: the inner update from a random start, without meta-training.

    With ``evaluation.steps`` and ``evaluation.episodes`` it gets the budget of the others, or a larger one. The
    "random" of Finn et al. 2017, figures 4 and 5.
    """

    name = "scratch"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Nothing,)
    source = "Finn et al. 2017"
    trains = False


class Random(BaseLearner):
    """At random: actions uniform over the action space, whatever was observed; nothing is learned.

    What is left of a task without any skill. It has no policy of stable-baselines3 to give.
    """

    name = "random"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Nothing,)
    source = "no learning"
    trains = False

    def _take_policy(self, policy: Policy) -> None:
        super()._take_policy(UniformPolicy(policy._module, policy.log_std_min))

    def adapted(self, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return the parameters as they are."""
        return parameters

    def as_policy(self, parameters: Parameters) -> ActorCriticPolicy:
        """Raise an error: uniform actions are no policy of stable-baselines3."""
        raise ValueError("learner random acts uniformly and has no policy to give; use learner scratch")


class UniformPolicy(Policy):
    """Acts uniformly; the parameters play no part."""

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return what acts uniformly."""
        return UniformActor(self)


class UniformActor(Actor):
    """Draws actions uniformly over the action space."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, None, Normalizer())

    def act(self, observations: Any, noise: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return uniform actions ``[task, episode, *action]`` and their log-probabilities; see ``Actor``."""
        leading, space = noise.shape[:2], self._space
        if isinstance(space, spaces.Box):
            low, high = (limit.reshape(-1).astype(np.float32) for limit in (space.low, space.high))
            share = torch.special.ndtr(torch.from_numpy(noise)).numpy()
            actions = (low + share * (high - low)).reshape(*leading, *space.shape)
            return actions, np.full(leading, -np.log(high - low).sum(), dtype=np.float32)
        assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        counts = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.array([space.n])
        chosen = np.minimum((noise * counts).astype(np.int64), counts - 1)
        log_probs = np.full(leading, -np.log(counts).sum(), dtype=np.float32)
        return (chosen if isinstance(space, spaces.MultiDiscrete) else chosen[..., 0]), log_probs
