"""E-MAML: MAML that credits the rollouts before adaptation with what the adaptation led to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from metarl.agents import Rollouts
from metarl.gradients.curvature import Chain
from metarl.learners.maml import MAML
from metarl.settings import FORBID, Clipped, PlainGradient, TrustRegion
from metarl.gradients.terms import Outputs, Slopes, Term


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
        credit = self.settings.outer.credit * adjusted
        return SamplingCredit([credit[part] for part in chain.parts])


class SamplingCredit:
    """``credit_i * mean_t log pi(a_t|s_t)`` of what was sampled before each inner step.

    Args:
        credits: for each part of the tasks a number, or ``[task]``.
    """

    def __init__(self, credits: Sequence[Tensor]) -> None:
        self._credits = credits

    def value(self, part: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of a part of the tasks and an inner step."""
        means = [(policy.log_prob(rows.actions) * rows.weights).sum(dim=-1) for policy, rows in outputs]
        return self._credits[part].to(means[0].dtype) * torch.stack(means).sum(dim=0)

    def slopes(self, part: int, step: int, outputs: Outputs) -> Slopes:
        """Return its derivative by what the policy says."""
        found = []
        for policy, rows in outputs:
            shares = (self._credits[part].unsqueeze(-1).to(rows.weights.dtype) * rows.weights).unsqueeze(-1)
            found.append([shares * score for score in policy.score(rows.actions)])
        return found
