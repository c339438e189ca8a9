"""MAML: second-order model-agnostic meta-learning; the meta-update is TRPO's, PPO's or a plain gradient step.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) or PPO (Schulman et al. 2017) as the
meta-optimiser.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from metarl.agents import LIKELIHOOD_RATIO, POLICY_GRADIENT, Parameters, Policy, Rollouts, Samples, mean_kl
from metarl.curvature import Chain, Term
from metarl.inner import StepSize, choose_path
from metarl.learner import BaseLearner, Outcome
from metarl.meta_update import gradient_steps, trust_region_step
from metarl.optimizers import first_moments
from metarl.parallel import mean_over_steps
from metarl.settings import Clipped, PlainGradient, TrustRegion
from metarl.vectors import task_parameters

_OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO}


class MAML(BaseLearner):
    """Learns shared parameters from which a few policy-gradient steps adapt to a task.

    With the inner steps ``theta_i' = theta - alpha grad L_i(theta)``, it increases ``mean_i J_i(theta_i')``, J_i the
    return of task i, by ``mean_i (I - alpha grad^2 L_i(theta))^T grad J_i(theta_i')`` (Finn et al. 2017, equation 4).
    The arguments are those of ``BaseLearner``.

    ``MAML("MlpPolicy", "metarl/Navigation2D-v0", seed=1).learn(iterations=100)``
    """

    name = "maml"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (TrustRegion, Clipped, PlainGradient)
    source = "Finn et al. 2017"
    inner_objective: ClassVar[Literal["policy-gradient", "likelihood-ratio"]] = "policy-gradient"

    def _take_policy(self, policy: Policy) -> None:
        outer, chosen = self.settings.outer, self.settings.inner.objective
        objective = _OBJECTIVES[self.inner_objective if chosen == "auto" else chosen]
        # Terms, and PPO's epochs, follow the tasks one by one, on a GPU too.
        together = type(self)._term is MAML._term and outer.update == "trpo"
        self.path = choose_path(
            policy, self.device, path=outer.path, objective=objective, keep=outer.memory == "keep", together=together
        )
        super()._take_policy(policy)

    def _first_extra(self) -> dict[str, Tensor]:
        outer = self.settings.outer
        if outer.update == "trpo":
            return {}
        return first_moments("adam" if outer.update == "ppo" else outer.optimizer, self._chain().vector)

    def _chain(self) -> Chain:
        """Return the inner updates of an iteration, before the first."""
        return Chain(self._policy, self.path, self.parameters)

    def training_step_size(self, step: int) -> StepSize:
        """Return the size of inner step ``step`` (from 0) in training."""
        return self.settings.inner.step_size

    def _term(self, chain: Chain, rollouts: list[Rollouts]) -> Term | None:
        """Return what is added to the meta-objective."""
        return None

    def _meta_iteration(self, iteration: int) -> Outcome:
        tasks = self._training_tasks(iteration)
        if iteration == 1:
            self.logger.record("train/path", self.path.name, exclude="csv")
        chain = self._chain()
        rollouts = []
        for step in range(self.settings.inner.steps + 1):
            rollouts.append(self._collect(chain.parameters[-1], tasks, iteration, step))
            samples = self._samples(rollouts[-1])
            if step < self.settings.inner.steps:
                chain.adapt(samples, self.training_step_size(step))
        vector, extra = self._meta_update(iteration, tasks, chain, samples, self._term(chain, rollouts))
        # Read in one go, and only now: on a GPU the host waits for nothing else but the line search.
        figures = self._policy_figures(chain.supports[0])
        for name, value in zip(figures, torch.stack(list(figures.values())).tolist(), strict=True):
            self.logger.record(name, value)
        return Outcome(chain.shared(vector), rollouts, extra)

    def _meta_update(
        self, iteration: int, tasks: Any, chain: Chain, query: Samples, term: Term | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what ``chain.vector`` becomes, and ``extra``."""
        outer = self.settings.outer
        where = iteration, tasks
        if outer.update != "trpo":
            found = gradient_steps(chain, query, outer, self.extra, term, where)
            kl = float(mean_of_tasks_kl(self._policy, chain.parameters[-1], found.adapted, query))
            self._record_update(found.norm, kl, float(self._kl_before(chain, found.vector, chain.supports[0])))
            return found.vector, found.state
        met = chain.supports[0].thin(outer.fisher_fraction)
        step, norm = trust_region_step(
            chain, query, outer, lambda vector: self._kl_before(chain, vector, met), term, where
        )
        if step.accepted is None:
            self.line_search_failures += 1
            self._record_update(norm)
        else:
            self._record_update(norm, *step.kls)
            self.logger.record("train/surrogate_improvement", step.improvement)
            self.logger.record("train/line_search_step", outer.line_search_ratio**step.accepted)
        self.logger.record("train/line_search_failures", self.line_search_failures)
        return step.parameters, {}

    def _record_update(self, norm: float, kl: float | None = None, kl_before: float | None = None) -> None:
        self.logger.record("train/gradient_norm", norm)
        if kl is not None:
            self.logger.record("train/kl", kl)
            self.logger.record("train/kl_before", kl_before)

    def _kl_before(self, chain: Chain, vector: Tensor, samples: Samples) -> Tensor:
        """Return the mean KL, old to new, of the policy before adaptation on what it met, or a share of it."""
        return shared_kl(self._policy, chain.parameters[0], chain.shared(vector), samples)

    @torch.no_grad()
    def _policy_figures(self, samples: Samples) -> dict[str, Tensor]:
        """Return entropy and noise of the shared policy, on what it met before adaptation, by the metrics' names."""

        def entropy(part: Samples) -> Tensor:
            return self._policy.distribution(self.parameters, part.observations).entropy()

        figures = {"policy/entropy": mean_over_steps(entropy, samples)}
        if "log_std" in self.parameters:
            log_std = self._policy.head(self.parameters["action_net.bias"], self.parameters["log_std"]).parameters[1]
            figures["policy/std"] = log_std.exp().mean()
        return figures


def shared_kl(policy: Policy, old: Parameters, new: Parameters, samples: Samples) -> Tensor:
    """Return the mean KL, old to new, of shared parameters on the samples of all tasks."""

    def kl(part: Samples) -> Tensor:
        return policy.distribution(old, part.observations).kl(policy.distribution(new, part.observations))

    with torch.no_grad():
        return mean_over_steps(kl, samples)


@torch.no_grad()
def mean_of_tasks_kl(policy: Policy, old: Parameters, new: Parameters, query: Samples) -> Tensor:
    """Return the mean KL, old to new, of stacked parameters on each task's own samples."""
    kls = []
    for task in range(query.weights.shape[0]):
        samples = query.task(task)
        before, after = (policy.distribution(task_parameters(part, task), samples.observations) for part in (old, new))
        kls.append(mean_kl(before, after, samples))
    return torch.stack(kls).mean()
