"""The protocol ``pearl``: exploratory episodes, then a later one with the most likely actions (Rakelly et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.agents import Rollouts, join_episodes
from metarl.evaluation import EvaluatedAgent
from metarl.protocols.protocol import Counts, EvaluationProtocol, Point, stacked, steps_of, streams_of
from metarl.settings import Settings

# How many tasks PEARL's own experiments test on, by family (its code's configs/*.json).
TEST_TASKS: Mapping[str, int] = {
    "metarl/HalfCheetahDir-v0": 2,
    "metarl/AntDir-v0": 2,
    "metarl/HalfCheetahVel-v0": 30,
    "metarl/AntGoal-v0": 30,
    "metarl/HumanoidDir-v0": 30,
    "metarl/Walker2DParams-v0": 10,
    "metarl/HopperParams-v0": 10,
    "metarl/Navigation2D-v0": 20,
    "metarl/HalfCircleNavigation2D-v0": 20,
}


class Pearl(EvaluationProtocol):
    """``evaluation.exploration`` episodes as the policy draws them, one adaptation step, and an episode without noise.

    This is repeated ``evaluation.episodes`` times for each task, with new exploration. The score is the return of the
    last episode; that of an episode without noise before any exploration stands beside it.
    """

    name = "pearl"
    metric = "return_deterministic"

    def refuse(self, agent: EvaluatedAgent, *, steps: int | None) -> None:
        """Refuse learners whose actions cannot be drawn without noise.

        Raises:
            ValueError: see ``EvaluationProtocol``.
        """
        super().refuse(agent, steps=steps)
        if agent.remembers:
            raise ValueError(
                f"learner {agent.name} explores and acts in one trial, of which the protocol 'pearl' would need the "
                "last episode without noise; use the protocol 'k-shot' or 'steps'"
            )
        if not agent.functional_policy.actor(agent.state.parameters, agent.state.normalizer).acts_without_noise:
            raise ValueError(
                f"the policy of learner {agent.name} has no most likely actions, of which the scores of the protocol "
                "'pearl' are; use the protocol 'k-shot' or 'steps'"
            )

    def standard_tasks(self, settings: Settings, split: str) -> int:
        """Return how many tasks PEARL's experiments test on; of other families, as many as in other protocols."""
        own = TEST_TASKS.get(settings.family) if split == "test" else None
        return super().standard_tasks(settings, split) if own is None else own

    def play(self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts) -> list[Point]:
        """Return what is played before and after exploration."""
        repeats = [self._once(agent, single, group, counts, repeat) for repeat in range(counts.episodes)]
        explored, before, after = (list(parts) for parts in zip(*repeats, strict=True))
        episodes = agent.settings.evaluation.exploration
        return [
            Point(
                label=0,
                rollouts=join_episodes(explored),
                deterministic=join_episodes(before),
                episodes_before=0,
                steps_before=np.zeros(len(group)),
            ),
            Point(
                label=episodes,
                rollouts=None,
                deterministic=join_episodes(after),
                episodes_before=episodes,
                steps_before=steps_of(explored) / counts.episodes,
            ),
        ]

    def _once(
        self, agent: EvaluatedAgent, single: list[Any], group: range, counts: Counts, repeat: int
    ) -> tuple[Rollouts, Rollouts, Rollouts]:
        """Return the exploratory episodes, and one episode without noise before and after adaptation to them."""
        state, tasks = agent.state, stacked(agent, single, group)
        streams = [streams_of(self.name, counts, repeat, phase, group=group) for phase in range(3)]
        begin = agent.begin_adaptation(state.parameters, tasks)
        exploration = agent.settings.evaluation.exploration
        explored = agent.collect(state, begin, tasks, streams[0], episodes=exploration)
        before = agent.collect(state, begin, tasks, streams[1], episodes=1, deterministic=True)
        adapted = agent.adapted(state, begin, explored, 0)
        after = agent.collect(state, adapted, tasks, streams[2], episodes=1, deterministic=True)
        return explored, before, after
