"""Several evaluations of one learner, with different seeds, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metarl.results.evaluation import Evaluation

_MUST_AGREE = ("family", "learner", "split", "protocol", "metric", "counted", "points", "episodes", "regions")


def combine(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return evaluations of the same learner with different seeds as one, with the seeds on the first axis.

    Metrics that only some of them have are left out.

    Raises:
        ValueError: there is none, two are of one seed, or they differ in more than their seeds.
    """
    if not evaluations:
        raise ValueError("there is no evaluation to combine; expected at least one")
    for given in evaluations:
        if not isinstance(given, Evaluation):
            raise ValueError(f"{given!r} is no evaluation; read one by metarl.Evaluation.read(path)")
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    for other in evaluations[1:]:
        for name in _MUST_AGREE:
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(
                    f"the {name} of one evaluation is {ours!r} and that of another {theirs!r}; only evaluations that "
                    "differ by their seeds can be combined"
                )
    seeds = [seed for evaluation in evaluations for seed in evaluation.seeds]
    if len(set(seeds)) < len(seeds):
        again = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"two of the evaluations are of seed {again}; combine each seed once")
    if len({evaluation.n_tasks for evaluation in evaluations}) > 1:
        counts = " and ".join(str(evaluation.n_tasks) for evaluation in evaluations)
        raise ValueError(f"the evaluations have {counts} tasks; only those of the same number can be combined")
    common = [name for name in first.metrics if all(name in evaluation.metrics for evaluation in evaluations)]
    before = [evaluation.steps_before for evaluation in evaluations if evaluation.steps_before is not None]
    return replace(
        first,
        runs=tuple(run for evaluation in evaluations for run in evaluation.runs),
        metrics={name: _joined([evaluation.metrics[name] for evaluation in evaluations]) for name in common},
        episodes_before=np.concatenate([evaluation.episodes_before for evaluation in evaluations]),
        steps_before=np.concatenate(before) if len(before) == len(evaluations) else None,
        trained=first.trained if len({evaluation.trained for evaluation in evaluations}) == 1 else None,
        settings=None,
    )


def _joined(values: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return arrays ``[seed, task, point, episode]`` one after the other, with NaN for the episodes that some lack."""
    width = max(part.shape[3] for part in values)
    missing = [((0, 0), (0, 0), (0, 0), (0, width - part.shape[3])) for part in values]
    return np.concatenate(
        [np.pad(part, pads, constant_values=np.nan) for part, pads in zip(values, missing, strict=True)]
    )
