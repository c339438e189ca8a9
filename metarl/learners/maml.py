"""MAML: second-order model-agnostic meta-learning; the meta-update is TRPO, PPO or a plain gradient step.

Source: Finn et al. 2017, algorithm 3, with TRPO (Schulman et al. 2015) or PPO (Schulman et al. 2017) as the
meta-optimiser.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.adaptation_loop import adapt_on_rollouts, refuse_not_finite
from metarl.agents import DICE, LIKELIHOOD_RATIO, POLICY_GRADIENT, InnerObjective, Parameters, Policy, Rollouts, Samples
from metarl.gradients import task_axis
from metarl.gradients.adaptation import Adaptation, LinearMap, StepSize, choose_backend
from metarl.gradients.backend import Backend, ObjectiveTerm
from metarl.gradients.flat import flatten
from metarl.gradients.meta_update import META_UPDATES, MetaStep, Problem
from metarl.learner import BaseLearner
from metarl.state import Outcome, State

_OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO, "dice": DICE}


class MAML(BaseLearner):
    """Learns shared parameters from which a few policy-gradient steps adapt to a task.

    With the inner steps ``theta_i' = theta - alpha grad L_i(theta)``, it increases ``mean_i J_i(theta_i')``, where J_i
    is the return of task i, along its gradient ``mean_i (I - alpha grad^2 L_i(theta))^T grad J_i(theta_i')`` (Finn et
    al. 2017, equation 4). The arguments are those of ``BaseLearner``.

    ``MAML("MlpPolicy", "metarl/Navigation2D-v0", seed=1).learn(iterations=100)``

    Variants override ``first_order``, ``linear_map`` with ``meta_vector``, ``inner_step_size``, ``objective_term``,
    ``next_state`` and the hooks of ``MetaAgent``.
    """

    name = "maml"
    outer_settings: ClassVar[tuple[type[Any], ...]] = META_UPDATES
    source = "Finn et al. 2017"
    first_order: ClassVar[bool] = False  # True: the Jacobian of the inner updates is replaced by the identity

    @functools.cached_property
    def backend(self) -> Backend:
        """The backend that computes derivatives; it reuses its memory from iteration to iteration."""
        outer, own = self.settings.outer, self.inner_objective
        named = isinstance(own, str) or self.settings.inner.objective != "auto"
        objective = _OBJECTIVES[self.settings.inner.objective_of(self)] if named else own
        assert isinstance(objective, InnerObjective)
        return choose_backend(
            self.functional_policy,
            self.device,
            path=outer.path,
            objective=objective,
            adapts=self.adapts,
            keep=outer.memory == "keep",
        )

    def validate(self) -> None:
        """Check that the policy has what is to adapt, and that there is a backend for it, as ``outer.path`` asks for.

        Raises:
            ValueError: a parameter that is to adapt is missing, or there is no such backend.
        """
        unknown = sorted((self.adapts or frozenset()) - self.functional_policy.shapes.keys())
        if unknown:
            known = ", ".join(self.functional_policy.shapes)
            raise ValueError(f"adapting_parameters names {unknown[0]!r}, which the policy lacks; it has {known}")
        assert self.backend is not None

    def initial_state(self) -> State:
        """Return the state before training, with the moments of the meta-update's optimiser."""
        state = super().initial_state()
        own = self.initial_tensors()
        moments = self.settings.outer.first_moments(self.meta_vector(replace(state, own_tensors=own)))
        return replace(state, own_tensors={**moments, **own})

    def initial_tensors(self) -> dict[str, Tensor]:
        """Return what a variant keeps beside the parameters and the optimiser's moments; ``next_state`` returns it."""
        return {}

    def meta_vector(self, state: State) -> Tensor:
        """Return the meta-vector, the flat vector that the meta-update changes: here the shared parameters."""
        return flatten(state.parameters.values()).detach()

    def linear_map(self) -> LinearMap:
        """Return the linear map from the meta-vector to shared parameters and step sizes."""
        return LinearMap()

    def inner_step_size(self, state: State, step: int) -> StepSize:
        """Return the size of inner step ``step`` (from 0) in training."""
        return self.settings.inner.step_size

    def objective_term(self, state: State, adaptation: Adaptation, rollouts: list[Rollouts]) -> ObjectiveTerm | None:
        """Return a further term of the meta-objective, or None.

        Args:
            state: before the iteration.
            adaptation: the inner updates.
            rollouts: after 0, 1, ... inner steps.
        """
        return None

    def next_state(self, state: State, adaptation: Adaptation, step: MetaStep) -> State:
        """Return the next state, from the result of the meta-update."""
        failed = step.accepted is False
        return replace(
            state,
            parameters=adaptation.shared(step.vector),
            own_tensors=step.moments,
            line_search_failures=state.line_search_failures + failed,
        )

    def metrics(self, state: State, step: MetaStep) -> dict[str, Tensor | float]:
        """Return further metrics of an iteration by the logger's tags; tensors are read back from the device later."""
        return {}

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Collect and adapt in turn, then make a meta-update towards a larger return after adaptation."""
        tasks = self.training_tasks(iteration)
        policy = self.functional_policy
        adaptation = Adaptation(
            policy, self.backend, self.meta_vector(state), self.linear_map(), first_order=self.first_order
        )

        def collect(parameters: Parameters, step: int) -> Rollouts:
            return self.collect(state, parameters, tasks, self.training_streams(tasks, iteration, step))

        def update(parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
            adaptation.adapt(self.inner_samples(state, rollouts), self.inner_step_size(state, step))
            return adaptation.parameters[-1]

        _, rollouts = adapt_on_rollouts(adaptation.parameters[0], collect, update, self.settings.inner.steps)
        step = self.settings.outer.apply(
            Problem(
                adaptation=adaptation,
                query=self.samples(state, rollouts[-1]),
                kl_before=lambda vector, samples: shared_kl(
                    policy, adaptation.parameters[0], adaptation.shared(vector), samples
                ),
                term=self.objective_term(state, adaptation, rollouts),
            ),
            state.own_tensors,
        )
        following = self.next_state(state, adaptation, step)
        figures = {
            "train/gradient_norm": step.gradient_norms[0],
            **step.metrics,
            **self.metrics(state, step),
            **_policy_metrics(policy, state.parameters, adaptation.supports[0]),
        }
        metrics: dict[str, float | str] = {**self._read(step, figures, tasks, iteration)}
        if step.accepted is not None:
            metrics["train/line_search_failures"] = following.line_search_failures
        if iteration == 1:
            metrics["train/path"] = self.backend.name
        return Outcome(state=following, rollouts=rollouts, metrics=metrics)

    def _read(self, step: MetaStep, figures: dict[str, Tensor | float], tasks: Any, iteration: int) -> dict[str, float]:
        """Read all metrics back together: on a GPU, the host waits only here and in the line search.

        Raises:
            FloatingPointError: a meta-gradient is not finite.
        """
        tensors = {name: value for name, value in figures.items() if isinstance(value, Tensor)}
        logged = torch.stack([value.double().to(self.device) for value in tensors.values()])
        # The norm may overflow although each task's gradient is finite; the error then names the first task.
        overflowed = torch.where(torch.isfinite(step.gradient_norms), -1, 0)
        faulty = torch.maximum(step.faulty_tasks, overflowed)
        values = torch.cat([logged, faulty.double()]).tolist()
        for number in values[len(tensors) :]:
            refuse_not_finite("meta-gradient", number, tasks, iteration)
        read = dict(zip(tensors, values, strict=False))
        return {name: read.get(name, value) for name, value in figures.items()}


@torch.no_grad()
def _policy_metrics(policy: Policy, parameters: Parameters, samples: Samples) -> dict[str, Tensor]:
    """Return entropy and standard deviation of the policy before adaptation, on its samples, by the logger's tags."""

    def entropy(part: Samples) -> Tensor:
        return policy.distribution(parameters, part).entropy()

    metrics = {"policy/entropy": task_axis.mean_over_steps(entropy, samples)}
    if "log_std" in parameters:
        metrics["policy/std"] = policy.floored(parameters["log_std"]).exp().mean()
    return metrics


def shared_kl(policy: Policy, old: Parameters, new: Parameters, samples: Samples) -> Tensor:
    """Return the mean KL, old to new, of shared parameters on the samples of all tasks."""

    def kl(part: Samples) -> Tensor:
        return policy.distribution(old, part).kl(policy.distribution(new, part))

    with torch.no_grad():
        return task_axis.mean_over_steps(kl, samples)
