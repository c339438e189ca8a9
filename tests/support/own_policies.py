"""Policies of one's own: a subclass of stable-baselines3's, and one that says itself what its distribution is."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor

from metarl.agents import Gaussian, Normalizer, Parameters, Policy, Samples
from metarl.agents.policies import Actor


class Clipped(FlattenExtractor):
    """Features: observations clipped to [-0.1, 0.1]."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features."""
        return torch.clamp(super().forward(observations), -0.1, 0.1)


class Near(ActorCriticPolicy):
    """As MlpPolicy, on clipped observations."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "features_extractor_class": Clipped})


class TwoWays(ActorCriticPolicy):
    """Overrides what stable-baselines3 calls in ``forward``, but not in ``predict``."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        """Return the features."""
        return super().extract_features(torch.clamp(obs, -0.1, 0.1), features_extractor)


class Linear(Policy):
    """The mean is a matrix times the observation.

    Args:
        observation_space: a box.
        action_space: a box.
        matrix: the initial one.
        log_std_init: of the noise.
        log_std_min: its floor.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        matrix: Tensor,
        log_std_init: float,
        log_std_min: float | None,
    ) -> None:
        self._matrix = matrix
        self._log_std_init = log_std_init
        super().__init__(observation_space, action_space, log_std_min)

    @classmethod
    def build(
        cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, seed: int, **settings: Any
    ) -> Self:
        """Return one with a random matrix."""
        shape = spaces.flatdim(action_space), spaces.flatdim(observation_space)
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return cls(observation_space, action_space, matrix, settings["log_std_init"], settings["log_std_min"])

    def parameters(self) -> Parameters:
        """Return a copy of the initial parameters."""
        return {"matrix": self._matrix.clone(), "log_std": torch.full((len(self._matrix),), self._log_std_init)}

    def distribution(self, parameters: Parameters, samples: Samples) -> Gaussian:
        """Return the distribution at each sample."""
        assert isinstance(samples.observations, Tensor)
        mean = samples.observations.to(parameters["matrix"].dtype) @ parameters["matrix"].mT
        return Gaussian(mean, self.floored(parameters["log_std"]).expand_as(mean))

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> LinearActor:
        """Return what acts."""
        return LinearActor(self, parameters, normalizer or Normalizer())

    def module(
        self,
        parameters: Parameters,
        critic: Parameters | None = None,
        normalizer: Normalizer | None = None,
        device: str | torch.device = "cpu",
    ) -> ActorCriticPolicy:
        """Return a policy of stable-baselines3 that does the same."""
        module = ActorCriticPolicy(self.observation_space, self.action_space, lambda _: 3e-4, net_arch=[])
        with torch.no_grad():
            module.action_net.weight.copy_(parameters["matrix"])
            module.action_net.bias.zero_()
            module.log_std.copy_(self.floored(parameters["log_std"]))
        return module.to(device)


class LinearActor(Actor):
    """Acts in numpy."""

    def __init__(self, policy: Linear, parameters: Parameters, normalizer: Normalizer) -> None:
        matrix, log_std = (parameters[name].detach().cpu() for name in ("matrix", "log_std"))
        if matrix.dim() == 2:
            matrix, log_std = matrix[None], log_std[None]
        self._matrix = matrix.numpy()
        super().__init__(policy.action_space, policy.floored(log_std)[:, None].numpy(), normalizer)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return the mean, ``[task, episode, action]``."""
        return np.matmul(observations, self._matrix.swapaxes(-1, -2))
