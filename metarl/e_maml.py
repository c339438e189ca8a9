"""E-MAML: MAML that credits the rollouts before adaptation with what the adaptation led to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from metarl.agents import POLICY_GRADIENT, Policy, Rollouts, Samples
from metarl.curvature import Chain, Term
from metarl.inner import choose_path
from metarl.maml import MAML
from metarl.settings import FORBID, Clipped, PlainGradient, TrustRegion
from metarl.vectors import named


@dataclass(frozen=True, kw_only=True)
class Credit:
    """How much sampling before adaptation is credited."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    credit: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 1.0  # 0: plain MAML


@dataclass(frozen=True, kw_only=True)
class CreditTrustRegion(Credit, TrustRegion):
    """E-MAML with TRPO."""


@dataclass(frozen=True, kw_only=True)
class CreditClipped(Credit, Clipped):
    """E-MAML with PPO."""


@dataclass(frozen=True, kw_only=True)
class CreditPlainGradient(Credit, PlainGradient):
    """E-MAML with a plain gradient step."""


class EMAML(MAML):
    """E-MAML: as MAML, with credit for what was sampled before adaptation.

    The rollouts tau before adaptation are drawn from the shared policy too, so the gradient of the expected return
    after adaptation has a second term, ``E[R(theta') grad log pi_theta(tau)]`` (Stadie et al. 2018, equation 3). To
    the meta-objective of MAML is added, for each task i and inner step,

        ``outer.credit * R_i * mean_t log pi(a_t | s_t)``

    over the steps of its rollouts, at the parameters that drew them. R_i is the task's mean return after adaptation,
    less the mean over the tasks and divided by their standard deviation, as in the authors' code of Rothfuss et al.
    (2019). The mean over steps stands where the estimate without bias has the sum, which is far noisier; a larger
    ``outer.credit`` goes towards it.
    """

    name = "e-maml"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (CreditTrustRegion, CreditClipped, CreditPlainGradient)
    source = "Stadie et al. 2018"

    def _term(self, chain: Chain, rollouts: list[Rollouts]) -> Term | None:
        returns = rollouts[-1].returns().to(self.device)
        spread = returns.std(correction=0)
        adjusted = torch.where(spread > 0, (returns - returns.mean()) / spread.clamp(min=1e-8), 0.0)
        return SamplingCredit(self._policy, self.settings.outer.credit * adjusted)


class SamplingCredit:
    """``credit_i * mean_t log pi(a_t|s_t)`` of what was sampled before each inner step.

    Args:
        policy: whose log-probabilities are credited.
        credits: ``[task]``.
    """

    def __init__(self, policy: Policy, credits: Tensor) -> None:
        self._policy = policy
        self._credits = credits
        self._path = choose_path(policy, credits.device, objective=POLICY_GRADIENT, keep=False, together=False)

    def _credited(self, task: int, samples: Samples) -> Samples:
        credit = self._credits[task].to(samples.advantages.dtype)
        return replace(samples, advantages=credit.expand_as(samples.advantages))

    @torch.no_grad()
    def value(self, task: int, step: int, vector: Tensor, samples: Samples) -> Tensor:
        """Return the term of one task and inner step."""
        distribution = self._policy.distribution(named(self._policy.shapes, vector), samples.observations)
        return -POLICY_GRADIENT.loss(distribution, self._credited(task, samples))

    def gradient(self, task: int, step: int, vector: Tensor, samples: Samples) -> Tensor:
        """Return its gradient."""
        return -self._path.inner_gradient(vector, self._credited(task, samples))
