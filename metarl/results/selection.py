"""Some tasks of an evaluation, and means by name."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from metarl.results.kept import Kept

_Kept = TypeVar("_Kept", bound=Kept)


def region(evaluation: _Kept, name: str) -> _Kept:
    """Return the evaluation on the tasks of a region only.

    Raises:
        ValueError: it has no such tasks.
    """
    at = [number for number, own in enumerate(evaluation.regions or ()) if own == name]
    if not at:
        known = ", ".join(dict.fromkeys(evaluation.regions or ())) or "none"
        raise ValueError(f"the evaluation has no tasks of region {name!r}; its regions are: {known}")
    runs = tuple(
        replace(
            run,
            tasks=None if run.tasks is None else tuple(run.tasks[number] for number in at),
            oracle=None if run.oracle is None else run.oracle[at],
        )
        for run in evaluation.runs
    )
    return replace(
        evaluation,
        runs=runs,
        metrics={metric: values[:, at] for metric, values in evaluation.metrics.items()},
        episodes_before=evaluation.episodes_before[:, at],
        steps_before=None if evaluation.steps_before is None else evaluation.steps_before[:, at],
        regions=(name,) * len(at),
    )


def means_by_tag(kept: Kept, prefix: str) -> dict[str, float]:
    """Return the means of all metrics at all points, as TensorBoard names them; in each region if there are any."""
    found = {}
    for name in dict.fromkeys(kept.regions or ("",)):
        part = region(kept, name) if name else kept
        for metric in kept.metrics:
            for number, point in enumerate(kept.points):
                mean = part.mean(number, metric)
                if not math.isnan(mean):
                    found[f"{prefix}/{metric}_{f'{name}_' if name else ''}step_{point}"] = mean
    return found
