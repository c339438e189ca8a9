"""What a protocol is: which tasks are played, and what a learner does with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metarl import seeding
from metarl.agents import Rollouts
from metarl.envs import tasks as task_tools
from metarl.evaluation import SPLITS, EvaluatedAgent
from metarl.results.kept import STEPS, Counted
from metarl.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is played of a group of tasks after a stated experience.

    Attributes:
        label: how many adaptation steps or episodes were before.
        rollouts: of the policy as it draws actions; None if it is not played so.
        deterministic: of its most likely actions; None if it is not played so.
        episodes_before: how many episodes of each task were seen before.
        steps_before: ``[task]``, their environment steps.
    """

    label: int
    rollouts: Rollouts | None
    deterministic: Rollouts | None = None
    episodes_before: int
    steps_before: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much is played: ``episodes`` of each task at each point, and up to ``steps`` adaptation steps."""

    episodes: int
    steps: int
    seed: int
    split: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The tasks of an evaluation.

    Attributes:
        single: the tasks.
        regions: where each of them lies, or None.
        agent: the agent that plays them.
        oracle: ``[task]``, the best expected return, or None.
    """

    single: list[Any]
    regions: tuple[str, ...] | None
    agent: EvaluatedAgent
    oracle: NDArray[np.float64] | None


class EvaluationProtocol:
    """A protocol of evaluation; each is a subclass in ``protocols.PROTOCOLS``."""

    name: ClassVar[str]
    metric: ClassVar[str] = "return"

    def counted(self, agent: EvaluatedAgent) -> Counted:
        """Return what the points count."""
        return "earlier episodes"

    def refuse(self, agent: EvaluatedAgent, *, steps: int | None) -> None:
        """Refuse an agent that cannot be evaluated so.

        Raises:
            ValueError: it cannot, or adaptation steps are asked for that the protocol fixes.
        """
        if steps is not None:
            raise ValueError(
                f"steps is {steps}, but the protocol {self.name!r} says itself how often the learner adapts; leave it "
                "out"
            )

    def standard_tasks(self, settings: Settings, split: str) -> int:
        """Return how many tasks are drawn where no number is given."""
        return settings.evaluation.test_tasks if split == "test" else settings.evaluation.tasks

    def choose(self, agent: EvaluatedAgent, single: list[Any], seed: int) -> Chosen:
        """Return the tasks that are played, from those that were drawn or given."""
        oracle = task_tools.attribute(agent.env, "oracle_return")
        best = None if oracle is None else np.array([oracle(task) for task in single])
        return Chosen(single=single, regions=None, agent=agent, oracle=best)

    def play(self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts) -> list[Point]:
        """Return what is played of the tasks ``group`` among ``single``, in the order of experience."""
        raise NotImplementedError


# The keys of the random streams of each protocol but ``steps``, which has those of ``seeding.EVALUATION``.
_NUMBERS = {"pearl": 0, "k-shot": 1}


def streams_of(protocol: str, counts: Counts, *key: int, group: range) -> list[seeding.Stream]:
    """Return the random streams of a group of tasks, under a protocol's own key."""
    split = SPLITS.index(counts.split)
    return seeding.streams(counts.seed, seeding.PROTOCOLS, _NUMBERS[protocol], split, *key, tasks=group)


def steps_of(rollouts: Sequence[Rollouts]) -> NDArray[np.float64]:
    """Return the environment steps of each task in several rollouts, ``[task]``."""
    total: NDArray[np.float64] = sum(part.mask.sum(dim=(1, 2)).double().numpy() for part in rollouts)  # type: ignore
    return total


def stacked(agent: EvaluatedAgent, single: list[Any], group: range) -> Any:
    """Return the tasks of a group as a batch."""
    return task_tools.stack_tasks(task_tools.task_space(agent.env), [single[number] for number in group])


def counted_by(agent: EvaluatedAgent) -> Counted:
    """Return what the points count where they are those of the learner's own adaptation."""
    return "earlier episodes" if agent.remembers else STEPS
