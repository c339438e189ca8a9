"""E-MAML: MAML that credits the rollouts before adaptation with the return after adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import Rollouts
from metarl.fields import FORBID, NotNegative, setting
from metarl.gradients import task_axis
from metarl.gradients.adaptation import Adaptation
from metarl.gradients.backend import ObjectiveTerm, OutputGradients, Outputs
from metarl.learners.maml import MAML
from metarl.state import State


@dataclass(frozen=True, kw_only=True)
class Credit:
    """The weight of the credit for sampling before adaptation."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    credit: NotNegative = setting(1.0, "weight of the credit for sampling before adaptation; 0 is plain MAML")


class EMAML(MAML):
    """E-MAML: as MAML, with credit for what was sampled before adaptation.

    The rollouts tau before adaptation are drawn from the shared policy too, so the gradient of the expected return
    after adaptation has a second term, ``E[R(theta') grad log pi_theta(tau)]`` (Stadie et al. 2018, equation 3). So
    this term is added to MAML's meta-objective, for each task i and inner step:

        ``outer.credit * R_i * mean_t log pi(a_t | s_t)``

    over the steps t of the task's rollouts, at the parameters that collected them. R_i is the task's mean return after
    adaptation, standardised over the tasks, as in the authors' code of Rothfuss et al. (2019). The unbiased estimate
    has the sum over steps in place of the mean, which is far noisier; a larger ``outer.credit`` comes closer to it.
    """

    name = "e-maml"
    options = Credit
    source = "Stadie et al. 2018"

    def objective_term(self, state: State, adaptation: Adaptation, rollouts: list[Rollouts]) -> ObjectiveTerm | None:
        """Return the credit for the samples before each inner step."""
        returns = rollouts[-1].returns().to(self.device)
        credit = self.settings.outer.credit * task_axis.standardize(returns)
        return SamplingCredit([credit[group] for group in adaptation.groups])


class SamplingCredit:
    """The term ``credit_i * mean_t log pi(a_t|s_t)`` of the samples before each inner step.

    Args:
        credits: for each task group a number, or ``[task]``.
    """

    def __init__(self, credits: Sequence[Tensor]) -> None:
        self._credits = credits

    def value(self, group: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of a task group and an inner step."""
        means = [(policy.log_prob(rows.actions) * rows.weights).sum(dim=-1) for policy, rows in outputs]
        return self._credits[group].to(means[0].dtype) * torch.stack(means).sum(dim=0)

    def output_gradients(self, group: int, step: int, outputs: Outputs) -> OutputGradients:
        """Return the term's gradient with respect to the parameters of the policies' distributions."""
        found = []
        for policy, rows in outputs:
            shares = (self._credits[group].unsqueeze(-1).to(rows.weights.dtype) * rows.weights).unsqueeze(-1)
            found.append([shares * score for score in policy.score(rows.actions)])
        return found
