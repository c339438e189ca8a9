"""What an evaluation needs of an agent, and the adaptation to its tasks step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import gymnasium

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.agents import Parameters, Policy, Rollouts
from metarl.envs import tasks as task_tools
from metarl.sampler import Sampler
from metarl.settings import Settings
from metarl.state import State

# The index of a split is part of the keys of random streams; ``given`` stands for tasks that the caller passes.
SPLITS = (*task_tools.SPLITS, "given")


def points(settings: Settings, *, remembers: bool) -> int:
    """Return how many points an evaluation has, by a run's settings.

    Args:
        settings: of the run.
        remembers: whether the learner has a memory; then they are the episodes of a trial, else the adaptation steps
            and the point before them.
    """
    return settings.learning.trial_episodes if remembers else settings.evaluation.steps + 1


class EvaluatedAgent(Protocol):
    """The part of an agent that an evaluation needs."""

    name: str
    learns_to_adapt: ClassVar[bool]
    remembers: ClassVar[bool]
    state: State
    sampler: Sampler
    functional_policy: Policy
    tasks_trained_on: frozenset[str]

    @property
    def settings(self) -> Settings:
        """All settings of a run."""

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family."""

    def single_tasks(self, tasks: Any) -> list[Any]:
        """Return the tasks of a batch as a list."""

    def evaluation_rollouts(
        self, state: State, single: list[Any], group: range, episodes: int, steps: int, seed: int, split: str
    ) -> list[Rollouts]:
        """Return the rollouts of a group of an evaluation's tasks after 0, 1, ... adaptation steps."""

    def begin_adaptation(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return the parameters with which adaptation begins."""

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters after an adaptation step."""

    def collect(
        self,
        state: State,
        parameters: Parameters,
        tasks: Any,
        streams: Sequence[seeding.Stream],
        *,
        episodes: int | None = None,
        deterministic: bool = False,
    ) -> Rollouts:
        """Collect rollouts of a batch of tasks."""

    def say_once(self, sentence: str) -> None:
        """Give a warning, unless the agent has given the same one."""


def adapted_rollouts(
    agent: EvaluatedAgent,
    state: State,
    single: list[Any],
    group: range,
    episodes: int,
    steps: int,
    seed: int,
    split: str,
) -> list[Rollouts]:
    """Return the rollouts of a group of an evaluation's tasks after 0, 1, ... adaptation steps.

    The arguments are those of ``MetaAgent.evaluation_rollouts``.
    """
    tasks = task_tools.stack_tasks(task_tools.task_space(agent.env), [single[i] for i in group])
    key = (seeding.EVALUATION, SPLITS.index(split))

    def collect(parameters: Parameters, step: int) -> Rollouts:
        streams = seeding.streams(seed, *key, step, tasks=group)
        return agent.collect(state, parameters, tasks, streams, episodes=episodes)

    return adapt_on_rollouts(
        agent.begin_adaptation(state.parameters, tasks),
        collect,
        lambda parameters, rollouts, step: agent.adapted(state, parameters, rollouts, step),
        steps,
    )[1]


def task_digest(task: Any) -> str:
    """Return a digest of a task, by which it is found again among those that a learner was trained on."""
    return hashlib.sha256(json.dumps(task_tools.plain(task), sort_keys=True).encode()).hexdigest()[:16]


def say_which_were_trained_on(agent: EvaluatedAgent, single: list[Any]) -> None:
    """Warn of an evaluation on tasks that were trained on."""
    known = sum(task_digest(task) in agent.tasks_trained_on for task in single)
    if known:
        which = f"all {len(single)}" if known == len(single) > 1 else f"{known} of the {len(single)}"
        agent.say_once(
            f"{which} tasks of this evaluation were given to learn() or fit(), so the returns on them do not show "
            "how the learner adapts to new tasks; draw others, as in metarl.sample_tasks(family, n, split='test')"
        )
