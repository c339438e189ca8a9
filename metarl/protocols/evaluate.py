"""Evaluation of an agent by a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.agents import Rollouts
from metarl.envs import tasks as task_tools
from metarl.envs.sync import close_or_warn
from metarl.envs.tasks import whole_number
from metarl.evaluation import EvaluatedAgent, points, say_which_were_trained_on
from metarl.gradients import task_axis
from metarl.protocols.generalization import Generalization
from metarl.protocols.k_shot import KShot
from metarl.protocols.pearl import Pearl
from metarl.protocols.protocol import Counts, EvaluationProtocol
from metarl.protocols.steps import Steps
from metarl.protocols.told import metrics_of, of_all_shares, told_of
from metarl.results import EvaluatedRun, Evaluation
from metarl.results.kept import DETERMINISTIC
from metarl.results.versions import versions
from metarl.settings import Settings
from metarl.statistics import statistics_of

PROTOCOLS: Mapping[str, type[EvaluationProtocol]] = {kind.name: kind for kind in (Steps, Pearl, KShot, Generalization)}


def find_protocol(name: str) -> EvaluationProtocol:
    """Return a protocol by its name.

    Raises:
        ValueError: there is none.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]()


def evaluate_agent(
    agent: EvaluatedAgent,
    split: str,
    tasks: Any = None,
    n_tasks: int | None = None,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    protocol: str = "steps",
) -> tuple[Evaluation, list[Any], list[Rollouts]]:
    """Return an agent's evaluation, and its first batch of tasks with their rollouts at each point.

    With several shares (``task_axis``), each plays its part of every batch, and the rollouts are of that part. The
    arguments are those of ``MetaAgent.evaluate``.

    Raises:
        ValueError: a count that is not positive, an unknown split or protocol, tasks outside the task space, an agent
            that the protocol cannot evaluate, or an entry of ``info`` that the environment does not have.
    """
    settings, env, how = agent.settings, agent.env, find_protocol(protocol)
    evaluating = settings.evaluation
    how.refuse(agent, steps=steps)
    standard_steps = points(settings, remembers=agent.remembers) - 1
    steps = standard_steps if steps is None else whole_number("steps", steps, least=0 if agent.remembers else 1)
    episodes = evaluating.episodes if episodes is None else whole_number("episodes", episodes)
    seed = evaluation_seed(settings) if seed is None else whole_number("seed", seed, least=0)
    if tasks is None:
        wanted = how.standard_tasks(settings, split) if n_tasks is None else whole_number("tasks", n_tasks)
        single = agent.single_tasks(task_tools.draw_tasks(env, wanted, task_tools.task_rng(seed, split), split))
    else:
        split = "given"
        single = agent.single_tasks(tasks)
        say_which_were_trained_on(agent, single)
    chosen = how.choose(agent, single, seed)
    single = chosen.single
    # As many tasks at once as in training, so that the same vector environments can be used.
    size = settings.learning.tasks
    groups = [range(start, min(start + size, len(single))) for start in range(0, len(single), size)]
    counts = Counts(episodes=episodes, steps=steps, seed=seed, split=split)
    statistics = statistics_of(evaluating.success, evaluating.record)
    own, first = [], None
    try:
        for group in groups:
            with task_axis.part_of(group) as part:
                points_played = how.play(chosen.agent, single, part, counts)
            own.append([told_of(point, statistics) for point in points_played])
            first = first or [each for point in points_played if (each := point.rollouts or point.deterministic)]
    finally:
        if chosen.agent is not agent:
            chosen.agent.sampler.close()
            close_or_warn(chosen.agent.env)
    played = of_all_shares(own, groups)
    shared = task_tools.attribute(env, "splits_share_tasks", False)
    run = EvaluatedRun(
        seed=settings.seed,
        evaluation_seed=seed,
        iteration=agent.state.iteration,
        timesteps=agent.state.all_timesteps,
        tasks=tuple(task_tools.plain(task) for task in single),
        oracle=chosen.oracle,
    )
    metrics = metrics_of(played, list(statistics))
    if untold := [name for name in evaluating.record if name not in metrics and name + DETERMINISTIC not in metrics]:
        raise ValueError(
            f"evaluation.record names {untold[0]!r}, but no info of {settings.family} had a number of this name in "
            "this evaluation; leave it out, or let info hold a single number under it at every step"
        )
    evaluation = Evaluation(
        family=settings.family,
        learner=agent.name,
        split=f"{split} (the tasks of training)" if shared and split != "given" else split,
        protocol=protocol,
        runs=(run,),
        episodes=episodes,
        counted=how.counted(agent),
        points=tuple(point.label for point in played[0]),
        metrics=metrics,
        metric=how.metric,
        episodes_before=_before(
            [
                [np.full(len(group), point.episodes_before, dtype=np.float64) for point in part]
                for group, part in zip(groups, played, strict=True)
            ]
        ),
        steps_before=_before([[point.steps_before for point in part] for part in played]),
        trained=_trained(settings, remembers=agent.remembers) if agent.learns_to_adapt else None,
        regions=chosen.regions,
        versions=versions(),
    )
    return evaluation, [single[i] for i in groups[0]], first or []


def evaluation_seed(settings: Settings) -> int:
    """Return the seed of the tasks and episodes of validation and test."""
    own = settings.evaluation.seed
    return settings.seed if isinstance(own, str) else own


def _trained(settings: Settings, *, remembers: bool) -> tuple[int, int]:
    """Return how training adapted: episodes for each step, and steps."""
    learning = settings.learning
    return (1, learning.trial_episodes - 1) if remembers else (learning.episodes, settings.inner.steps)


def _before(by_group: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return what was before each point, ``[seed, task, point]`` of one seed, from ``[group][point][task]``."""
    return np.concatenate([np.stack(of_points, axis=1) for of_points in by_group])[None]
