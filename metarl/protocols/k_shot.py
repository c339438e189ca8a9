"""The protocol ``k-shot``: fresh episodes after K episodes of experience, for several K."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.evaluation import EvaluatedAgent
from metarl.protocols.protocol import Counts, EvaluationProtocol, Point, stacked, steps_of, streams_of


class KShot(EvaluationProtocol):
    """Fresh episodes after K episodes of a task, for 0 and each K of ``evaluation.shots``.

    For each K the learner begins anew, plays K episodes and makes one adaptation step on them. Learners with memory
    play one trial, whose episode K + 1 has K before it.
    """

    name = "k-shot"

    def play(self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts) -> list[Point]:
        """Return what is played after 0 and after each K episodes."""
        shots = [0, *sorted(set(agent.settings.evaluation.shots))]
        if agent.remembers:
            return self._of_trials(agent, single, group, counts, shots)
        state, tasks = agent.state, stacked(agent, single, group)
        points = []
        for shot in shots:
            parameters = agent.begin_adaptation(state.parameters, tasks)
            before = np.zeros(len(group))
            if shot:
                streams = streams_of(self.name, counts, shot, 0, group=group)
                seen = agent.collect(state, parameters, tasks, streams, episodes=shot)
                parameters, before = agent.adapted(state, parameters, seen, 0), steps_of([seen])
            streams = streams_of(self.name, counts, shot, 1, group=group)
            played = agent.collect(state, parameters, tasks, streams, episodes=counts.episodes)
            points.append(Point(label=shot, rollouts=played, episodes_before=shot, steps_before=before))
        return points

    def _of_trials(
        self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts, shots: list[int]
    ) -> list[Point]:
        played = agent.evaluation_rollouts(
            agent.state, single, group, counts.episodes, shots[-1], counts.seed, counts.split
        )
        return [
            Point(
                label=shot,
                rollouts=played[shot],
                episodes_before=shot,
                steps_before=steps_of(played[:shot]) / counts.episodes if shot else np.zeros(len(group)),
            )
            for shot in shots
        ]
