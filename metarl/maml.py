"""MAML: second-order model-agnostic meta-learning with a trust-region meta-update.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) as the meta-optimiser.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from metarl.agents import Parameters, Samples
from metarl.agents.observations import map_observations
from metarl.curvature import Chain, Curvature
from metarl.envs import tasks as task_tools
from metarl.inner import inner_update
from metarl.learner import MetaLearner, Outcome
from metarl.trust_region import conjugate_gradient, full_step, line_search


class MAML(MetaLearner):
    """Learns shared parameters from which a few policy-gradient steps adapt to a task; see ``MetaLearner``.

    ``MAML("MlpPolicy", "metarl/Navigation2D-v0", seed=1).learn(iterations=100)``
    """

    name: Literal["maml"] = "maml"

    def _meta_iteration(self, iteration: int) -> Outcome:
        inner, outer = self.settings.inner, self.settings.outer
        tasks = self._training_tasks(iteration)
        chain = Chain([self.parameters], [], inner.step_size)
        rollouts = []
        for step in range(inner.steps + 1):
            rollouts.append(self._collect(chain.parameters[-1], tasks, iteration, step))
            samples = self._samples(rollouts[-1])
            if step < inner.steps:
                chain.supports.append(samples)
                chain.parameters.append(inner_update(self._policy, chain.parameters[-1], samples, inner.step_size))

        curvature = Curvature(self._policy, chain, samples, outer.fisher_fraction)
        norm = float(curvature.gradient.norm())
        if not math.isfinite(norm):
            faulty = int((~torch.isfinite(curvature.gradients)).any(dim=1).int().argmax())
            named = task_tools.plain(task_tools.take_tasks(tasks, faulty))
            raise FloatingPointError(
                f"iteration {iteration}: the meta-gradient is not finite, first that of task {named}; a smaller "
                "inner.step_size or a higher policy.log_std_min may help"
            )
        solution, residual = conjugate_gradient(
            lambda vector: curvature.product(vector) + outer.damping * vector,
            curvature.gradient,
            outer.cg_iterations,
        )
        found = line_search(
            lambda vector: (
                *curvature.evaluate(vector),
                self._kl_before(curvature.named(vector), chain.supports[0].thin(outer.fisher_fraction)),
            ),
            curvature.parameters,
            full_step(solution, residual, curvature.gradient, outer.max_kl),
            gain=curvature.gain,
            max_kls=(outer.max_kl, outer.max_kl_before),
            steps=outer.line_search_steps,
            ratio=outer.line_search_ratio,
        )
        self._record_policy(chain.supports[0])
        if found.accepted is not None:
            self.logger.record("train/kl", found.kls[0])
            self.logger.record("train/kl_before", found.kls[1])
            self.logger.record("train/surrogate_improvement", found.improvement)
            self.logger.record("train/line_search_step", outer.line_search_ratio**found.accepted)
        else:
            self.line_search_failures += 1
        self.logger.record("train/line_search_failures", self.line_search_failures)
        self.logger.record("train/gradient_norm", norm)
        return Outcome(curvature.named(found.parameters), rollouts)

    @torch.no_grad()
    def _kl_before(self, parameters: Parameters, samples: Samples) -> Tensor:
        """Return the mean KL, old to new, of the policy before adaptation on what it met."""
        observations = map_observations(lambda part: part.flatten(0, 1), samples.observations)
        old = self._policy.distribution(self.parameters, observations)
        kl = old.kl(self._policy.distribution(parameters, observations))
        return kl @ samples.weights.flatten() / samples.weights.sum()

    @torch.no_grad()
    def _record_policy(self, samples: Samples) -> None:
        """Record entropy and noise of the shared policy, on what it met before adaptation."""
        observations = map_observations(lambda part: part.flatten(0, 1), samples.observations)
        distribution = self._policy.distribution(self.parameters, observations)
        weights = samples.weights.flatten() / samples.weights.sum()
        self.logger.record("policy/entropy", float(distribution.entropy() @ weights))
        if "log_std" in self.parameters:
            self.logger.record("policy/std", float(distribution.parameters[1].exp().mean(dim=-1) @ weights))
