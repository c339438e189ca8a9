"""The protocol ``steps``: fresh episodes after 0, 1, ... adaptation steps; with memory, the episodes of a trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.evaluation import EvaluatedAgent
from metarl.protocols.protocol import Counts, EvaluationProtocol, Point, counted_by, steps_of
from metarl.results.kept import Counted


class Steps(EvaluationProtocol):
    """Fresh episodes after 0, 1, ... adaptation steps, each on the episodes of the point before it.

    For learners with memory they are the first, second, ... episodes of trials.
    """

    name = "steps"

    def counted(self, agent: EvaluatedAgent) -> Counted:
        """Return what the points count."""
        return counted_by(agent)

    def refuse(self, agent: EvaluatedAgent, *, steps: int | None) -> None:
        """Refuse nothing."""

    def play(self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts) -> list[Point]:
        """Return what is played after 0, 1, ... steps."""
        played = agent.evaluation_rollouts(
            agent.state, single, group, counts.episodes, counts.steps, counts.seed, counts.split
        )
        before = np.zeros(len(group))
        points = []
        for number, rollouts in enumerate(played):
            # With memory a point has one episode more of each trial, so its experience is a mean over trials.
            seen, share = (number, counts.episodes) if agent.remembers else (number * counts.episodes, 1)
            points.append(Point(label=number, rollouts=rollouts, episodes_before=seen, steps_before=before))
            before = before + steps_of([rollouts]) / share
        return points
