"""Samples: the steps of each task's episodes as rows ``[task, sample, ...]``, with advantages, for objectives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from metarl.agents.baselines import linear_baseline
from metarl.agents.observations import Observations, map_observations
from metarl.agents.returns import discounted_returns, generalized_advantages, normalize
from metarl.agents.rollouts import Rollouts


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The steps of a batch of rollouts: ``[task, sample, ...]``, or ``[sample, ...]`` for one task.

    Attributes:
        observations: ``[task, sample, *obs]``, a dict of them for a Dict space.
        actions: ``[task, sample, *action]``, those of a box as vectors.
        log_probs: ``[task, sample]``, under the policy that acted.
        advantages: ``[task, sample]``, normalised for each task; 0 for padding.
        weights: ``[task, sample]``, with which a sum over samples is the mean over environment steps; 0 for padding.
        episode_rows: the number of consecutive samples that make up an episode, including padding at its end.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    weights: Tensor
    episode_rows: int

    def task(self, index: int | slice) -> Samples:
        """Return a copy of the samples of one task, without the task axis, or of several; for all tasks, no copy.

        A copy, since the last bit of a matrix product can depend on the address at which a view begins.
        """
        return self if index == slice(None) else self.map(lambda part: part[index].clone())

    def joined(self) -> Samples:
        """Return the samples of all tasks as if they were of one task, without the task axis."""
        return self.map(lambda part: part.flatten(0, 1))

    def map(self, function: Callable[[Tensor], Tensor]) -> Samples:
        """Return the samples with a function applied to every tensor."""
        tensors = (field.name for field in fields(self) if field.name != "episode_rows")
        return replace(self, **{name: map_observations(function, getattr(self, name)) for name in tensors})

    def by_episode(self, values: Tensor) -> Tensor:
        """Return values of the samples, ``[..., sample]``, as ``[..., episode, time]``."""
        return values.reshape(*values.shape[:-1], -1, self.episode_rows)

    def subsample(self, fraction: float) -> Samples:
        """Return about ``fraction`` of each task's samples, with weights for their mean, as episodes of one step each.

        They are one row of every ``1 / fraction`` consecutive rows: always the same ones, but at irregular distances,
        since regular ones could select the same time steps of every episode.
        """
        total = self.weights.shape[-1]
        rows = _spread(total, max(1, round(total * fraction)), self.weights.device)
        kept = self.map(lambda part: part[:, rows])
        mask = (kept.weights > 0).to(self.weights.dtype)
        return replace(kept, weights=mask / mask.sum(dim=-1, keepdim=True).clamp(min=1.0), episode_rows=1)


@functools.cache
def _spread(total: int, keep: int, device: torch.device) -> Tensor:
    """Return ``keep`` row numbers out of ``total``; the cache keeps them on the device."""
    within = torch.rand(keep, generator=torch.Generator().manual_seed(total), dtype=torch.float64)
    return ((torch.arange(keep) + within) * (total / keep)).long().to(device)


def to_samples(
    rollouts: Rollouts,
    features: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    baseline: Literal["linear", "none"] = "linear",
    discounted: bool = False,
) -> Samples:
    """Estimate advantages and return the steps of rollouts as samples.

    Args:
        rollouts: ``[task, episode, time, ...]``.
        features: ``[task, episode, time + 1, feature]``, the observations as inputs of the baseline.
        gamma: the discount factor.
        gae_lambda: the decay of the advantage estimator.
        baseline: what is subtracted from the returns. With ``none``, the advantages are the discounted returns to the
            episode's end, scaled to unit root mean square but not centred, since centring would be a baseline too.
        discounted: multiply the advantages of step t by ``gamma^t``, as in the derivative of the discounted return.
    """
    returns = discounted_returns(rollouts.rewards, rollouts.mask, gamma)
    advantages = returns
    if baseline == "linear":
        advantages = generalized_advantages(
            rollouts.rewards,
            linear_baseline(features, returns, rollouts.mask),
            rollouts.mask,
            rollouts.terminated,
            rollouts.truncated,
            gamma=gamma,
            gae_lambda=gae_lambda,
        )
    advantages = normalize(advantages, rollouts.mask, returns, centre=baseline != "none")
    if discounted:
        times = torch.arange(advantages.shape[-1], dtype=advantages.dtype, device=advantages.device)
        advantages = advantages * gamma**times
    count = rollouts.mask.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)
    actions = rollouts.actions.flatten(1, 2)
    if actions.is_floating_point():
        # Distributions expect vectors, whatever the shape of the box.
        actions = actions.reshape(*actions.shape[:2], -1)
    return Samples(
        observations=map_observations(lambda part: part[:, :, :-1].flatten(1, 2), rollouts.observations),
        actions=actions,
        log_probs=rollouts.log_probs.flatten(1, 2),
        advantages=advantages.flatten(1, 2),
        weights=(rollouts.mask / count).flatten(1, 2),
        episode_rows=rollouts.mask.shape[2],
    )
