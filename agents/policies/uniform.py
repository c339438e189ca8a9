"""A policy with uniform actions, independent of observations, for a baseline without learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.agents.distributions import Distribution
from metarl.agents.normalization import Normalizer
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.policy import Parameters, Policy
from metarl.agents.samples import Samples


class UniformPolicy(Policy):
    """A policy that acts uniformly; its parameters are those of another policy and have no effect.

    Args:
        plain: the policy whose spaces and parameters it has.

    Raises:
        ValueError: actions have no limits in some entries.
    """

    def __init__(self, plain: Policy) -> None:
        space = plain.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ValueError(
                f"actions of {space} have no limits in some entries, so none of them are uniform; give the space "
                "limits, or use learner scratch"
            )
        self.plain, self.front = plain, plain.front
        super().__init__(plain.observation_space, plain.action_space, plain.log_std_min)

    def parameters(self) -> Parameters:
        """Return a copy of the other policy's parameters."""
        return self.plain.parameters()

    def critic(self) -> Parameters:
        """Return a copy of the other policy's value function."""
        return self.plain.critic()

    def buffers(self) -> Parameters:
        """Return a copy of the other policy's buffers."""
        return self.plain.buffers()

    def distribution(self, parameters: Parameters, samples: Samples) -> Distribution:
        """Return the other policy's distribution, since a uniform one has no parameters to learn."""
        return self.plain.distribution(parameters, samples)

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return an actor that acts uniformly."""
        device = next(iter(parameters.values())).device
        return UniformActor(self.action_space, None, Normalizer()).after(self.front, device)


class UniformActor(Actor):
    """Draws actions uniformly over the action space."""

    def act(self, observations: Any, noise: NDArray[np.float32] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return uniform actions ``[task, episode, *action]`` and their log-probabilities; see ``Actor``."""
        assert noise is not None  # since ``acts_without_noise`` is not set
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
