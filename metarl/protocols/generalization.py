"""The protocol ``generalization``: the family's default, its ranges, and beyond them (Packer et al. 2018)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from metarl.envs import make
from metarl.envs import tasks as task_tools
from metarl.envs.families.beyond import ARGUMENT, draw_beyond, refuse_limits
from metarl.envs.sync import close_or_warn
from metarl.evaluation import EvaluatedAgent
from metarl.protocols.protocol import Chosen
from metarl.protocols.steps import Steps
from metarl.sampler import Sampler

REGIONS = ("interpolation", "default", "extrapolation")  # the first has the numbers of the protocol ``steps``
_EXTRAPOLATION = 100  # in the key of its tasks' generator, beside those of the splits


class Generalization(Steps):
    """As ``steps``, on tasks of three regions, equally many of each, for what is trained within the family's ranges.

    ``default`` is the family's default task; ``interpolation`` are tasks of the split, within the ranges; in
    ``extrapolation`` every number that has a range lies beyond it, by up to ``evaluation.beyond`` of its width. Packer
    et al. 2018, section 4, where they are D, R and E.
    """

    name = "generalization"

    def refuse(self, agent: EvaluatedAgent, *, steps: int | None) -> None:
        """Refuse families without ranges, or without anything beyond them.

        Raises:
            ValueError: the family is one.
        """
        refuse_limits(agent.env)
        if task_tools.attribute(agent.env, "default_task") is None:
            raise ValueError(
                f"the family {agent.settings.family} has no default_task, which the protocol 'generalization' plays; "
                "give it one"
            )

    def choose(self, agent: EvaluatedAgent, single: list[Any], seed: int) -> Chosen:
        """Return the default task and as many beyond the ranges as there are within, and an agent that plays them."""
        settings, space = agent.settings, task_tools.task_space(agent.env)
        beyond = settings.evaluation.beyond
        kwargs = {**settings.family_kwargs, ARGUMENT: beyond}
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_EXTRAPOLATION,)))
        outside = task_tools.unstack_tasks(
            space, draw_beyond(space, task_tools.stack_tasks(space, single), beyond, rng)
        )
        default = [task_tools.attribute(agent.env, "default_task")] * len(single)
        wider = copy.copy(agent)
        # The environment from which the agent reads its task space stays: a learner that is told the task scales it as
        # in training.
        wider.sampler = Sampler(
            settings.family,
            kwargs,
            settings.learning.workers,
            settings.learning.step_timeout,
            settings.evaluation.record,
            restart_workers=settings.learning.restart_workers,
        )
        every = [*single, *default, *outside]
        env = make(settings.family, **kwargs)
        try:
            oracle = task_tools.attribute(env, "oracle_return")
            best = None if oracle is None else np.array([oracle(task) for task in every])
        finally:
            close_or_warn(env)
        regions = tuple(name for name in REGIONS for _ in single)
        return Chosen(single=every, regions=regions, agent=wider, oracle=best)
