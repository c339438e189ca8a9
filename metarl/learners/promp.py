"""ProMP: the low-variance curvature surrogate, a clipped meta-objective and a KL penalty before adaptation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metarl.agents import Rollouts, Samples, mean_kl
from metarl.gradients.curvature import Chain
from metarl.learners.maml import MAML, Update
from metarl.settings import Clipped, Positive, Switch
from metarl.gradients.terms import Outputs, Slopes, Term

_COEFFICIENT = "kl_coefficient"


@dataclass(frozen=True, kw_only=True)
class ProximalUpdate(Clipped):
    """PPO's epochs with a penalty on the KL of the policies before adaptation."""

    kl_coefficient: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 5e-4
    adaptive: Switch = False  # double the coefficient where the KL is above 1.5 times the target, halve it below 1/1.5
    target_kl: Positive = 0.01


class ProMP(MAML):
    """ProMP: proximal meta-policy search.

    The inner update descends the likelihood-ratio objective ``-mean(pi_theta / pi_theta_old A)`` (equation 12), whose
    Hessian, unlike that of ``-mean(log pi A)``, credits actions before adaptation by how well the update they cause
    agrees with the gradient after it. With the clipped surrogate of PPO after adaptation, Adam takes ``outer.epochs``
    steps on the same rollouts along

        ``mean_i J_i^CLIP(theta_i') - eta mean_k KL(pi_old,k, pi_k)``  (equation 14)

    with k over the policies before each inner step. Source: Rothfuss et al. 2019, algorithm 1.
    """

    name = "promp"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (ProximalUpdate,)
    source = "Rothfuss et al. 2019"
    inner_objective = "likelihood-ratio"

    def _first_extra(self) -> dict[str, Tensor]:
        coefficient = torch.tensor(self.settings.outer.kl_coefficient, dtype=torch.float64)
        return {**super()._first_extra(), _COEFFICIENT: coefficient}

    def _term(self, chain: Chain, rollouts: list[Rollouts]) -> Term | None:
        return KLPenalty(chain, self.extra[_COEFFICIENT])

    def _meta_update(self, chain: Chain, query: Samples, term: Term | None) -> Update:
        coefficient = self.extra[_COEFFICIENT]
        update = super()._meta_update(chain, query, term)
        figures = {**update.figures, "train/kl_coefficient": coefficient}
        outer = self.settings.outer
        if outer.adaptive:
            kl = update.figures["train/kl_before"]
            coefficient = torch.where(kl > 1.5 * outer.target_kl, 2.0 * coefficient, coefficient)
            coefficient = torch.where(kl < outer.target_kl / 1.5, coefficient / 2.0, coefficient)
        return replace(update, extra={**update.extra, _COEFFICIENT: coefficient}, figures=figures)


class KLPenalty:
    """Minus ``coefficient / K * KL(old, new)`` of the policies before each of the K inner steps.

    Args:
        chain: the inner updates that were played.
        coefficient: of the penalty.
    """

    def __init__(self, chain: Chain, coefficient: float | Tensor) -> None:
        steps, parts = range(len(chain.supports)), range(len(chain.parts))
        self._old = [[chain.outputs(step, part) for part in parts] for step in steps]
        self._coefficient = coefficient / len(steps)

    def value(self, part: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of a part of the tasks and an inner step."""
        pairs = zip(self._old[step][part], outputs, strict=True)
        kls = [mean_kl(old, new, rows) for (old, _), (new, rows) in pairs]
        return -self._coefficient * torch.stack(kls).sum(dim=0)

    def slopes(self, part: int, step: int, outputs: Outputs) -> Slopes:
        """Return its derivative by what the policy says."""
        found = []
        for (old, _), (new, rows) in zip(self._old[step][part], outputs, strict=True):
            shares = (-self._coefficient * rows.weights).unsqueeze(-1)
            found.append([shares * slope for slope in old.kl_slope(new)])
        return found
