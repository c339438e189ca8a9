"""MAML: second-order model-agnostic meta-learning with a trust-region meta-update.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) as the meta-optimiser.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch

from metarl import seeding
from metarl.agents import Parameters, Rollouts, Samples
from metarl.curvature import Chain, Curvature
from metarl.envs import tasks as task_tools
from metarl.inner import choose_path
from metarl.learner import MetaLearner
from metarl.settings import Settings
from metarl.trust_region import conjugate_gradient, full_step, line_search


class MAML(MetaLearner):
    """Learns shared parameters from which a few policy-gradient steps adapt to a task; see ``MetaLearner``.

    ``MAML("MlpPolicy", "metarl/Navigation2D-v0", seed=1).learn(iterations=100)``
    """

    name: Literal["maml"] = "maml"

    def _set_up(self, settings: Settings, *rest: Any) -> None:
        super()._set_up(settings, *rest)
        outer = settings.outer
        self.path = choose_path(self._policy, self.device, path=outer.path, keep=outer.memory == "keep")

    def _meta_iteration(self, iteration: int) -> tuple[int, float]:
        learning, inner, outer = self.settings.learning, self.settings.inner, self.settings.outer
        rng = task_tools.task_rng(self.settings.seed, "train", iteration)
        tasks = task_tools.draw_tasks(self._env, learning.tasks, rng, "train")

        if iteration == 1:
            self.logger.record("train/path", self.path.name, exclude="csv")
        chain = Chain(self._policy, self.path, self.parameters)
        rollouts = []
        seconds = 0.0
        for step in range(inner.steps + 1):
            began = time.perf_counter()
            rollouts.append(self._collect(chain.parameters[-1], tasks, iteration, step))
            seconds += time.perf_counter() - began
            samples = self._samples(rollouts[-1])
            if step < inner.steps:
                chain.adapt(samples, inner.step_size)

        curvature = Curvature(chain, samples, outer.fisher_fraction)
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
            curvature.evaluate,
            curvature.parameters,
            full_step(solution, residual, curvature.gradient, outer.max_kl),
            gain=curvature.gain,
            max_kl=outer.max_kl,
            steps=outer.line_search_steps,
            ratio=outer.line_search_ratio,
        )
        self._record_policy(chain.supports[0])
        if found.accepted is not None:
            self.parameters = curvature.named(found.parameters)
            self.logger.record("train/kl", found.kl)
            self.logger.record("train/surrogate_improvement", found.improvement)
            self.logger.record("train/line_search_step", outer.line_search_ratio**found.accepted)
        else:
            self.line_search_failures += 1
        self.logger.record("train/line_search_failures", self.line_search_failures)
        self.logger.record("train/gradient_norm", norm)
        self._record_returns(rollouts)
        return sum(part.steps() for part in rollouts), seconds

    def _collect(self, parameters: Parameters, tasks: Any, iteration: int, step: int) -> Rollouts:
        learning = self.settings.learning
        streams = seeding.streams(self.settings.seed, seeding.TRAINING, iteration, step, tasks=range(learning.tasks))
        return self._sampler.collect(self._policy, parameters, tasks, learning.episodes, streams)

    @torch.no_grad()
    def _record_policy(self, samples: Samples) -> None:
        """Record entropy and noise of the shared policy, on what it met before adaptation."""
        distribution = self._policy.distribution(self.parameters, samples.observations.flatten(0, 1))
        weights = samples.weights.flatten() / samples.weights.sum()
        self.logger.record("policy/entropy", float(distribution.entropy() @ weights))
        if "log_std" in self.parameters:
            self.logger.record("policy/std", float(distribution.parameters[1].exp().mean(dim=-1) @ weights))

    def _record_returns(self, rollouts: list[Rollouts]) -> None:
        means = [float(part.returns().mean()) for part in rollouts]
        for step, mean in enumerate(means):
            self.logger.record(f"rollout/return_step_{step}", mean)
        self.logger.record("rollout/gain", means[-1] - means[0])
