"""Evaluation of an agent by a protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts
from metarl.envs import tasks as task_tools
from metarl.envs.sync import close_or_warn
from metarl.envs.tasks import whole_number
from metarl.evaluation import EvaluatedAgent, points, say_which_were_trained_on
from metarl.protocols.generalization import Generalization
from metarl.protocols.k_shot import KShot
from metarl.protocols.pearl import Pearl
from metarl.protocols.protocol import Counts, EvaluationProtocol, Point
from metarl.protocols.steps import Steps
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

    The arguments are those of ``MetaAgent.evaluate``.

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
    try:
        played = [how.play(chosen.agent, single, group, counts) for group in groups]
    finally:
        if chosen.agent is not agent:
            chosen.agent.sampler.close()
            close_or_warn(chosen.agent.env)
    shared = task_tools.attribute(env, "splits_share_tasks", False)
    run = EvaluatedRun(
        seed=settings.seed,
        evaluation_seed=seed,
        iteration=agent.state.iteration,
        timesteps=agent.state.all_timesteps,
        tasks=tuple(task_tools.plain(task) for task in single),
        oracle=chosen.oracle,
    )
    metrics = metrics_of(played, statistics_of(evaluating.success, evaluating.record))
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
    first = [rollouts for point in played[0] if (rollouts := point.rollouts or point.deterministic) is not None]
    return evaluation, [single[i] for i in groups[0]], first


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


def metrics_of(
    played: Sequence[Sequence[Point]], statistics: Mapping[str, Callable[[Rollouts], Tensor | None]]
) -> dict[str, NDArray[np.float32]]:
    """Return statistics of all episodes by name, ``[seed, task, point, episode]`` of a single seed.

    Those of the most likely actions have a name of their own. A statistic that tells nothing of any rollouts is left
    out.

    Args:
        played: for each group of tasks, what was played at each point.
        statistics: by name.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for suffix, attribute in (("", "rollouts"), (DETERMINISTIC, "deterministic")):
        for name, statistic in statistics.items():
            values = [[_told(statistic, getattr(point, attribute)) for point in part] for part in played]
            if all(value is None for part in values for value in part):
                continue
            rollouts = [[getattr(point, attribute) for point in part] for part in played]
            longest = max(part.mask.shape[1] for of_points in rollouts for part in of_points if part is not None)
            by_group = [
                np.stack(
                    [
                        _filled(value, part, len(point.steps_before), longest)
                        for value, part, point in zip(of_points, parts, points_, strict=True)
                    ],
                    axis=1,
                )
                for of_points, parts, points_ in zip(values, rollouts, played, strict=True)
            ]
            found[name + suffix] = np.concatenate(by_group)[None]
    width = max(values.shape[3] for values in found.values())
    return {name: _padded(values, width) for name, values in found.items()}


def _told(statistic: Callable[[Rollouts], Tensor | None], rollouts: Rollouts | None) -> Tensor | None:
    return None if rollouts is None else statistic(rollouts)


def _filled(values: Tensor | None, rollouts: Rollouts | None, tasks: int, episodes: int) -> NDArray[np.float32]:
    """Return values ``[task, episode]``: 0 where these rollouts tell nothing of what others tell, NaN for none."""
    if values is None:
        return np.full((tasks, episodes), np.nan if rollouts is None else 0.0, dtype=np.float32)
    return _padded(values.float().numpy(), episodes)


def _padded(values: NDArray[np.float32], episodes: int) -> NDArray[np.float32]:
    """Return values ``[..., episode]`` with NaN for the episodes that are missing."""
    missing = episodes - values.shape[-1]
    return np.concatenate([values, np.full((*values.shape[:-1], missing), np.nan, np.float32)], axis=-1)
