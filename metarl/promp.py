"""ProMP: the low-variance curvature surrogate, a clipped meta-objective and a KL penalty before adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from metarl.agents import Parameters, Policy, Rollouts, Samples, mean_kl
from metarl.curvature import Chain, Term
from metarl.inner import task_vectors
from metarl.maml import MAML
from metarl.settings import Clipped, Positive, Switch
from metarl.vectors import flatten, named

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
        return KLPenalty(self._policy, chain, float(self.extra[_COEFFICIENT]))

    def _meta_update(
        self, iteration: int, tasks: Any, chain: Chain, query: Samples, term: Term | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        coefficient = self.extra[_COEFFICIENT]
        vector, extra = super()._meta_update(iteration, tasks, chain, query, term)
        self.logger.record("train/kl_coefficient", float(coefficient))
        outer = self.settings.outer
        if outer.adaptive:
            kl = float(self._kl_before(chain, vector, chain.supports[0]))
            if kl > 1.5 * outer.target_kl:
                coefficient = 2.0 * coefficient
            elif kl < outer.target_kl / 1.5:
                coefficient = coefficient / 2.0
        return vector, {**extra, _COEFFICIENT: coefficient}


class KLPenalty:
    """Minus ``coefficient / K * KL(old, new)`` of the policies before each of the K inner steps.

    Args:
        policy: whose distributions are compared.
        chain: the inner updates that were played.
        coefficient: of the penalty.
    """

    def __init__(self, policy: Policy, chain: Chain, coefficient: float) -> None:
        n_tasks = chain.supports[0].weights.shape[0]
        self._policy = policy
        self._old = [task_vectors(policy, parameters, n_tasks) for parameters in chain.parameters[:-1]]
        self._coefficient = coefficient / len(chain.supports)

    def _penalty(self, own: Parameters, task: int, step: int, samples: Samples) -> Tensor:
        given = named(self._policy.shapes, self._old[step][task])
        with torch.no_grad():
            old = self._policy.distribution(given, samples.observations)
        new = self._policy.distribution(own, samples.observations)
        return -self._coefficient * mean_kl(old, new, samples)

    @torch.no_grad()
    def value(self, task: int, step: int, vector: Tensor, samples: Samples) -> Tensor:
        """Return the term of one task and inner step."""
        return self._penalty(named(self._policy.shapes, vector), task, step, samples)

    def gradient(self, task: int, step: int, vector: Tensor, samples: Samples) -> Tensor:
        """Return its gradient; 0 where the policy is still the old one."""
        if torch.equal(vector, self._old[step][task]):
            return torch.zeros_like(vector)
        own = {name: part.detach().requires_grad_() for name, part in named(self._policy.shapes, vector).items()}
        penalty = self._penalty(own, task, step, samples)
        return flatten(torch.autograd.grad(penalty, list(own.values()), allow_unused=True, materialize_grads=True))
