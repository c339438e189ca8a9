"""Trials that learners with memory have played, and small learners for them."""

from __future__ import annotations

from typing import Any

from small import small

from metarl import seeding
from metarl.agents import Rollouts
from metarl.agents.trials import TrialSteps, trial_steps

LENGTHS_DIFFER = "toy_families:toy/LengthsDiffer-v0"


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
