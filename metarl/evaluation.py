"""Evaluation: the mean return on tasks after each adaptation step, with intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.agents import Parameters, Rollouts
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.results.evaluation import Evaluation
from metarl.results.kept import STEPS, EvaluatedRun
from metarl.results.versions import versions
from metarl.settings import Settings
from metarl.state import State
from metarl.statistics import statistics_of

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
    ) -> Rollouts:
        """Collect rollouts of a batch of tasks."""

    def say_once(self, sentence: str) -> None:
        """Give a warning, unless the agent has given the same one."""


def evaluate_agent(
    agent: EvaluatedAgent,
    split: str,
    tasks: Any = None,
    n_tasks: int | None = None,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> tuple[Evaluation, list[Any], list[Rollouts]]:
    """Return an agent's evaluation, and its first batch of tasks with their rollouts after 0, 1, ... steps.

    The arguments are those of ``MetaAgent.evaluate``.

    Raises:
        ValueError: a count that is not positive, an unknown split, or tasks outside the task space.
    """
    settings, env = agent.settings, agent.env
    evaluating = settings.evaluation
    standard_steps = points(settings, remembers=agent.remembers) - 1
    steps = standard_steps if steps is None else whole_number("steps", steps, least=0 if agent.remembers else 1)
    episodes = evaluating.episodes if episodes is None else whole_number("episodes", episodes)
    seed = settings.seed if seed is None else whole_number("seed", seed, least=0)
    if tasks is None:
        standard = evaluating.test_tasks if split == "test" else evaluating.tasks
        wanted = standard if n_tasks is None else whole_number("tasks", n_tasks)
        single = agent.single_tasks(task_tools.draw_tasks(env, wanted, task_tools.task_rng(seed, split), split))
    else:
        split = "given"
        single = agent.single_tasks(tasks)
        _say_which_were_trained_on(agent, single)
    # As many tasks at once as in training, so that the same vector environments can be used.
    size = settings.learning.tasks
    groups = [range(start, min(start + size, len(single))) for start in range(0, len(single), size)]
    state = agent.state
    rollouts = [agent.evaluation_rollouts(state, single, group, episodes, steps, seed, split) for group in groups]
    shared = task_tools.attribute(env, "splits_share_tasks", False)
    oracle = task_tools.attribute(env, "oracle_return")
    run = EvaluatedRun(
        seed=settings.seed,
        evaluation_seed=seed,
        iteration=state.iteration,
        timesteps=state.num_timesteps,
        tasks=tuple(task_tools.plain(task) for task in single),
        oracle=None if oracle is None else np.array([oracle(task) for task in single]),
    )
    before, steps_before = _experience(rollouts, episodes, remembers=agent.remembers)
    evaluation = Evaluation(
        family=settings.family,
        learner=agent.name,
        split=f"{split} (the tasks of training)" if shared and split != "given" else split,
        protocol="steps",
        runs=(run,),
        episodes=episodes,
        counted="earlier episodes" if agent.remembers else STEPS,
        points=tuple(range(steps + 1)),
        metrics=metrics_of(rollouts, statistics_of(evaluating.success, evaluating.record)),
        episodes_before=before,
        steps_before=steps_before,
        trained=_trained(settings, remembers=agent.remembers) if agent.learns_to_adapt else None,
        versions=versions(),
    )
    return evaluation, [single[i] for i in groups[0]], rollouts[0]


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


def _trained(settings: Settings, *, remembers: bool) -> tuple[int, int]:
    """Return how training adapted: episodes for each step, and steps."""
    learning = settings.learning
    return (1, learning.trial_episodes - 1) if remembers else (learning.episodes, settings.inner.steps)


def task_digest(task: Any) -> str:
    """Return a digest of a task, by which it is found again among those that a learner was trained on."""
    return hashlib.sha256(json.dumps(task_tools.plain(task), sort_keys=True).encode()).hexdigest()[:16]


def _say_which_were_trained_on(agent: EvaluatedAgent, single: list[Any]) -> None:
    known = sum(task_digest(task) in agent.tasks_trained_on for task in single)
    if known:
        which = f"all {len(single)}" if known == len(single) > 1 else f"{known} of the {len(single)}"
        agent.say_once(
            f"{which} tasks of this evaluation were given to learn() or fit(), so the returns on them do not show "
            "how the learner adapts to new tasks; draw others, as in metarl.sample_tasks(family, n, split='test')"
        )


def metrics_of(
    rollouts: Sequence[Sequence[Rollouts]], statistics: Mapping[str, Callable[[Rollouts], Tensor | None]]
) -> dict[str, NDArray[np.float32]]:
    """Return statistics of all episodes by name, ``[seed, task, point, episode]`` of a single seed.

    Args:
        rollouts: for each batch of tasks, the rollouts at each point.
        statistics: by name; one that tells nothing of any rollouts is left out.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, statistic in statistics.items():
        values = [[statistic(part) for part in of_points] for of_points in rollouts]
        if all(value is None for of_points in values for value in of_points):
            continue
        by_group = [
            np.stack([_known(value, part) for value, part in zip(of_points, parts, strict=True)], axis=1)
            for of_points, parts in zip(values, rollouts, strict=True)
        ]
        found[name] = np.concatenate(by_group)[None]
    return found


def _known(values: Tensor | None, rollouts: Rollouts) -> NDArray[np.float32]:
    """Return values ``[task, episode]``; 0 where these rollouts tell nothing of what others tell."""
    if values is None:
        return np.zeros(rollouts.mask.shape[:2], dtype=np.float32)
    known: NDArray[np.float32] = values.float().numpy()
    return known


def _experience(
    rollouts: Sequence[Sequence[Rollouts]], episodes: int, *, remembers: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the episodes and the environment steps of each task before each point, ``[seed, task, point]``.

    It is of a single seed. With memory a point has one episode more of the same trial than the one before, so the
    steps are a mean over trials.
    """
    lengths = np.concatenate(
        [np.stack([part.mask.sum(dim=2).double().numpy() for part in parts], axis=1) for parts in rollouts]
    )
    each = lengths.mean(axis=2) if remembers else lengths.sum(axis=2)
    steps = np.cumsum(each, axis=1) - each
    count = np.arange(lengths.shape[1], dtype=np.float64) * (1 if remembers else episodes)
    return np.broadcast_to(count, steps.shape)[None].copy(), steps[None]
