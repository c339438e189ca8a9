"""A baseline that is told the task: joint training of a policy with the task as a further input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.adapter import Adapter
from metarl.agents import Parameters, Policy, Rollouts, clipped_objective
from metarl.gradients.context_backend import CONTEXT, ContextPolicy
from metarl.envs import tasks as task_tools
from metarl.gradients.inner import choose_path, loss_gradients
from metarl.learner import BaseLearner, Outcome
from metarl.gradients.meta_update import check_finite
from metarl.gradients.optimizers import ascend, first_moments
from metarl.settings import Count, Epochs, Positive
from metarl.gradients.flat import flatten, named, one_task


@dataclass(frozen=True, kw_only=True)
class AwareTraining(Epochs):
    """PPO's epochs on the mean over the tasks."""

    epochs: Count = 10
    learning_rate: Positive = 3e-3


class TaskAware(BaseLearner):
    """Task-aware: the policy is told the task, and so has nothing to find out; an upper baseline.

    The task as a vector (``gymnasium.spaces.flatten``), scaled to [-1, 1] where the task space has limits, is appended
    to the observation, which shifts the first layer's biases. One policy is trained on all tasks without inner steps,
    by PPO's epochs on the mean of the tasks' clipped surrogates (Schulman et al. 2017, equation 7); an iteration plays
    ``learning.episodes * (inner.steps + 1)`` episodes of each task, as many as MAML's. Adaptation changes nothing: the
    returns after 0, 1, ... steps are those of the same policy. Without a task (``predict``) it acts as in the middle of
    the task space. The "oracle" of Finn et al. 2017, section 5.3, which like this one is learned and keeps its noise.
    It is an upper baseline as far as a perceptron learns what the task means; from tasks of hundreds of numbers, as a
    whole MDP, that takes far more iterations than on navigation.
    """

    name = "task-aware"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (AwareTraining,)
    source = "Finn et al. 2017"

    def _take_policy(self, policy: Policy) -> None:
        policy.need_perceptron(
            "learner task-aware appends the task to the observation, which", "learner pretrained takes any policy"
        )
        self._space = task_tools.task_space(self._env)
        flat = spaces.flatten_space(self._space)
        assert isinstance(flat, spaces.Box)
        low, high = flat.low.astype(np.float64), flat.high.astype(np.float64)
        bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        super()._take_policy(ContextPolicy(policy, len(low), self.settings.seed))
        self._path = choose_path(self._policy, self.device)

    def _first_extra(self) -> dict[str, Tensor]:
        return first_moments("adam", self._trained(self.parameters))

    def _trained(self, parameters: Parameters) -> Tensor:
        """Return what training changes, all but the context, as a vector."""
        return flatten(value for name, value in parameters.items() if name != CONTEXT)

    def contexts(self, tasks: Any) -> Tensor:
        """Return the contexts that tell a batch of tasks, ``[task, number]``."""
        scaled = (task_tools.to_vectors(self._space, tasks) - self._middle) / self._half
        return torch.from_numpy(scaled).float().to(self.device)

    def begin(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return parameters, shared or stacked, as stacked ones that know the tasks."""
        contexts = self.contexts(tasks)
        shapes = self._policy.shapes
        known = {name: value.expand(len(contexts), *shapes[name]) for name, value in parameters.items()}
        return {**known, CONTEXT: contexts}

    def _meta_iteration(self, iteration: int) -> Outcome:
        outer, settings = self.settings.outer, self.settings
        tasks = self._training_tasks(iteration)
        episodes = settings.learning.episodes * (settings.inner.steps + 1)
        rollouts = self._collect(self.begin(self.parameters, tasks), tasks, iteration, 0, episodes=episodes)
        samples, contexts = self._samples(rollouts), self.contexts(tasks)
        vector, state, objective = self._trained(self.parameters), self.extra, clipped_objective(outer.clip)
        for _ in range(outer.epochs):
            vectors = torch.cat([vector.expand(len(contexts), -1), contexts], dim=1)
            gradients = -loss_gradients(self._path, vectors, samples, objective)[:, : len(vector)]
            check_finite(gradients, iteration, tasks)
            vector, state = ascend(vector, gradients.mean(dim=0), state, outer.learning_rate)
        nothing = torch.zeros_like(contexts[0])
        return Outcome(named(self._policy.shapes, torch.cat([vector, nothing])), [rollouts], state)

    def _adapt_to(self, task: Any, steps: int, episodes: int, seed: int) -> Parameters:
        return self.begin(one_task(self.parameters), task)

    def adapted(self, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return the parameters as they are."""
        return parameters

    def adapter(self, env: gymnasium.Env[Any, Any], *, episodes: int | None = None, seed: int | None = None) -> Adapter:
        """Raise an error: of an environment whose task nobody tells, there is nothing to be aware of."""
        raise ValueError("learner task-aware has to be told the task; give adapt() the task, not an environment")
