"""A baseline that is told the task: joint training of a policy with the task as an additional input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.adaptation_loop import refuse_not_finite
from metarl.adapter import Adapter
from metarl.agents import Parameters, Policy, Rollouts, clipped_objective
from metarl.agents.policies import ContextPolicy
from metarl.agents.policies.context import CONTEXT
from metarl.agents.policies.selection import refuse_part
from metarl.augmenting.refusals import MEANING, refuse_settings
from metarl.envs import task_vectors
from metarl.envs import tasks as task_tools
from metarl.fields import Count, Positive, setting
from metarl.gradients import task_axis
from metarl.gradients.adaptation import choose_backend, loss_gradients
from metarl.gradients.flat import flatten, named
from metarl.gradients.meta_update import Epochs, ascend_epochs
from metarl.gradients.optimizers import first_moments
from metarl.learner import BaseLearner
from metarl.state import Outcome, State


@dataclass(frozen=True, kw_only=True)
class AwareTraining(Epochs):
    """The settings of PPO's epochs on the mean over the tasks."""

    epochs: Count = setting(10, "Adam steps on the same rollouts")
    learning_rate: Positive = setting(3e-3, "Adam's step size")


class TaskAware(BaseLearner):
    """Task-aware: the policy is told the task, and so has nothing to find out; an upper baseline.

    The task as a vector (``gymnasium.spaces.flatten``), scaled to [-1, 1] if the task space has limits, is appended to
    the observation, which shifts the first layer's biases. One policy is trained on all tasks without inner steps, by
    PPO's epochs on the mean of the tasks' clipped surrogates (Schulman et al. 2017, equation 7). An iteration plays
    ``learning.episodes * (inner.steps + 1)`` episodes of each task, as many as one of MAML. Adaptation changes nothing:
    the returns after 0, 1, ... steps are those of the same policy. Without a task (``predict``) it acts as for the
    middle of the task space. It is the "oracle" of Finn et al. 2017, section 5.3, which is learned and keeps its noise
    as well. It is an upper baseline only if a perceptron can learn to use the task: with tasks of hundreds of numbers,
    such as whole MDPs, that takes far more iterations than on navigation.
    """

    name = "task-aware"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (AwareTraining,)
    source = "Finn et al. 2017"
    learns_to_adapt = False
    adapts_by_experience = False
    functional_policy: ContextPolicy

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy with a context as long as a task's vector.

        Raises:
            ValueError: the policy is not a perceptron.
        """
        policy.need_perceptron(
            "learner task-aware appends the task to the observation, which", "learner pretrained takes any policy"
        )
        return ContextPolicy(policy, spaces.flatdim(task_tools.task_space(self._env)), self.settings.seed)

    def validate(self) -> None:
        """Check that the task says what actions do and what is rewarded.

        Raises:
            ValueError: ``[augment]`` changes that.
        """
        refuse_settings(self.settings.augment, MEANING, "learner task-aware is told the task, which does not say so")

    def adapting_parameters(self, policy: Policy) -> None:
        """Refuse a choice of what adapts.

        Raises:
            ValueError: ``inner.adapts`` is set.
        """
        refuse_part(self.settings.inner.adapts, self.name, "nothing, since it is told the task")

    def initial_state(self) -> State:
        """Return the state before training, with Adam's moments."""
        state = super().initial_state()
        return replace(state, own_tensors=first_moments("adam", _trained(state.parameters)))

    def contexts(self, tasks: Any) -> Tensor:
        """Return the contexts of a batch of tasks, their scaled vectors: ``[task, number]``."""
        scaled = task_vectors.scaled_vectors(task_tools.task_space(self._env), tasks)
        return torch.from_numpy(scaled).float().to(self.device)

    def begin_adaptation(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return shared or stacked parameters as stacked ones with the tasks as contexts."""
        contexts = self.contexts(tasks)
        shapes = self.functional_policy.shapes
        known = {name: value.expand(len(contexts), *shapes[name]) for name, value in parameters.items()}
        return {**known, CONTEXT: contexts}

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Play all tasks with the policy that is told the task, and train it by PPO's epochs."""
        outer, settings = self.settings.outer, self.settings
        tasks = self.training_tasks(iteration)
        streams = self.training_streams(tasks, iteration, 0)
        own = task_tools.take_tasks(tasks, np.asarray(task_axis.own_tasks(len(streams))))
        episodes = settings.learning.episodes * (settings.inner.steps + 1)
        told = self.begin_adaptation(state.parameters, own)
        rollouts = self.collect(state, told, tasks, streams, episodes=episodes)
        samples, contexts = self.samples(state, rollouts), told[CONTEXT]
        backend = choose_backend(self.functional_policy, self.device)
        objective = clipped_objective(outer.clip)

        def gradient(vector: Tensor, epoch: int) -> Tensor:
            vectors = torch.cat([vector.expand(len(contexts), -1), contexts], dim=1)
            gradients = -loss_gradients(backend, vectors, samples, objective)[:, : len(vector)]
            faulty = float(task_axis.first_not_finite(gradients))
            refuse_not_finite("policy gradient", faulty, tasks, iteration)
            return task_axis.tree_mean(gradients)

        vector, moments = ascend_epochs(
            _trained(state.parameters), state.own_tensors, gradient, outer.epochs, outer.learning_rate
        )
        untold = torch.zeros_like(contexts[0])
        parameters = named(self.functional_policy.shapes, torch.cat([vector, untold]))
        return Outcome(state=replace(state, parameters=parameters, own_tensors=moments), rollouts=[rollouts])

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return the parameters unchanged."""
        return parameters

    def adapter(self, env: gymnasium.Env[Any, Any], *, episodes: int | None = None, seed: int | None = None) -> Adapter:
        """Raise an error: an environment does not tell its task."""
        raise ValueError("learner task-aware has to be told the task; give adapt() the task, not an environment")


def _trained(parameters: Parameters) -> Tensor:
    """Return the parameters that training changes, all but the context, as a flat vector."""
    return flatten(value for name, value in parameters.items() if name != CONTEXT)
