"""A baseline: a mixture of policies, each trained on a task of its own, of which only the weights adapt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl import seeding
from metarl.agents import Parameters, Policy, Rollouts, clipped_objective
from metarl.agents.policies.mixture import LOGITS, MixturePolicy
from metarl.envs import tasks as task_tools
from metarl.gradients.inner import choose_path, loss_gradients
from metarl.learner import BaseLearner, Outcome
from metarl.gradients.meta_update import check_finite
from metarl.gradients.optimizers import ascend, first_moments
from metarl.gradients.parallel import map_tasks
from metarl.settings import Count, Epochs, Positive
from metarl.gradients.flat import flatten_tasks, named, task_parameters

_TASKS = "tasks"


@dataclass(frozen=True, kw_only=True)
class Components(Epochs):
    """The components, PPO's epochs of each on its own task, and the step size of the weights."""

    components: Count = 20
    weight_step_size: Positive = 100.0  # of adaptation; later_step_scale applies
    epochs: Count = 10
    learning_rate: Positive = 3e-3


class MultiTask(BaseLearner):
    """Multi-task: a mixture of per-task policies, ``pi(a|s) = sum_c w_c pi_c(a|s)``, of which the weights adapt.

    Each component c is trained by PPO's epochs (Schulman et al. 2017, equation 7) on a task of its own; these tasks are
    drawn once, and an iteration plays as many episodes as MAML's, shared out among the components (rounded down). The
    weights ``w = softmax(z)`` start equal for each new task and are all that adapts, by policy-gradient steps

        ``z <- z + beta mean((r - w) A)``, ``r_c = w_c pi_c(a|s) / pi(a|s)``

    with ``beta = outer.weight_step_size``. At each step of an episode a component is drawn, and then its action. A
    mixture of experts (Jacobs et al. 1991, equation 1.3) whose experts are fixed. ``rollout/return_step_0`` is that of
    each component on its own task.
    """

    name = "multi-task"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Components,)
    source = "Jacobs et al. 1991"
    _policy: MixturePolicy

    def _take_policy(self, policy: Policy) -> None:
        policy.need_perceptron("learner multi-task mixes perceptrons, and so", "learner pretrained takes any policy")
        learning, outer = self.settings.learning, self.settings.outer
        total = learning.tasks * learning.episodes * (self.settings.inner.steps + 1)
        if outer.components > total:
            raise ValueError(
                f"outer.components is {outer.components}, more than the {total} episodes of an iteration "
                "(learning.tasks * learning.episodes * (inner.steps + 1)); take fewer components"
            )
        self._episodes = total // outer.components
        self._path = choose_path(policy, self.device)
        super()._take_policy(MixturePolicy(policy, outer.components))

    def _first_extra(self) -> dict[str, Tensor]:
        rng = task_tools.task_rng(self.settings.seed, "train", 0)
        tasks = task_tools.draw_tasks(self._env, self.settings.outer.components, rng, "train")
        vectors = task_tools.to_vectors(task_tools.task_space(self._env), tasks)
        components = flatten_tasks(self._policy.components(self.parameters))
        return {_TASKS: torch.from_numpy(vectors), **first_moments("adam", components)}

    @property
    def tasks(self) -> Any:
        """The components' tasks, a batch."""
        return task_tools.from_vectors(task_tools.task_space(self._env), self.extra[_TASKS].cpu().numpy())

    def _play(self, parameters: Parameters, tasks: Any, episodes: int, streams: list[seeding.Stream]) -> Rollouts:
        policy = self._policy if LOGITS in parameters else self._policy.plain
        return self._collected(policy, parameters, tasks, episodes, streams)

    def _meta_iteration(self, iteration: int) -> Outcome:
        if self._given_tasks is not None:
            raise ValueError("learner multi-task trains on the tasks that it drew at its start; leave tasks out")
        outer, tasks = self.settings.outer, self.tasks
        components = self._policy.components(self.parameters)
        rollouts = self._collect(components, tasks, iteration, 0, episodes=self._episodes)
        samples = self._samples(rollouts)
        vectors, state, objective = flatten_tasks(components), self.extra, clipped_objective(outer.clip)
        for _ in range(outer.epochs):
            slopes = loss_gradients(self._path, vectors, samples, objective)
            check_finite(slopes, iteration, tasks)
            vectors, state = ascend(vectors, -slopes, state, outer.learning_rate)
        trained = named(self._policy.plain.shapes, vectors)
        parameters = {name: trained.get(name, value) for name, value in self.parameters.items()}
        return Outcome(parameters, [rollouts], {_TASKS: self.extra[_TASKS], **state})

    def adapted(self, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters with other weights after adaptation step ``step`` (from 0)."""
        samples = self._inner_samples(rollouts)
        n_tasks = samples.weights.shape[0]
        shapes = self._policy.shapes
        stacked = {name: value.expand(n_tasks, *shapes[name]) for name, value in parameters.items()}

        @torch.no_grad()
        def rise(task: int) -> Tensor:
            own = samples.task(task)
            mixture = self._policy.distribution(task_parameters(stacked, task), own.observations)
            return (own.advantages * own.weights) @ mixture.weight_score(own.actions)

        rises = torch.stack(map_tasks(rise, n_tasks, self.device))
        return {**stacked, LOGITS: stacked[LOGITS] + self.step_size(step) * rises}

    def step_size(self, step: int) -> float:
        """Return the size of adaptation step ``step`` (from 0) of the weights."""
        size = self.settings.outer.weight_step_size
        return float(size if step == 0 else size * self.settings.inner.later_step_scale)
