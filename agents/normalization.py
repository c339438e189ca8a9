"""Normalisation of observations and rewards by running statistics, like stable-baselines3's ``VecNormalize``.

The statistics are over all training tasks and change only between iterations. So all rollouts of an iteration, and all
adaptation in an evaluation, use the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor, nn

from metarl.agents.observations import Observations, map_observations, subspaces
from metarl.agents.returns import discounted_returns
from metarl.agents.rollouts import Rollouts


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the values so far, float64 tensors ``[*shape]``, and the number of values."""

    mean: Tensor
    variance: Tensor
    count: float = 0.0

    @classmethod
    def none_yet(cls, shape: tuple[int, ...]) -> Moments:
        """Return the statistics of no values, mean 0 and variance 1, which leave values unchanged."""
        return cls(torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64))

    def update(self, values: Tensor) -> Moments:
        """Return the statistics with ``values [sample, *shape]`` added.

        Source: Chan et al. 1979, the parallel update of a variance.
        """
        if len(values) == 0:
            return self
        values = values.double().cpu()
        mean, variance, count = values.mean(dim=0), values.var(dim=0, correction=0), float(len(values))
        if self.count == 0.0:
            return Moments(mean, variance, count)
        total = self.count + count
        delta = mean - self.mean
        squares = self.variance * self.count + variance * count + delta.square() * self.count * count / total
        return Moments(self.mean + delta * count / total, squares / total, total)


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """Running statistics of observations and returns, and the normalisation by them.

    Attributes:
        observations: statistics by key of the observation space (``""`` if it is not a Dict), for normalised keys only.
        returns: statistics of the discounted returns, by whose standard deviation rewards are divided; None: rewards
            are not normalised.
        clip: normalised observations and rewards are clipped to plus and minus this.
        epsilon: added to variances.
    """

    observations: Mapping[str, Moments] = field(default_factory=dict)
    returns: Moments | None = None
    clip: float = 10.0
    epsilon: float = 1e-8

    def observe(self, observations: Any) -> Any:
        """Return normalised observations, tensors or numpy arrays ``[..., *obs]``, in single precision."""
        if not self.observations:
            return observations
        if not isinstance(observations, dict):
            return self._scaled("", observations)
        return {
            key: self._scaled(key, part) if key in self.observations else part for key, part in observations.items()
        }

    def _scaled(self, key: str, values: Any) -> Any:
        if self.observations[key].count == 0.0:
            return values.astype(np.float32) if isinstance(values, np.ndarray) else values.to(torch.float32)
        mean, scale = self.numbers(key)
        if isinstance(values, np.ndarray):
            return np.clip((values - mean.numpy()) / scale.numpy(), -self.clip, self.clip).astype(np.float32)
        scaled = (values - mean.to(values.device)) / scale.to(values.device)
        return scaled.clamp(-self.clip, self.clip).to(torch.float32)

    def numbers(self, key: str) -> tuple[Tensor, Tensor]:
        """Return the mean and the scale of observations of a key."""
        moments = self.observations[key]
        return moments.mean, (moments.variance + self.epsilon).sqrt()

    def scale_rewards(self, rewards: Tensor) -> Tensor:
        """Return rewards divided by the standard deviation of discounted returns (their mean is kept)."""
        if self.returns is None or self.returns.count == 0.0:
            return rewards
        return (rewards / (self.returns.variance + self.epsilon).sqrt()).clamp(-self.clip, self.clip)

    def update(self, rollouts: Rollouts, gamma: float) -> Normalizer:
        """Return the normaliser with the environment steps of all tasks and episodes added."""
        running = rollouts.mask.bool()
        given: Observations = map_observations(lambda part: part[:, :, :-1][running], rollouts.observations)
        seen = given if isinstance(given, dict) else {"": given}
        returns = self.returns
        if returns is not None:
            returns = returns.update(discounted_returns(rollouts.rewards, rollouts.mask, gamma)[running])
        observations = {key: moments.update(seen[key]) for key, moments in self.observations.items()}
        return replace(self, observations=observations, returns=returns)

    def tensors(self) -> dict[str, Tensor]:
        """Return the statistics as tensors by name, as in a checkpoint."""
        kept = {f"observations/{key}": moments for key, moments in self.observations.items()}
        if self.returns is not None:
            kept["returns/"] = self.returns
        named = {}
        for name, moments in kept.items():
            named[f"{name}/mean"], named[f"{name}/variance"] = moments.mean, moments.variance
            named[f"{name}/count"] = torch.tensor(moments.count, dtype=torch.float64)
        return named

    def restore(self, tensors: Mapping[str, Tensor]) -> Normalizer:
        """Return the normaliser with the statistics of ``tensors()``.

        Raises:
            KeyError: the statistics of something that is normalised are missing.
        """

        def moments(name: str) -> Moments:
            parts = [tensors[f"{name}/{part}"] for part in ("mean", "variance", "count")]
            return Moments(parts[0], parts[1], float(parts[2]))

        observations = {key: moments(f"observations/{key}") for key in self.observations}
        return replace(self, observations=observations, returns=None if self.returns is None else moments("returns/"))


def new_normalizer(space: spaces.Space[Any], observations: bool, rewards: bool) -> Normalizer:
    """Return a normaliser without any statistics yet.

    Args:
        space: the observation space.
        observations: whether to normalise observations; only boxes of real numbers, not images or whole numbers.
        rewards: whether to normalise rewards.

    Raises:
        ValueError: observations are to be normalised, but the space has no box of real numbers.
    """
    boxes = {
        key: Moments.none_yet(part.shape)
        for key, part in subspaces(space).items()
        if isinstance(part, spaces.Box) and part.dtype.kind == "f" and not is_image_space(part)
    }
    if observations and not boxes:
        raise ValueError(
            f"observations of {space} cannot be normalised, only boxes of real numbers; leave out "
            "learning.normalize_observations"
        )
    return Normalizer(observations=boxes if observations else {}, returns=Moments.none_yet(()) if rewards else None)


class NormalizedExtractor(nn.Module):
    """A features extractor that first normalises observations, with the statistics of a normaliser as buffers.

    Args:
        observation_space: of the policy.
        inner_class: the class of the features extractor that gets the normalised observations.
        inner_kwargs: its arguments.
    """

    def __init__(self, observation_space: spaces.Space[Any], inner_class: Any, inner_kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.inner = inner_class(observation_space, **inner_kwargs)
        self.keys = sorted(new_normalizer(observation_space, True, False).observations)
        for index, key in enumerate(self.keys):
            shape = subspaces(observation_space)[key].shape or ()
            self.register_buffer(f"mean_{index}", torch.zeros(shape, dtype=torch.float64))
            self.register_buffer(f"scale_{index}", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("clip", torch.tensor(torch.inf, dtype=torch.float64))

    @property
    def features_dim(self) -> int:
        """The number of features."""
        return int(self.inner.features_dim)

    def take(self, normalizer: Normalizer) -> None:
        """Copy the statistics of a normaliser."""
        nothing_yet = all(moments.count == 0.0 for moments in normalizer.observations.values())
        self.clip.fill_(torch.inf if nothing_yet else normalizer.clip)  # type: ignore[operator]
        for index, key in enumerate(self.keys):
            mean, scale = normalizer.numbers(key)
            getattr(self, f"mean_{index}").copy_(mean)
            getattr(self, f"scale_{index}").copy_(scale)

    def forward(self, observations: Observations) -> Tensor:
        """Return the features of preprocessed observations."""
        scaled = dict(observations) if isinstance(observations, dict) else {"": observations}
        for index, key in enumerate(self.keys):
            values = (scaled[key] - getattr(self, f"mean_{index}")) / getattr(self, f"scale_{index}")
            scaled[key] = values.clamp(-self.clip, self.clip).to(scaled[key].dtype)  # type: ignore[operator]
        features: Tensor = self.inner(scaled if isinstance(observations, dict) else scaled[""])
        return features
