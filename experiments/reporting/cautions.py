"""What a reader of a report has to beware of, a sentence each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from metarl.experiments.comparison import BASELINES
from metarl.experiments.reporting.gather import Found
from metarl.experiments.reporting.rows import Chapter, Row
from metarl.protocols.generalization import REGIONS
from metarl.results import Evaluation
from metarl.results.versions import versions

_OF_MACHINE = ("platform", "processor", "cpus", "torch_threads", "gpu")


def cautions(chapters: Sequence[Chapter]) -> list[str]:
    """Return the warnings of a report."""
    runs = [run for chapter in chapters for row in chapter.rows for run in row.runs]
    found = [sentence for chapter in chapters for row in chapter.rows for sentence in _of_row(row)]
    for chapter in chapters:
        found += _of_chapter(chapter)
    return list(dict.fromkeys([*found, *_of_versions(runs), *_of_machines(runs)]))


def _of_row(row: Row) -> Iterator[str]:
    evaluation = row.evaluation
    if evaluation is None:
        return
    if len(evaluation.seeds) < 2:
        yield (
            f"{row.label} has one seed only ({evaluation.seeds[0]}): its intervals are over tasks, and do not tell how "
            "another seed would turn out."
        )
    if evaluation.split == "train":
        yield f"{row.label} was evaluated on tasks of training, which says nothing of new tasks."
    different = fewest_different_tasks(evaluation)
    drawn = len(_drawn(evaluation))
    if different is not None and different < drawn:
        yield (
            f"The {drawn} tasks on which {row.label} was evaluated are only {different} different ones, "
            "so that training may have had them too."
        )


def fewest_different_tasks(evaluation: Evaluation) -> int | None:
    """Return how many different tasks a seed was evaluated on, of the seed with the fewest; None if unknown."""
    known = [run.tasks for run in evaluation.runs if run.tasks is not None]
    drawn = _drawn(evaluation)
    return min((len({json.dumps(tasks[number]) for number in drawn}) for tasks in known), default=None)


def _drawn(evaluation: Evaluation) -> list[int]:
    """Return the numbers of the tasks that were drawn: all but those of the family's default task."""
    regions = evaluation.regions or ("",) * evaluation.n_tasks
    return [number for number, name in enumerate(regions) if name != REGIONS[1]]


def _of_chapter(chapter: Chapter) -> Iterator[str]:
    learners = {row.learner for row in chapter.rows}
    if not learners & set(BASELINES):
        yield (
            f"There is no baseline among the runs of {chapter.family}, so that nothing tells what adaptation from a "
            f"random or a pretrained start gives; 'metarl compare' trains {' and '.join(BASELINES)} beside others."
        )
    protocols = {evaluation.protocol: label for label, evaluation in chapter.tested}
    if len(protocols) > 1:
        of = ", ".join(f"{label}: {protocol}" for protocol, label in protocols.items())
        yield f"The runs were evaluated by different protocols ({of}), so that their curves differ for this reason too."


def _of_versions(runs: Sequence[Found]) -> Iterator[str]:
    by_run = [(run, _versions(run)) for run in runs if _versions(run)]
    if not by_run:
        return
    for name in dict.fromkeys(name for _, own in by_run for name in own):
        values = list(dict.fromkeys(own[name] for _, own in by_run if name in own))
        if len(values) > 1:
            yield f"The runs were made with different versions of {name} ({', '.join(values)})."
        elif versions().get(name, values[0]) != values[0]:
            yield (
                f"The runs were made with {name} {values[0]}; this report was written with {versions()[name]}, with "
                "which they might turn out differently."
            )


def _versions(run: Found) -> dict[str, str]:
    machine = run.machine
    own = {name: machine[name] for name in ("metarl", "python") if name in machine}
    packages = machine.get("packages")
    found = {**own, **(packages if isinstance(packages, dict) else {})}
    return {name: str(value) for name, value in found.items()} or dict(
        run.evaluation.versions if run.evaluation else {}
    )


def _of_machines(runs: Sequence[Found]) -> Iterator[str]:
    kinds = {_machine(run.machine) for run in runs if run.machine}
    if len(kinds) > 1:
        yield f"The runs were made on {len(kinds)} kinds of machine, so that their times cannot be compared."


def _machine(machine: Any) -> str:
    return json.dumps([machine.get(name) for name in _OF_MACHINE])


def facts(chapters: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Return names and values of the versions and the machines of the runs."""
    runs = [run for chapter in chapters for row in chapter.rows for run in row.runs]
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        own: dict[str, Any] = dict(_versions(run))
        own.update({name: run.machine[name] for name in _OF_MACHINE if run.machine.get(name) is not None})
        for name, value in own.items():
            found.setdefault(name.replace("_", " "), {})[str(value)] = None
    return [(name, ", ".join(values)) for name, values in found.items()]
