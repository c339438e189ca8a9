"""Surrogate objectives: pure functions of a distribution and the samples it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    return likelihood_ratio_parts(distribution, samples).sum(dim=-1)


def likelihood_ratio_parts(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the terms of ``likelihood_ratio_gain``, ``[..., sample]``; each is its own derivative by log pi."""
    log_ratio = distribution.log_prob(samples.actions) - samples.log_probs
    # Padding weighs nothing, but an infinite ratio there would make 0 * inf.
    ratio = torch.where(samples.weights > 0, log_ratio, 0.0).exp()
    return ratio * samples.advantages * samples.weights


def mean_kl(old: Distribution, new: Distribution, samples: Samples) -> Tensor:
    """Return the mean of KL(old, new) over the steps that ran: ``[...]``."""
    return (old.kl(new) * samples.weights).sum(dim=-1)


@dataclass(frozen=True)
class InnerObjective:
    """What the inner update descends: a sum over samples of functions of log pi(a|s).

    Attributes:
        loss: distribution, samples -> ``[...]``.
        derivatives: distribution, samples -> the loss's first and second derivative by each sample's log pi(a|s),
            ``[..., sample]``; None for a second derivative of 0.
    """

    loss: Callable[[Distribution, Samples], Tensor]
    derivatives: Callable[[Distribution, Samples], tuple[Tensor, Tensor | None]]


def _policy_gradient_derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, None]:
    return -samples.advantages * samples.weights, None


def _likelihood_ratio_derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, Tensor]:
    terms = -likelihood_ratio_parts(distribution, samples)
    return terms, terms


POLICY_GRADIENT = InnerObjective(policy_gradient_loss, _policy_gradient_derivatives)
# Where the acting policy is the one that is differentiated the ratio is 1, as in the "magic box" of DiCE (Foerster et
# al. 2018) for a single step and in ProMP's inner loss (Rothfuss et al. 2019, equation 12).
LIKELIHOOD_RATIO = InnerObjective(
    lambda distribution, samples: -likelihood_ratio_gain(distribution, samples), _likelihood_ratio_derivatives
)


def clipped_objective(clip: float) -> InnerObjective:
    """Return PPO's clipped surrogate as a loss, ``-mean(min(r A, clamp(r, 1 - clip, 1 + clip) A))``, r the ratio.

    Source: Schulman et al. 2017 (PPO), equation 7.
    """

    def parts(distribution: Distribution, samples: Samples) -> tuple[Tensor, Tensor]:
        terms = likelihood_ratio_parts(distribution, samples)
        weighted = samples.advantages * samples.weights
        limited = torch.where(weighted > 0, (1.0 + clip) * weighted, (1.0 - clip) * weighted)
        return terms, limited

    def loss(distribution: Distribution, samples: Samples) -> Tensor:
        return -torch.minimum(*parts(distribution, samples)).sum(dim=-1)

    def derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, Tensor]:
        terms, limited = parts(distribution, samples)
        active = -torch.where(terms <= limited, terms, 0.0)
        return active, active

    return InnerObjective(loss, derivatives)
