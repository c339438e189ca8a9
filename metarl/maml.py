"""MAML: second-order model-agnostic meta-learning with a trust-region meta-update.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) as the meta-optimiser.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from metarl.agents import Parameters, Policy, Samples
from metarl.curvature import Chain, Curvature
from metarl.envs import tasks as task_tools
from metarl.inner import choose_path
from metarl.learner import MetaLearner, Outcome
from metarl.parallel import mean_over_steps
from metarl.trust_region import conjugate_gradient, full_step, line_search


class MAML(MetaLearner):
    """Learns shared parameters from which a few policy-gradient steps adapt to a task; see ``MetaLearner``.

    ``MAML("MlpPolicy", "metarl/Navigation2D-v0", seed=1).learn(iterations=100)``
    """

    name: Literal["maml"] = "maml"

    def _take_policy(self, policy: Policy) -> None:
        super()._take_policy(policy)
        outer = self.settings.outer
        self.path = choose_path(policy, self.device, path=outer.path, keep=outer.memory == "keep")

    def _meta_iteration(self, iteration: int) -> Outcome:
        inner, outer = self.settings.inner, self.settings.outer
        tasks = self._training_tasks(iteration)
        if iteration == 1:
            self.logger.record("train/path", self.path.name, exclude="csv")
        chain = Chain(self._policy, self.path, self.parameters)
        rollouts = []
        for step in range(inner.steps + 1):
            rollouts.append(self._collect(chain.parameters[-1], tasks, iteration, step))
            samples = self._samples(rollouts[-1])
            if step < inner.steps:
                chain.adapt(samples, inner.step_size)

        curvature = Curvature(chain, samples, outer.fisher_fraction)
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
        measured = {"train/gradient_norm": curvature.gradient.norm(), **self._policy_figures(chain.supports[0])}
        # Read in one go, and only now: on a GPU the host waits for nothing else but the line search, which accepts
        # nothing where the gradient is not finite.
        figures = dict(zip(measured, torch.stack(list(measured.values())).tolist(), strict=True))
        if not math.isfinite(figures["train/gradient_norm"]):
            faulty = int((~torch.isfinite(curvature.gradients)).any(dim=1).int().argmax())
            named = task_tools.plain(task_tools.take_tasks(tasks, faulty))
            raise FloatingPointError(
                f"iteration {iteration}: the meta-gradient is not finite, first that of task {named}; a smaller "
                "inner.step_size or a higher policy.log_std_min may help"
            )
        for name, value in figures.items():
            self.logger.record(name, value)
        if found.accepted is not None:
            self.logger.record("train/kl", found.kls[0])
            self.logger.record("train/kl_before", found.kls[1])
            self.logger.record("train/surrogate_improvement", found.improvement)
            self.logger.record("train/line_search_step", outer.line_search_ratio**found.accepted)
        else:
            self.line_search_failures += 1
        self.logger.record("train/line_search_failures", self.line_search_failures)
        return Outcome(curvature.named(found.parameters), rollouts)

    def _kl_before(self, parameters: Parameters, samples: Samples) -> Tensor:
        """Return the mean KL, old to new, of the policy before adaptation on what it met."""

        def kl(part: Samples) -> Tensor:
            old = self._policy.distribution(self.parameters, part.observations)
            return old.kl(self._policy.distribution(parameters, part.observations))

        return mean_over_steps(kl, samples, together=self.path.together)

    def _policy_figures(self, samples: Samples) -> dict[str, Tensor]:
        """Return entropy and noise of the shared policy, on what it met before adaptation, by the metrics' names."""

        def entropy(part: Samples) -> Tensor:
            return self._policy.distribution(self.parameters, part.observations).entropy()

        figures = {"policy/entropy": mean_over_steps(entropy, samples, together=self.path.together)}
        if "log_std" in self.parameters:
            log_std = self._policy.head(self.parameters["action_net.bias"], self.parameters["log_std"]).parameters[1]
            figures["policy/std"] = log_std.exp().mean()
        return figures
