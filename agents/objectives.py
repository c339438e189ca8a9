"""Surrogate objectives: pure functions of a distribution and the samples it is judged on."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.distributions import Distribution
from metarl.agents.samples import Samples


def policy_gradient_loss(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the vanilla policy-gradient loss, ``-mean(log pi(a|s) * A)`` over the steps that ran: ``[...]``.

    Source: Williams 1992; the inner loss of Finn et al. 2017.
    """
    return -(distribution.log_prob(samples.actions) * samples.advantages * samples.weights).sum(dim=-1)


def likelihood_ratio_gain(distribution: Distribution, samples: Samples) -> Tensor:
    """Return ``mean(pi(a|s) / pi_acting(a|s) * A)`` over the steps that ran: ``[...]``.

    Source: Schulman et al. 2015 (TRPO), equation 14.
    """
    log_ratio = distribution.log_prob(samples.actions) - samples.log_probs
    # Padding weighs nothing, but an infinite ratio there would make 0 * inf.
    ratio = torch.where(samples.weights > 0, log_ratio, 0.0).exp()
    return (ratio * samples.advantages * samples.weights).sum(dim=-1)


def mean_kl(old: Distribution, new: Distribution, samples: Samples) -> Tensor:
    """Return the mean of KL(old, new) over the steps that ran: ``[...]``."""
    return (old.kl(new) * samples.weights).sum(dim=-1)
