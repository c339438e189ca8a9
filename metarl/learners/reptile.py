"""Reptile: the shared parameters move towards the adapted ones, without second derivatives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from metarl.adaptation_loop import adapt_on_rollouts, refuse_not_finite
from metarl.agents import Parameters, Rollouts
from metarl.fields import FORBID, Positive, setting
from metarl.gradients import task_axis
from metarl.gradients.adaptation import inner_update
from metarl.gradients.flat import flatten, flatten_tasks, named
from metarl.gradients.optimizers import ascend, first_moments
from metarl.learner import BaseLearner
from metarl.state import Outcome, State


@dataclass(frozen=True, kw_only=True)
class Towards:
    """A step towards the adapted parameters; ``adam`` uses the difference as a gradient."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    optimizer: Literal["sgd", "adam"] = setting("sgd", "what makes the step towards the adapted parameters")
    learning_rate: Positive = setting(
        1.0, "sgd: the fraction of the way that is gone; adam needs far less, such as 1e-3"
    )


class Reptile(BaseLearner):
    """Reptile: ``theta <- theta + epsilon mean_i (theta_i^(K) - theta)`` after K inner steps, each on fresh rollouts.

    With one inner step, this is joint training along the mean policy gradient. Only with two or more does the
    difference point towards parameters that adapt well, so set ``inner.steps`` to 3 or more. No rollouts are collected
    after the last inner step. Source: Nichol et al. 2018, algorithm 2.
    """

    name = "reptile"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (Towards,)
    source = "Nichol et al. 2018"

    def initial_state(self) -> State:
        """Return the state before training, with the optimiser's moments."""
        state = super().initial_state()
        moments = first_moments(self.settings.outer.optimizer, flatten(state.parameters.values()))
        return replace(state, own_tensors=moments)

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Collect and adapt in turn, then move the shared parameters towards the adapted ones."""
        tasks = self.training_tasks(iteration)
        step_size = self.settings.inner.step_size

        def collect(parameters: Parameters, step: int) -> Rollouts:
            return self.collect(state, parameters, tasks, self.training_streams(tasks, iteration, step))

        def update(parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
            samples = self.inner_samples(state, rollouts)
            return inner_update(self.functional_policy, parameters, samples, step_size, self.adapts)

        steps = self.settings.inner.steps
        adapted, rollouts = adapt_on_rollouts(state.parameters, collect, update, steps, play_adapted=False)
        shared = flatten(state.parameters.values())
        differences = flatten_tasks(adapted) - shared
        faulty = float(task_axis.first_not_finite(differences))
        refuse_not_finite("change of the parameters in adaptation", faulty, tasks, iteration)
        difference = task_axis.tree_mean(differences)
        vector, moments = ascend(shared, difference, state.own_tensors, self.settings.outer.learning_rate)
        parameters = named(self.functional_policy.shapes, vector)
        return Outcome(
            state=replace(state, parameters=parameters, own_tensors=moments),
            rollouts=rollouts,
            metrics={"train/difference_norm": float(difference.norm())},
        )
