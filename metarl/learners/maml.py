"""MAML: second-order model-agnostic meta-learning; the meta-update is TRPO's, PPO's or a plain gradient step.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) or PPO (Schulman et al. 2017) as the
meta-optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents import DICE, LIKELIHOOD_RATIO, POLICY_GRADIENT, Parameters, Policy, Rollouts, Samples
from metarl.gradients.curvature import Chain, adapted_kl
from metarl.gradients.inner import StepSize, choose_path
from metarl.learner import BaseLearner, Outcome
from metarl.gradients.meta_update import MetaGradients, gradient_steps, refuse_not_finite, trust_region_step
from metarl.gradients.optimizers import first_moments
from metarl.gradients.parallel import mean_over_steps
from metarl.settings import Clipped, PlainGradient, TrustRegion
from metarl.gradients.terms import Term

_OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO, "dice": DICE}


@dataclass(frozen=True)
class Update:
    """Where a meta-update led.

    Attributes:
        vector: what ``chain.vector`` became.
        extra: what the learner keeps beside the shared parameters.
        gradients: the meta-gradients it went along.
        figures: metrics by name, not read from the device yet.
    """

    vector: Tensor
    extra: dict[str, Tensor]
    gradients: MetaGradients
    figures: dict[str, Tensor]


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

    def _take_policy(self, policy: Policy) -> None:
        outer = self.settings.outer
        objective = _OBJECTIVES[self.settings.inner.objective_of(self)]
        keep = outer.memory == "keep"
        self.path = choose_path(
            policy, self.device, path=outer.path, objective=objective, adapts=self.adapts, keep=keep
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
            if step < self.settings.inner.steps:
                chain.adapt(self._inner_samples(rollouts[-1]), self.training_step_size(step))
        update = self._meta_update(chain, self._samples(rollouts[-1]), self._term(chain, rollouts))
        self._read(update, self._policy_figures(chain.supports[0]), iteration, tasks)
        return Outcome(chain.shared(update.vector), rollouts, update.extra)

    def _meta_update(self, chain: Chain, query: Samples, term: Term | None) -> Update:
        """Return what ``chain.vector`` becomes."""
        outer = self.settings.outer
        if outer.update != "trpo":
            vector, state, gradients = gradient_steps(chain, query, outer, self.extra, term)
            kls = {
                "train/kl": adapted_kl(chain, vector, query),
                "train/kl_before": self._kl_before(chain, vector, chain.supports[0]),
            }
            return Update(vector, state, gradients, kls)
        met = chain.supports[0].thin(outer.fisher_fraction)
        step, gradients = trust_region_step(
            chain, query, outer, lambda vector: self._kl_before(chain, vector, met), term
        )
        if step.accepted is None:
            self.line_search_failures += 1
        else:
            for name, kl in zip(("train/kl", "train/kl_before"), step.kls, strict=True):
                self.logger.record(name, kl)
            self.logger.record("train/surrogate_improvement", step.improvement)
            self.logger.record("train/line_search_step", outer.line_search_ratio**step.accepted)
        self.logger.record("train/line_search_failures", self.line_search_failures)
        return Update(step.parameters, {}, gradients, {})

    def _read(self, update: Update, figures: dict[str, Tensor], iteration: int, tasks: Any) -> None:
        """Read what is logged in one go: on a GPU the host waits for nothing else but the line search.

        Raises:
            FloatingPointError: a meta-gradient is not finite.
        """
        norms, faulty = update.gradients.norms, update.gradients.faulty
        figures = {"train/gradient_norm": norms[0], **update.figures, **figures}
        logged = torch.stack([value.double() for value in figures.values()])
        values = torch.cat([logged, norms.double(), faulty.double()]).tolist()
        read = values[: len(figures)]
        refuse_not_finite(values[len(figures) : -len(faulty)], values[-len(faulty) :], iteration, tasks)
        for name, value in zip(figures, read, strict=True):
            self.logger.record(name, value)

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
