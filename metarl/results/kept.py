"""What is kept of an evaluation: every episode of every task, by seed and by how much of the task was seen before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Counted = Literal["adaptation steps", "earlier episodes"]
STEPS: Counted = "adaptation steps"
DETERMINISTIC = "_deterministic"  # ends the names of what the policy's most likely actions gave


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """One of the learners that an evaluation is of, which differ by their seeds.

    Attributes:
        seed: of the learner.
        evaluation_seed: of the tasks and episodes.
        iteration: the number of meta-iterations before the evaluation.
        timesteps: environment steps of training, or None if they were not counted.
        tasks: of the evaluation, as lists, dicts and numbers; None if a file of an older version does not tell them.
        oracle: ``[task]``, the best expected return, or None if the family does not define it.
    """

    seed: int
    evaluation_seed: int
    iteration: int
    timesteps: int | None = None
    tasks: tuple[Any, ...] | None = None
    oracle: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The episodes of a learner on tasks, by how much it had seen of each task before.

    Attributes:
        family: the family's id.
        learner: the learner's name.
        split: the split of the tasks.
        protocol: the name of the protocol (``evaluation.protocol``).
        runs: the learners evaluated, one for each seed.
        episodes: the number of episodes of each task at each point.
        counted: what ``points`` counts. For learners with memory it is the earlier episodes of the trial, and
            ``episodes`` is the number of trials of each task.
        points: how many of what ``counted`` says were before, for each point.
        metrics: numbers of episodes by name, each ``[seed, task, point, episode]``: ``return`` (undiscounted),
            ``length`` (in environment steps), ``success`` (1 or 0) where ``info`` tells of it, and the entries of
            ``info`` that ``evaluation.record`` names. NaN where a point has no such episode. Of a file of an older
            version, the one episode is the mean of all.
        metric: the name of the one that is the score.
        episodes_before: ``[seed, task, point]``, the episodes of the task that were seen before.
        steps_before: ``[seed, task, point]``, their environment steps; with memory a mean over the trials. None if a
            file of an older version does not tell.
        trained: how training adapted, in episodes for each step and steps; None if it did not adapt. For learners with
            memory a step is an episode of the trial.
        regions: of the protocol ``generalization``, for each task where it lies: ``default``, ``interpolation`` or
            ``extrapolation``. None otherwise.
        versions: of metarl, Python and packages, by name.
        settings: of the run, as in its file; None if the evaluation is not of a run's file, or of several runs.
    """

    family: str
    learner: str
    split: str
    protocol: str
    runs: tuple[EvaluatedRun, ...]
    episodes: int
    counted: Counted
    points: tuple[int, ...]
    metrics: Mapping[str, NDArray[np.float32]]
    metric: str = "return"
    episodes_before: NDArray[np.float64]
    steps_before: NDArray[np.float64] | None
    trained: tuple[int, int] | None = None
    regions: tuple[str, ...] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the learners, in the order of the first axis."""
        return tuple(run.seed for run in self.runs)

    @property
    def n_tasks(self) -> int:
        """The number of tasks of each seed."""
        return int(self.metrics[self.metric].shape[1])

    @property
    def has_same_tasks(self) -> bool:
        """Whether all seeds were evaluated on the same tasks; False for a single seed."""
        first = self.runs[0].tasks
        return len(self.runs) > 1 and first is not None and all(run.tasks == first for run in self.runs)

    @property
    def iteration(self) -> int | None:
        """The number of meta-iterations before the evaluation; None if the seeds' numbers differ."""
        return _common([run.iteration for run in self.runs])

    @property
    def timesteps(self) -> int | None:
        """Environment steps of training; None if they were not counted or the seeds' numbers differ."""
        return _common([run.timesteps for run in self.runs])

    @property
    def oracle(self) -> NDArray[np.float64] | None:
        """The best expected return ``[seed, task]``, or None if the family does not define it."""
        known = [run.oracle for run in self.runs if run.oracle is not None]
        return np.stack(known) if len(known) == len(self.runs) else None

    def means(self, metric: str | None = None) -> NDArray[np.float64]:
        """Return the mean of a metric over episodes, ``[seed, task, point]``; NaN where it was not measured.

        Args:
            metric: a name of ``metrics``; default: the score's.
        """
        # In single precision and by torch, as rollouts are kept and averaged everywhere else.
        episodes = torch.from_numpy(np.ascontiguousarray(self.metrics[metric or self.metric], dtype=np.float32))
        plain = episodes.mean(dim=3)
        found: NDArray[np.float64] = torch.where(plain.isnan(), episodes.nanmean(dim=3), plain).double().numpy()
        return found

    @property
    def returns(self) -> NDArray[np.float64]:
        """The mean return ``[point, task]``; of several seeds, the tasks of one after those of another."""
        return self._by_point(self.metric)

    @property
    def statistics(self) -> dict[str, NDArray[np.float64]]:
        """The means of the other metrics by name, each ``[point, task]`` as ``returns``."""
        return {name: self._by_point(name) for name in self.metrics if name != self.metric}

    def _by_point(self, metric: str) -> NDArray[np.float64]:
        means = self.means(metric)
        return means.transpose(2, 0, 1).reshape(means.shape[2], -1)

    @property
    def score(self) -> float:
        """The mean after adaptation, or over a whole trial, by which the best parameters are chosen."""
        return self.score_by(self.metric)

    def score_by(self, metric: str) -> float:
        """Return the mean of a metric after adaptation, or over a whole trial."""
        means = self._by_point(metric)
        return float(means[1:].mean() if self.counted == STEPS else means.mean())

    def mean(self, point: int, metric: str | None = None) -> float:
        """Return the mean over tasks and seeds at a point, the return's by default."""
        return float(self._by_point(metric or self.metric)[point].mean())


def _common(values: Sequence[int | None]) -> int | None:
    return values[0] if len(set(values)) == 1 else None
