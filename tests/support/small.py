"""Tiny learners, and what the tests do with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.agents import Parameters, Rollouts
from metarl.agents.trials import TrialSteps, trial_steps
from metarl.envs import tasks as task_tools
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner
from metarl.state import Outcome, State

NAVIGATION = "metarl/Navigation2D-v0"
SIGN = "toy_families:toy/Sign-v0"
LENGTHS_DIFFER = "toy_families:toy/LengthsDiffer-v0"
SHORT = {"max_episode_steps": 8}
SECTIONS: dict[str, dict[str, Any]] = {
    "learning": {"tasks": 3, "episodes": 4},
    "evaluation": {"every": 1, "tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 2},
    "policy_kwargs": {"hidden_sizes": (6, 5)},
}


def settings(**changes: Any) -> dict[str, Any]:
    """Return the arguments of a tiny learner; sections that are given are merged into the tiny ones."""
    found: dict[str, Any] = {**SECTIONS, **changes}
    for name, section in SECTIONS.items():
        if isinstance(found[name], dict):
            found[name] = {**section, **found[name]}
    if "family" not in changes:
        found["family"] = NAVIGATION
        found.setdefault("family_kwargs", SHORT)
    return found


def small(learner: str | type[Any] = "maml", **changes: Any) -> Any:
    """Return a tiny learner, by its name or class; on navigation with short episodes where no family is given."""
    kind = find_learner(learner) if isinstance(learner, str) else learner
    return kind(**settings(**changes))


def remembering(**changes: Any) -> Any:
    """Return a tiny learner with memory; see ``small``."""
    outer = {"trials": 6, "minibatch_trials": 4, **changes.pop("outer", {})}
    return small("rl2", outer=outer, **changes)


def trials_of(model: Any, *, episodes: int | None = None, trials: int = 1, iteration: int = 1) -> tuple[Any, Rollouts]:
    """Return an iteration's tasks and the trials that a learner plays of them."""
    tasks = model.training_tasks(iteration)
    streams = seeding.streams(model.settings.seed, seeding.TRAINING, iteration, 0, tasks=range(model.trials))
    return tasks, model.collect_trials(model.state, tasks, streams, trials=trials, episodes=episodes)


def steps_of(model: Any, rollouts: Rollouts) -> TrialSteps:
    """Return the steps of trials, without normalisation."""
    return trial_steps(model.functional_policy.action_space, rollouts, rollouts.rewards)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two dicts hold tensors of the same bits under the same names."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors by name."""
    return {name: value.clone() for name, value in tensors.items()}


def batch(model: BaseLearner, *tasks: Any) -> Any:
    """Return tasks of a learner's family as a batch."""
    single = [task_tools.as_task(model.env, task) for task in tasks]
    return task_tools.stack_tasks(task_tools.task_space(model.env), single)


def played(
    model: BaseLearner,
    tasks: Any,
    parameters: Parameters | None = None,
    *,
    iteration: int = 1,
    step: int = 0,
    episodes: int | None = None,
) -> Rollouts:
    """Return what a learner collects in training on a batch of tasks; with its shared parameters if none are given."""
    streams = model.training_streams(tasks, iteration, step)
    own = model.parameters if parameters is None else parameters
    return model.collect(model.state, own, tasks, streams, episodes=episodes)


def adapted_to(model: BaseLearner, tasks: Any, *, steps: int, episodes: int) -> Parameters:
    """Return stacked parameters after adaptation to a batch of tasks, as ``adapt`` does it for one."""
    count = range(task_tools.count_tasks(tasks))

    def collect(parameters: Parameters, step: int) -> Rollouts:
        streams = seeding.streams(model.settings.seed, seeding.ADAPTATION, step, tasks=count)
        return model.collect(model.state, parameters, tasks, streams, episodes=episodes)

    def update(parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        return model.adapted(model.state, parameters, rollouts, step)

    start = model.begin_adaptation(model.parameters, tasks)
    return adapt_on_rollouts(start, collect, update, steps, play_adapted=False)[0]


class Still(BaseLearner):
    """A learner of one's own: plays, and stays where it is."""

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Play each task."""
        tasks = self.training_tasks(iteration)
        streams = self.training_streams(tasks, iteration, 0)
        return Outcome(state=state, rollouts=[self.collect(state, state.parameters, tasks, streams)])


def falling(remaining: float) -> float:
    """A step size from 0.2 to 0.1."""
    return 0.1 + 0.1 * remaining


def negative(remaining: float) -> float:
    """A step size below 0 in the middle of training."""
    return -0.5 if remaining == 0.5 else 1.0
