"""The rows of a report: runs that differ by their seeds only, put together, in a chapter for each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarl.experiments.comparison import UNKNOWN
from metarl.experiments.reporting.gather import Found
from metarl.results import Evaluation, combine

# Settings that do not change what is learned, or are the seed.
_NOT_ASKED = frozenset({"seed", "device", "learning.workers", "learning.step_timeout", "learning.restart_workers"})
_NAMED = 2  # settings in a label at most; rows that differ in more are numbered


@dataclass(frozen=True, kw_only=True)
class Row:
    """Runs that differ by their seeds only.

    Attributes:
        label: the learner's name, with the settings by which rows of one learner differ; a number where they are many.
        learner: the learner's name.
        asked: the settings by dotted name, without those that differ within the row.
        runs: in the order of their seeds.
        evaluation: of all their seeds; None if no run has results.
    """

    label: str
    learner: str
    asked: Mapping[str, Any]
    runs: tuple[Found, ...]
    evaluation: Evaluation | None


@dataclass(frozen=True)
class Chapter:
    """The rows of one family."""

    family: str
    rows: tuple[Row, ...]

    @property
    def tested(self) -> list[tuple[str, Evaluation]]:
        """The labels and evaluations of the rows that have results."""
        return [(row.label, row.evaluation) for row in self.rows if row.evaluation is not None]


def chapters(found: Sequence[Found], faults: list[str]) -> list[Chapter]:
    """Return runs as rows, by family, in the order in which they were given.

    Args:
        found: the runs.
        faults: gets a sentence for every run that cannot be put together with others, and for several families.
    """
    by_family: dict[str, list[Found]] = {}
    for run in found:
        by_family.setdefault(str(run.settings["family"]), []).append(run)
    if len(by_family) > 1:
        faults.append(
            f"The runs are of {len(by_family)} families ({', '.join(by_family)}), whose returns cannot be compared, so "
            "each family has a chapter of its own."
        )
    return [Chapter(family, _rows(runs, faults)) for family, runs in by_family.items()]


def _rows(runs: Sequence[Found], faults: list[str]) -> tuple[Row, ...]:
    groups: list[tuple[dict[str, Any], list[Found]]] = []
    for run in runs:
        asked = {name: value for name, value in run.settings.items() if name not in _NOT_ASKED}
        group = next((members for own, members in groups if own == asked), None)
        if group is None:
            groups.append((asked, [run]))
        elif any(other.settings["seed"] == run.settings["seed"] for other in group):
            faults.append(
                f"{str(run.folder)!r} has the seed and the settings of another run of the report; it is left out."
            )
        else:
            group.append(run)
    labels = _labels([asked for asked, _ in groups])
    rows = []
    for label, (asked, members) in zip(labels, groups, strict=True):
        ordered = tuple(sorted(members, key=lambda run: int(run.settings["seed"])))
        rows.append(
            Row(
                label=label,
                learner=str(asked["learner"]),
                asked=asked,
                runs=ordered,
                evaluation=_combined(label, ordered, faults),
            )
        )
    return tuple(rows)


def _combined(label: str, runs: Sequence[Found], faults: list[str]) -> Evaluation | None:
    evaluations = [run.evaluation for run in runs if run.evaluation is not None]
    if not evaluations:
        return None
    try:
        return combine(evaluations)
    except ValueError as error:
        faults.append(f"Of {label} only seed {evaluations[0].seeds[0]} is shown: {error}.")
        return evaluations[0]


def differing(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of settings that are not the same everywhere.

    >>> differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
    ['b', 'c']
    """
    names = dict.fromkeys(name for part in asked for name in part)
    return [name for name in names if any(name not in part or part[name] != asked[0].get(name) for part in asked)]


def _labels(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    labels = []
    for own in asked:
        alike = [other for other in asked if other["learner"] == own["learner"]]
        names = differing(alike)
        if len(names) > _NAMED:
            labels.append(f"{own['learner']} ({1 + next(at for at, other in enumerate(alike) if other is own)})")
        else:
            labels.append(" ".join([own["learner"], *(f"{name}={own.get(name, UNKNOWN)}" for name in names)]))
    return labels
