"""Evaluation: the mean return on tasks after each adaptation step, with intervals."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.agents import Parameters, Rollouts
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.files import new_file
from metarl.settings import Settings
from metarl.state import State
from metarl.statistics import LEVEL, STATISTICS, bootstrap_interval

# The index of a split is part of the keys of random streams; ``given`` stands for tasks that the caller passes.
SPLITS = (*task_tools.SPLITS, "given")
SCHEMA = "metarl-results-1"
Counted = Literal["adaptation steps", "earlier episodes"]
STEPS: Counted = "adaptation steps"
STATISTIC = "mean undiscounted return of the stochastic policy; interval by bootstrap over tasks"


def points(settings: Settings, *, remembers: bool) -> int:
    """Return how many points an evaluation has, by a run's settings.

    Args:
        settings: of the run.
        remembers: whether the learner has a memory; then they are the episodes of a trial, else the adaptation steps
            and the point before them.
    """
    return settings.learning.trial_episodes if remembers else settings.evaluation.steps + 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The returns of a learner on tasks, for each adaptation step.

    Attributes:
        family: the family's id.
        learner: the learner's name.
        split: the split of the tasks.
        seed: of the learner that was evaluated.
        evaluation_seed: of the tasks and episodes.
        iteration: the number of meta-iterations before the evaluation.
        episodes: for each task and step.
        returns: ``[step, task]``, mean return of new rollouts after 0, 1, ... adaptation steps.
        oracle: ``[task]``, the best expected return, or None if the family does not define it.
        statistics: further statistics of episodes by name (``statistics.STATISTICS``), ``[step, task]``.
        timesteps: environment steps of training, or None if they were not counted.
        trained: how training adapted, in episodes for each step and steps; None if it did not adapt. For learners with
            memory a step is an episode of the trial.
        counted: what the axis ``step`` counts. For learners with memory it is the earlier episodes of the trial, and
            ``episodes`` is the number of trials of each task.
    """

    family: str
    learner: str
    split: str
    seed: int
    evaluation_seed: int
    iteration: int
    episodes: int
    returns: NDArray[np.float64]
    oracle: NDArray[np.float64] | None
    timesteps: int | None = None
    trained: tuple[int, int] | None = None
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    counted: Counted = STEPS

    @property
    def score(self) -> float:
        """The mean return after adaptation, or over a whole trial, by which the best parameters are chosen."""
        return float(self.returns[1:].mean() if self.counted == STEPS else self.returns.mean())

    def mean(self, step: int) -> float:
        """Return the mean return over tasks after ``step`` adaptation steps."""
        return float(self.returns[step].mean())

    def to_json(self) -> dict[str, Any]:
        """Return the results in the schema of ``results.json`` and ``evaluations/<n>.json``."""
        adaptation = []
        for step, values in enumerate(self.returns):
            summary = _summary(values)
            per_task = summary.pop("per_task")
            adaptation.append(
                {
                    "step": step,
                    **summary,
                    "tasks": len(values),
                    "episodes": self.episodes,
                    "per_task": per_task,
                    **{name: _summary(of_steps[step]) for name, of_steps in self.statistics.items()},
                }
            )
        return {
            "schema": SCHEMA,
            "family": self.family,
            "learner": self.learner,
            "split": self.split,
            "statistic": f"{STATISTIC}; tasks and episodes drawn with seed {self.evaluation_seed}",
            "level": LEVEL,
            "seeds": [self.seed],
            "iteration": self.iteration,
            "counted": self.counted,
            "timesteps": self.timesteps,
            "oracle": None if self.oracle is None else float(self.oracle.mean()),
            "adaptation": adaptation,
        }

    def table(self) -> str:
        """Return the results as a table for the terminal."""
        results = self.to_json()
        lines = [
            f"{self.family}, {self.learner}, {self.split} tasks ({self.returns.shape[1]} tasks, "
            f"{LEVEL:.0%} intervals over tasks)",
            self._training(),
            self._budget(),
            "",
            f"{self.counted:>16}  {'return':>10}  {'interval':>22}"
            + "".join(f"  {name:>10}  {'interval':>22}" for name in self.statistics),
        ]
        for entry in results["adaptation"]:
            columns = [entry, *(entry[name] for name in self.statistics)]
            shown = [f"{part['mean']:>10.2f}  {_interval(part):>22}" for part in columns]
            lines.append(f"{entry['step']:>16}  {'  '.join(shown)}")
        if results["oracle"] is not None:
            lines.append(f"{'optimum':>16}  {results['oracle']:>10.2f}")
        return "\n".join(lines)

    def _training(self) -> str:
        after = f"after {_counted(self.iteration, 'iteration')}"
        if self.timesteps is None:
            return after
        steps = f"{self.timesteps / 1e6:,.1f} million" if self.timesteps >= 1e6 else f"{self.timesteps:,}"
        return f"{after}; {steps} environment steps of training"

    def _budget(self) -> str:
        """Return how much experience adaptation had, and how that differs from training."""
        steps = len(self.returns) - 1
        if self.counted != STEPS:
            played = f"{_counted(self.episodes, 'trial')} of each task, of {_counted(steps + 1, 'episode')}"
            if self.trained is None:
                return played
            same = self.trained[1] == steps
            return f"{played}, as in training" if same else f"{played}; trained with {self.trained[1] + 1}"
        adapted = f"adapted with {_counted(self.episodes, 'episode')} a step, up to {_counted(steps, 'step')}"
        if self.trained is None:
            return adapted
        if self.trained == (self.episodes, steps):
            return f"{adapted}, as in training"
        episodes, trained_steps = self.trained
        return f"{adapted}; trained with {_counted(episodes, 'episode')} and {_counted(trained_steps, 'step')}"

    def write_csv(self, path: Path) -> None:
        """Write a row for each adaptation step: step, mean, low, high, tasks, episodes, oracle."""
        results = self.to_json()
        with new_file(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            names = ["step", "mean", "low", "high", "tasks", "episodes"]
            writer.writerow([*names, "oracle"])
            for entry in results["adaptation"]:
                oracle = "" if results["oracle"] is None else results["oracle"]
                writer.writerow([*(entry[name] for name in names), oracle])


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
    evaluation = evaluation_of(
        rollouts,
        family=settings.family,
        learner=agent.name,
        split=f"{split} (the tasks of training)" if shared and split != "given" else split,
        seed=settings.seed,
        evaluation_seed=seed,
        iteration=state.iteration,
        episodes=episodes,
        oracle=None if oracle is None else np.array([oracle(task) for task in single]),
        timesteps=state.num_timesteps,
        trained=_trained(settings, remembers=agent.remembers) if agent.learns_to_adapt else None,
        counted="earlier episodes" if agent.remembers else STEPS,
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


def evaluation_of(rollouts: Sequence[Sequence[Rollouts]], **facts: Any) -> Evaluation:
    """Return the evaluation of rollouts.

    Args:
        rollouts: for each batch of tasks, the rollouts after 0, 1, ... adaptation steps.
        facts: the evaluation's other attributes.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for name, statistic in STATISTICS.items():
        values = [[statistic(part) for part in of_steps] for of_steps in rollouts]
        if all(value is None for of_steps in values for value in of_steps):
            continue
        by_group = [
            np.stack([_means(value, part) for value, part in zip(of_steps, parts, strict=True)])
            for of_steps, parts in zip(values, rollouts, strict=True)
        ]
        found[name] = np.concatenate(by_group, axis=1)
    return Evaluation(returns=found.pop("return"), statistics=found, **facts)


def _means(values: Tensor | None, rollouts: Rollouts) -> NDArray[np.float64]:
    """Return each task's mean over its episodes; 0 where these rollouts tell nothing of what others tell."""
    if values is None:
        return np.zeros(rollouts.n_tasks)
    means: NDArray[np.float64] = values.mean(dim=1).double().numpy()
    return means


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _summary(values: NDArray[np.float64]) -> dict[str, Any]:
    low, high = bootstrap_interval(values)
    return {"mean": float(values.mean()), "low": low, "high": high, "per_task": [float(value) for value in values]}


def _interval(summary: Mapping[str, Any]) -> str:
    return f"[{summary['low']:.2f}, {summary['high']:.2f}]"
