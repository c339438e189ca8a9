"""A baseline: a mixture of policies, each trained on its own task; only the mixture's weights adapt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.adaptation_loop import refuse_not_finite
from metarl.agents import Parameters, Policy, Rollouts, clipped_objective
from metarl.agents.policies import MixturePolicy
from metarl.agents.policies.mixture import LOGITS
from metarl.agents.policies.selection import refuse_part
from metarl.augmenting.refusals import MEANING, TASKS, refuse_settings
from metarl.envs import tasks as task_tools
from metarl.fields import Count, Positive, setting
from metarl.gradients import task_axis
from metarl.gradients.adaptation import choose_backend, loss_gradients
from metarl.gradients.flat import flatten_tasks, named, task_parameters
from metarl.gradients.meta_update import Epochs, ascend_epochs
from metarl.gradients.optimizers import first_moments
from metarl.gradients.parallel import map_tasks
from metarl.learner import BaseLearner
from metarl.state import Outcome, State

_TASKS = "tasks"


@dataclass(frozen=True, kw_only=True)
class Components(Epochs):
    """The settings of the components, of their training by PPO's epochs, and of the adaptation of the weights."""

    components: Count = setting(20, "policies in the mixture, each trained on a task of its own")
    weight_step_size: Positive = setting(
        100.0, "step size of the weights in adaptation; from the second step on times inner.later_step_scale"
    )
    epochs: Count = setting(10, "Adam steps on the same rollouts")
    learning_rate: Positive = setting(3e-3, "Adam's step size")


class MultiTask(BaseLearner):
    """Multi-task: a mixture of per-task policies, ``pi(a|s) = sum_c w_c pi_c(a|s)``, of which the weights adapt.

    Each component c is trained by PPO's epochs (Schulman et al. 2017, equation 7) on its own task. These tasks are
    drawn once. An iteration plays as many episodes as one of MAML, divided among the components (rounded down). For
    each new task the weights ``w = softmax(z)`` start equal, and only they adapt, by policy-gradient steps

        ``z <- z + beta mean((r - w) A)``, ``r_c = w_c pi_c(a|s) / pi(a|s)``

    with ``beta = outer.weight_step_size``. At each step of an episode a component is drawn, and then its action. It is
    a mixture of experts (Jacobs et al. 1991, equation 1.3) with fixed experts. ``rollout/return_step_0`` is the mean
    return of the components, each on its own task.
    """

    name = "multi-task"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Components,)
    source = "Jacobs et al. 1991"
    learns_to_adapt = False
    functional_policy: MixturePolicy

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return a mixture of copies of the policy.

        Raises:
            ValueError: the policy is not a perceptron, or an iteration has fewer episodes than components.
        """
        policy.need_perceptron("learner multi-task mixes perceptrons, and so", "learner pretrained takes any policy")
        components, total = self.settings.outer.components, self.settings.iteration_episodes
        if components > total:
            raise ValueError(
                f"outer.components is {components}, more than the {total} episodes of an iteration "
                "(learning.tasks * learning.episodes * (inner.steps + 1)); take fewer components"
            )
        return MixturePolicy(policy, components)

    def adapting_parameters(self, policy: Policy) -> None:
        """Refuse a choice of what adapts.

        Raises:
            ValueError: ``inner.adapts`` is set.
        """
        refuse_part(self.settings.inner.adapts, self.name, "the weights of its mixture alone")

    def validate(self) -> None:
        """Check that the components' tasks are to stay what they are.

        Raises:
            ValueError: ``[augment]`` is to change them.
        """
        reason = "learner multi-task trains each component on one task, which it drew at its start"
        refuse_settings(self.settings.augment, (*TASKS, *MEANING), reason)

    def initial_state(self) -> State:
        """Return the state before training, with the components' tasks and Adam's moments."""
        state = super().initial_state()
        tasks = self.drawn_tasks(0, self.settings.outer.components)
        vectors = torch.from_numpy(task_tools.to_vectors(task_tools.task_space(self._env), tasks)).to(self.device)
        components = flatten_tasks(self.functional_policy.components(state.parameters))
        return replace(state, own_tensors={_TASKS: vectors, **first_moments("adam", components)})

    def check_state(self, state: State) -> None:
        """Check that the components' tasks lie in the task space.

        Raises:
            ValueError: one does not.
        """
        space = task_tools.task_space(self._env)
        for task in task_tools.unstack_tasks(space, self.component_tasks(state)):
            task_tools.as_task(self._env, task)

    @property
    def dealt_tasks(self) -> int:
        """How many tasks an iteration deals to several processes: those of the components."""
        return int(self.settings.outer.components)

    def component_tasks(self, state: State) -> Any:
        """Return the components' tasks as a batch."""
        vectors = state.own_tensors[_TASKS].cpu().numpy()
        return task_tools.from_vectors(task_tools.task_space(self._env), vectors)

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Play each component's task, and train each component by PPO's epochs on its rollouts."""
        self.refuse_given_tasks("trains on the tasks that it drew at its start")
        outer, tasks = self.settings.outer, self.component_tasks(state)
        components = self.functional_policy.components(state.parameters)
        own = task_axis.own_tasks(outer.components)
        rows = slice(own.start, own.stop)
        rollouts = self.collect(
            state,
            {name: value[rows] for name, value in components.items()},
            tasks,
            self.training_streams(tasks, iteration, 0),
            episodes=self.settings.iteration_episodes // outer.components,
        )
        samples = self.samples(state, rollouts)
        backend = choose_backend(self.functional_policy.plain, self.device)
        objective = clipped_objective(outer.clip)

        def gradient(vectors: Tensor, epoch: int) -> Tensor:
            gradients = loss_gradients(backend, vectors, samples, objective)
            faulty = float(task_axis.first_not_finite(gradients))
            refuse_not_finite("policy gradient", faulty, tasks, iteration)
            return -gradients

        moments = {name: part[rows] if part.dim() == 2 else part for name, part in state.own_tensors.items()}
        vectors, moments = ascend_epochs(
            flatten_tasks(components)[rows], moments, gradient, outer.epochs, outer.learning_rate
        )
        trained = named(self.functional_policy.plain.shapes, task_axis.gather(vectors))
        moments = {name: task_axis.gather(part) if part.dim() == 2 else part for name, part in moments.items()}
        return Outcome(
            state=replace(
                state,
                parameters={name: trained.get(name, value) for name, value in state.parameters.items()},
                own_tensors={_TASKS: state.own_tensors[_TASKS], **moments},
            ),
            rollouts=[rollouts],
        )

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters with the weights after adaptation step ``step`` (from 0)."""
        samples = self.inner_samples(state, rollouts)
        n_tasks = samples.weights.shape[0]
        policy, shapes = self.functional_policy, self.functional_policy.shapes
        stacked = {name: value.expand(n_tasks, *shapes[name]) for name, value in parameters.items()}

        @torch.no_grad()
        def gradient(task: int) -> Tensor:
            own = samples.task(task)
            mixture = policy.distribution(task_parameters(stacked, task), own)
            return (own.advantages * own.weights) @ mixture.weight_score(own.actions)

        gradients = torch.stack(map_tasks(gradient, n_tasks, self.device))
        return {**stacked, LOGITS: stacked[LOGITS] + self.step_size(state, step) * gradients}

    def step_size(self, state: State, step: int) -> float:
        """Return the step size of the weights in adaptation step ``step`` (from 0)."""
        size = self.settings.outer.weight_step_size
        return float(size if step == 0 else size * self.settings.inner.later_step_scale)
