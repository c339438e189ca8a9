"""Reptile: the shared parameters move towards the adapted ones; nothing is differentiated twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.envs import tasks as task_tools
from metarl.gradients.inner import inner_update
from metarl.learner import BaseLearner, Outcome
from metarl.gradients.meta_update import MAY_HELP, first_not_finite
from metarl.gradients.optimizers import ascend, first_moments
from metarl.settings import FORBID, Positive
from metarl.gradients.flat import flatten, flatten_tasks, named


@dataclass(frozen=True, kw_only=True)
class Towards:
    """A step towards the adapted parameters; ``adam`` takes the difference as a gradient."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 1.0  # sgd: the share of the way; for adam far less, as 1e-3


class Reptile(BaseLearner):
    """Reptile: ``theta <- theta + epsilon mean_i (theta_i^(K) - theta)`` after K inner steps, each on fresh rollouts.

    With one inner step that is joint training along the mean policy gradient; it is from the second step on that the
    difference points towards parameters that adapt well, so set ``inner.steps`` to 3 or more. No rollouts are
    collected after the last inner step. Source: Nichol et al. 2018, algorithm 2.
    """

    name = "reptile"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Towards,)
    source = "Nichol et al. 2018"

    def _first_extra(self) -> dict[str, Tensor]:
        return first_moments(self.settings.outer.optimizer, flatten(self.parameters.values()))

    def _meta_iteration(self, iteration: int) -> Outcome:
        tasks = self._training_tasks(iteration)
        parameters, rollouts = self.parameters, []
        for step in range(self.settings.inner.steps):
            rollouts.append(self._collect(parameters, tasks, iteration, step))
            samples = self._inner_samples(rollouts[-1])
            parameters = inner_update(self._policy, parameters, samples, self.settings.inner.step_size)
        shared = flatten(self.parameters.values())
        differences = flatten_tasks(parameters) - shared
        if not bool(torch.isfinite(differences).all()):
            task = task_tools.plain(task_tools.take_tasks(tasks, int(first_not_finite(differences))))
            raise FloatingPointError(
                f"iteration {iteration}: the parameters adapted to task {task} are not finite; {MAY_HELP}"
            )
        difference = differences.mean(dim=0)
        self.logger.record("train/difference_norm", float(difference.norm()))
        vector, extra = ascend(shared, difference, self.extra, self.settings.outer.learning_rate)
        return Outcome(named(self._policy.shapes, vector), rollouts, extra)
