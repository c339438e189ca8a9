"""Surrogate objectives: pure functions of a policy's action distribution for samples, and of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from metarl.agents.distributions import Distribution
from metarl.agents.samples import Samples


def policy_gradient_loss(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the vanilla policy-gradient loss, ``-mean(log pi(a|s) * A)`` over environment steps: ``[...]``.

    Source: Williams 1992; the inner loss of Finn et al. 2017.
    """
    return -(distribution.log_prob(samples.actions) * samples.advantages * samples.weights).sum(dim=-1)


def likelihood_ratio_gain(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the surrogate gain ``mean(pi(a|s) / pi_acting(a|s) * A)`` over environment steps: ``[...]``.

    Source: Schulman et al. 2015 (TRPO), equation 14.
    """
    return likelihood_ratio_parts(distribution, samples).sum(dim=-1)


def likelihood_ratio_parts(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the terms of ``likelihood_ratio_gain``, ``[..., sample]``; each is its derivative by its own log pi."""
    log_ratio = distribution.log_prob(samples.actions) - samples.log_probs
    # The weight of padding is 0, but an infinite ratio times 0 would be NaN.
    ratio = torch.where(samples.weights > 0, log_ratio, 0.0).exp()
    return ratio * samples.advantages * samples.weights


def mean_kl(old: Distribution, new: Distribution, samples: Samples) -> Tensor:
    """Return the mean of KL(old, new) over environment steps: ``[...]``."""
    return (old.kl(new) * samples.weights).sum(dim=-1)


def dice_loss(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the loss of DiCE, ``-mean(B_t rho_t)`` over environment steps: ``[...]``.

    B_t, the "magic box", is ``prod_{s <= t} pi(a_s|s_s) / pi_acting(a_s|s_s)`` over the episode's steps so far. For the
    policy that acted it is 1, with the derivatives of ``exp(x - stopgrad(x))``; for other policies the loss is an
    estimate by per-decision importance sampling. ``rho_t = A_t - A_{t+1}``, with A_t the advantages of the samples, 0
    after the episode.

    If A_t is ``gamma^t`` times the reward-to-go, rho_t is ``gamma^t r_t``, and this is DiCE's own loss: its derivatives
    of all orders are, in expectation, those of minus the discounted return. With advantages over a baseline in place of
    the reward-to-go it is, up to a constant, the loss of Loaded DiCE, ``-mean((B_t - B_{t-1}) A_t)``, where
    dependencies on the past do not decay (its lambda is 1).

    Source: Foerster et al. 2018, theorem 1; Farquhar et al. 2019; by importance sampling, Tang et al. 2021.
    """
    return -dice_parts(distribution, samples).sum(dim=(-2, -1))


def dice_parts(distribution: Distribution, samples: Samples) -> Tensor:
    """Return the terms ``B_t rho_t`` of ``dice_loss``, weighted: ``[..., episode, time]``."""
    log_ratio = distribution.log_prob(samples.actions) - samples.log_probs
    boxes = samples.by_episode(torch.where(samples.weights > 0, log_ratio, 0.0)).cumsum(dim=-1).exp()
    credits = samples.by_episode(samples.advantages * samples.weights)
    return boxes * (credits - _next(credits))


def _next(steps: Tensor) -> Tensor:
    """Return for each step of an episode ``[..., time]`` the value at the next step, 0 at the last."""
    return functional.pad(steps[..., 1:], (0, 1))


def _to_the_end(steps: Tensor) -> Tensor:
    """Return the sums from each step to an episode's end, ``[..., time]``."""
    return steps.flip(-1).cumsum(dim=-1).flip(-1)


# The product with a second derivative: a change of each log pi(a|s), [..., sample] -> the change of first derivatives.
Second = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class InnerObjective:
    """The objective of an inner update: a loss that is a function of the samples' log pi(a|s).

    Attributes:
        loss: distribution, samples -> ``[...]``.
        derivatives: distribution, samples -> the loss's first derivative with respect to each sample's log pi(a|s),
            ``[..., sample]``, and the product with its second derivative, a function of a change of each log pi(a|s);
            None for a second derivative of zero.
        coupled: whether the second derivative couples the steps of an episode. Samples must then be processed by whole
            episodes.
    """

    loss: Callable[[Distribution, Samples], Tensor]
    derivatives: Callable[[Distribution, Samples], tuple[Tensor, Second | None]]
    coupled: bool = False


def _policy_gradient_derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, None]:
    return -samples.advantages * samples.weights, None


def _likelihood_ratio_derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, Second]:
    terms = -likelihood_ratio_parts(distribution, samples)
    return terms, terms.mul


def _dice_derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, Second]:
    # The derivative with respect to log pi_s sums the terms from step s on; the second derivative with respect to
    # log pi_s and log pi_s' sums those from the later of both steps on.
    first = -_to_the_end(dice_parts(distribution, samples))

    def second(change: Tensor) -> Tensor:
        steps = samples.by_episode(change)
        return (first * steps.cumsum(dim=-1) + _next(_to_the_end(first * steps))).flatten(-2)

    return first.flatten(-2), second


POLICY_GRADIENT = InnerObjective(policy_gradient_loss, _policy_gradient_derivatives)
# If the policy that acted is the one that is differentiated, the ratio is 1, as in ProMP's inner loss (Rothfuss et al.
# 2019, equation 12).
LIKELIHOOD_RATIO = InnerObjective(
    lambda distribution, samples: -likelihood_ratio_gain(distribution, samples), _likelihood_ratio_derivatives
)
DICE = InnerObjective(dice_loss, _dice_derivatives, coupled=True)


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

    def derivatives(distribution: Distribution, samples: Samples) -> tuple[Tensor, Second]:
        terms, limited = parts(distribution, samples)
        active = -torch.where(terms <= limited, terms, 0.0)
        return active, active.mul

    return InnerObjective(loss, derivatives)
