"""ProMP: the low-variance curvature surrogate, a clipped meta-objective and a KL penalty before adaptation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import Rollouts, mean_kl
from metarl.fields import FORBID, NotNegative, Positive, Switch, setting
from metarl.gradients.adaptation import Adaptation
from metarl.gradients.backend import ObjectiveTerm, OutputGradients, Outputs
from metarl.gradients.meta_update import Clipped, MetaStep
from metarl.learners.maml import MAML
from metarl.state import State

COEFFICIENT = "kl_coefficient"


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """A penalty on the KL of the policies before adaptation."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    kl_coefficient: NotNegative = setting(5e-4, "weight of the penalty on the KL before adaptation")
    adaptive: Switch = setting(
        False, "double kl_coefficient where the KL is above 1.5 times target_kl, halve it below target_kl / 1.5"
    )
    target_kl: Positive = setting(0.01, "the KL that adaptive aims at", "nats")


class ProMP(MAML):
    """ProMP: proximal meta-policy search.

    The inner update descends the likelihood-ratio objective ``-mean(pi_theta / pi_theta_old A)`` (equation 12). Unlike
    that of ``-mean(log pi A)``, its Hessian credits actions before adaptation by how well the update they cause agrees
    with the gradient after it. Adam takes ``outer.epochs`` steps on the same rollouts, with PPO's clipped surrogate
    after adaptation, to increase

        ``mean_i J_i^CLIP(theta_i') - eta mean_k KL(pi_old,k, pi_k)``  (equation 14)

    where k numbers the policies before each inner step. Source: Rothfuss et al. 2019, algorithm 1.
    """

    name = "promp"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Clipped,)
    options = Penalty
    source = "Rothfuss et al. 2019"
    inner_objective = "likelihood-ratio"

    def initial_tensors(self) -> dict[str, Tensor]:
        """Return the penalty's coefficient before training."""
        coefficient = torch.tensor(self.settings.outer.kl_coefficient, dtype=torch.float64, device=self.device)
        return {COEFFICIENT: coefficient}

    def objective_term(self, state: State, adaptation: Adaptation, rollouts: list[Rollouts]) -> ObjectiveTerm | None:
        """Return the penalty on the KL."""
        return KLPenalty(adaptation, state.own_tensors[COEFFICIENT])

    def next_state(self, state: State, adaptation: Adaptation, step: MetaStep) -> State:
        """Return the next state; with ``outer.adaptive``, the coefficient is adapted to the KL."""
        outer, coefficient = self.settings.outer, state.own_tensors[COEFFICIENT]
        if outer.adaptive:
            kl = step.metrics["train/kl_before"]
            assert isinstance(kl, Tensor)
            coefficient = torch.where(kl > 1.5 * outer.target_kl, 2.0 * coefficient, coefficient)
            coefficient = torch.where(kl < outer.target_kl / 1.5, coefficient / 2.0, coefficient)
        following = super().next_state(state, adaptation, step)
        return replace(following, own_tensors={**following.own_tensors, COEFFICIENT: coefficient})

    def metrics(self, state: State, step: MetaStep) -> dict[str, Tensor | float]:
        """Return the penalty's coefficient."""
        return {"train/kl_coefficient": state.own_tensors[COEFFICIENT]}


class KLPenalty:
    """Minus ``coefficient / K * KL(old, new)`` of the policies before each of the K inner steps.

    Args:
        adaptation: the inner updates.
        coefficient: of the penalty.
    """

    def __init__(self, adaptation: Adaptation, coefficient: float | Tensor) -> None:
        steps, groups = range(len(adaptation.supports)), range(len(adaptation.groups))
        self._old = [[adaptation.outputs(step, group) for group in groups] for step in steps]
        self._coefficient = coefficient / len(steps)

    def value(self, group: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of a task group and an inner step."""
        pairs = zip(self._old[step][group], outputs, strict=True)
        kls = [mean_kl(old, new, rows) for (old, _), (new, rows) in pairs]
        return -self._coefficient * torch.stack(kls).sum(dim=0)

    def output_gradients(self, group: int, step: int, outputs: Outputs) -> OutputGradients:
        """Return the term's gradient with respect to the parameters of the policies' distributions."""
        found = []
        for (old, _), (new, rows) in zip(self._old[step][group], outputs, strict=True):
            shares = (-self._coefficient * rows.weights).unsqueeze(-1)
            found.append([shares * gradient for gradient in old.kl_gradient(new)])
        return found
