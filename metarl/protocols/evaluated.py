"""The part of an agent that is evaluated."""

from __future__ import annotations

from typing import Any

from metarl.agents import Rollouts
from metarl.evaluation import EvaluatedAgent, adapted_rollouts
from metarl.protocols.evaluate import evaluate_agent
from metarl.results import Evaluation
from metarl.state import State
from metarl.training.infos import refuse_unknown_infos


class Evaluated:
    """What all agents have in common that are evaluated; ``MetaAgent`` has what it needs."""

    def evaluate(
        self: EvaluatedAgent,
        tasks: Any = None,
        *,
        split: str = "test",
        n_tasks: int | None = None,
        episodes: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
        protocol: str | None = None,
    ) -> Evaluation:
        """Return the episodes played on held-out tasks at several points of adaptation, with their statistics.

        Args:
            tasks: a batch of tasks, whose split is ``given`` in the result; default: drawn from ``split``. A warning
                says how many of them were given to ``learn``.
            split: ``validation`` or ``test`` (or ``train``).
            n_tasks: how many tasks are drawn; default ``evaluation.test_tasks`` or ``evaluation.tasks``.
            episodes: for each task and point; default ``evaluation.episodes``.
            steps: adaptation steps; default ``evaluation.steps``.
            seed: of tasks and episodes; default ``evaluation.seed``, the same for all learners unless it is set.
            protocol: ``steps`` (0, 1, ... adaptation steps), ``pearl``, ``k-shot`` or ``generalization``; default
                ``evaluation.protocol``.

        Raises:
            ValueError: a count that is not positive, an unknown split or protocol, tasks outside the task space, or a
                learner or family that the protocol does not fit.
        """
        how = self.settings.evaluation.protocol if protocol is None else protocol
        # Training has done so when it validates.
        refuse_unknown_infos(self.settings)
        return evaluate_agent(self, split, tasks, n_tasks, episodes, steps, seed, how)[0]

    def evaluate_rollouts(
        self: EvaluatedAgent,
        split: str,
        tasks: Any = None,
        n_tasks: int | None = None,
        episodes: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> tuple[Evaluation, list[Any], list[Rollouts]]:
        """Return an evaluation, and its first batch of tasks with their rollouts after 0, 1, ... steps."""
        return evaluate_agent(self, split, tasks, n_tasks, episodes, steps, seed)

    def evaluation_rollouts(
        self: EvaluatedAgent,
        state: State,
        single: list[Any],
        group: range,
        episodes: int,
        steps: int,
        seed: int,
        split: str,
    ) -> list[Rollouts]:
        """Return the rollouts of an evaluation's tasks ``group`` among ``single`` after 0, 1, ... adaptation steps."""
        return adapted_rollouts(self, state, single, group, episodes, steps, seed, split)
