"""Samples: what an objective reads, the steps of each task's episodes as rows ``[task, sample, ...]``."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metarl.agents.baselines import linear_baseline
from metarl.agents.returns import discounted_returns, generalized_advantages, normalize
from metarl.agents.rollouts import Rollouts


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The steps of a batch of rollouts: ``[task, sample, ...]``, or ``[sample, ...]`` for one task.

    Attributes:
        observations: ``[task, sample, *obs]``.
        actions: ``[task, sample, *action]``.
        log_probs: ``[task, sample]``, under the policy that acted.
        advantages: ``[task, sample]``, normalised per task.
        weights: ``[task, sample]``, what turns a sum over samples into the mean over the steps that ran; 0 for
            padding.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    weights: Tensor

    def task(self, index: int) -> Samples:
        """Return a copy of the samples of one task, without the task axis.

        A copy, since the bits of a matrix product may depend on how its operands lie in memory.
        """
        return Samples(**{field.name: getattr(self, field.name)[index].clone() for field in fields(self)})

    def thin(self, fraction: float) -> Samples:
        """Return about ``fraction`` of each task's samples, evenly spaced, weighted to a mean again."""
        total = self.weights.shape[-1]
        keep = max(1, round(total * fraction))
        rows = (torch.arange(keep, device=self.weights.device) * total) // keep
        parts = {field.name: getattr(self, field.name)[:, rows] for field in fields(self)}
        mask = (parts["weights"] > 0).to(self.weights.dtype)
        parts["weights"] = mask / mask.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return Samples(**parts)


def to_samples(rollouts: Rollouts, features: Tensor, *, gamma: float, gae_lambda: float) -> Samples:
    """Estimate advantages and lay the steps out as rows.

    Args:
        rollouts: ``[task, episode, time, ...]``.
        features: ``[task, episode, time + 1, feature]``, the observations as the baseline reads them.
        gamma: the discount factor.
        gae_lambda: the decay of the advantage estimator.
    """
    returns = discounted_returns(rollouts.rewards, rollouts.mask, gamma)
    values = linear_baseline(features, returns, rollouts.mask)
    advantages = generalized_advantages(
        rollouts.rewards,
        values,
        rollouts.mask,
        rollouts.terminated,
        rollouts.truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    count = rollouts.mask.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)
    return Samples(
        observations=rollouts.observations[:, :, :-1].flatten(1, 2),
        actions=rollouts.actions.flatten(1, 2),
        log_probs=rollouts.log_probs.flatten(1, 2),
        advantages=normalize(advantages, rollouts.mask).flatten(1, 2),
        weights=(rollouts.mask / count).flatten(1, 2),
    )
