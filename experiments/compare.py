"""``metarl compare``: the runs of a comparison, and the training of those that are not done yet."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.checkpoints import read_checkpoint
from metarl.envs import RolloutError
from metarl.experiments import training
from metarl.experiments.comparison import FILES, Entry, read_rows
from metarl.experiments.configuration import parse_override, read_configuration
from metarl.experiments.processes import Failure
from metarl.experiments.runs import Run, same_run
from metarl.experiments.sharing.claims import DONE, FAILED, FOLDER, LEFT, Claims
from metarl.experiments.sharing.share import TAKEN, share
from metarl.experiments.sharing.still_ours import LostError, StillOurs
from metarl.experiments.streams import say
from metarl.files import in_words, sweep_parts
from metarl.learners.registry import find_learner, read_settings
from metarl.results import Evaluation
from metarl.results.aggregates import TasksOfSeeds
from metarl.settings import Settings

_SET_BY_OPTIONS = {"learner": "--learners", "seed": "--seeds"}


@dataclass(frozen=True)
class Row:
    """A row of a comparison: a learner, with its own settings.

    Attributes:
        label: the text with which the row was given, its name in tables.
        learner: the learner's name.
        overrides: the row's own settings, dotted keys and values.
    """

    label: str
    learner: str
    overrides: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Job:
    """One run of a comparison: a row with a seed; ``name`` is the name of its folder."""

    row: Row
    seed: int
    name: str
    settings: Settings


def parse_rows(text: str) -> list[Row]:
    """Return the rows of ``"maml,scratch,scratch evaluation.steps=30"``, without duplicates.

    Raises:
        ValueError: a name is missing, or a name is followed by something other than settings.
    """
    rows = []
    # Commas within brackets belong to a list, as in policy.hidden_sizes=[64,64].
    for part in re.split(r",(?![^\[\]]*\])", text):
        words = part.split()
        if not words:
            raise ValueError(
                f"--learners is {text!r}, where a name is missing; expected names, as maml,reptile,scratch"
            )
        rows.append(_parse_row(" ".join(words)))
    return list({row.label: row for row in rows}.values())


def _parse_row(label: str) -> Row:
    learner, *settings = label.split()
    return Row(label, learner, tuple(parse_override(setting) for setting in settings))


def _tested_seeds(out: Path, folder: str) -> list[int]:
    """Return the seeds of a row's runs that have results."""
    found = (path.parent.name.removeprefix(f"{folder}-") for path in out.glob(f"{folder}-*/results.json"))
    return sorted(int(seed) for seed in found if seed.isdecimal())


def _is_of(run: Run, job: Job) -> bool:
    """Return whether a folder holds the run of a job, or nothing that could be read to tell."""
    try:
        found = run.settings()
    except ValueError:
        try:
            found = read_settings(read_checkpoint(run.last).facts["settings"])
        except (ValueError, KeyError):
            return True  # which training reports, or mends
    length = [(each.learning.iterations, each.evaluation.every) for each in (found, job.settings)]
    return same_run(found, job.settings) and length[0] == length[1]


def plan(
    config: str,
    rows: Sequence[Row],
    seeds: int,
    out: Path,
    overrides: Sequence[tuple[str, Any]],
    vary: Sequence[str] = (),
) -> list[Job]:
    """Return all runs of a comparison, including those that are done.

    Rows and seeds of the tables that are in the folder already are part of it, so that no table loses a row.

    Args:
        config: a shipped configuration, a TOML file or an environment.
        rows: of the comparison.
        seeds: the number of seeds, 1, 2, ..., of each row.
        out: the folder of the runs' folders, ``<learner>-<seed>``.
        overrides: settings of all rows; a row's own settings have precedence.
        vary: what varies in an environment, as for ``read_configuration``.

    Raises:
        ValueError: settings are wrong or would give rows different test tasks, a learner does not support the family,
            a folder holds another run, or runs of the tables in the folder are gone or have other settings.
    """
    earlier = read_rows(out)
    given = {row.label: seeds for row in rows}
    labels = list(dict.fromkeys([*earlier, *given]))
    rows = [next((row for row in rows if row.label == label), None) or _parse_row(label) for label in labels]
    jobs = []
    for row in rows:
        settings = [*overrides, *row.overrides]
        for key, _ in settings:
            if key in _SET_BY_OPTIONS:
                raise ValueError(f"{key} is set by {_SET_BY_OPTIONS[key]}; leave it out of the settings")
        folder = re.sub(r"[^A-Za-z0-9._-]+", "-", row.label).strip("-")
        asked = range(1, given.get(row.label, 0) + 1)
        for seed in sorted({*asked, *(_tested_seeds(out, folder) if row.label in earlier else ())}):
            try:
                found = read_configuration(config, [("learner", row.learner), ("seed", seed), *settings], vary)[1]
            except ValueError as error:
                raise ValueError(f"{row.label}: {error}") from error
            jobs.append(Job(row, seed, f"{folder}-{seed}", found))
    _check_tasks(jobs)
    for name in {job.name for job in jobs}:
        sharing = [job.row.label for job in jobs if job.name == name]
        if len(sharing) > 1:
            raise ValueError(f"{' and '.join(sharing)} would both be the run {name!r}; compare them in another --out")
    for job in jobs:
        run = Run(out / job.name)
        if (run.last.is_file() or run.results.is_file()) and not _is_of(run, job):
            raise ValueError(f"the run {str(run.folder)!r} has other settings; choose another --out")
    for label, count in earlier.items():
        # What is asked for will be there; of the other rows, only what is there now.
        kept = sum(label in given or _done(job, out) for job in jobs if job.row.label == label)
        if kept < count:
            raise ValueError(
                f"the table {str(out / FILES[0])!r} has {count} seeds of {label!r}, of which only {kept} could be kept "
                "in it; train them again with --learners and --seeds, or choose another --out"
            )
    for row in rows:
        todo = [job for job in jobs if job.row == row and not _done(job, out)]
        if todo:
            try:
                find_learner(row.learner).from_settings(todo[0].settings).close()
            except (ValueError, TypeError) as error:
                raise ValueError(f"{row.label}: {error}") from error
    return jobs


def _check_tasks(jobs: Sequence[Job]) -> None:
    """Refuse rows that would be tested on different tasks, since differences between learners are paired by task."""
    other = next((job for job in jobs if job.settings.evaluation.protocol != "steps"), None)
    if other is not None:
        raise ValueError(
            f"evaluation.protocol is {other.settings.evaluation.protocol!r} for {other.row.label}, but the tables of "
            "'metarl compare' are of the protocol 'steps'; leave it out, and evaluate the runs afterwards with "
            "'metarl evaluate RUN --protocol NAME'"
        )
    first = _test_settings(jobs[0].settings)
    for job in jobs:
        for key, value in _test_settings(job.settings).items():
            if value != first[key]:
                raise ValueError(
                    f"{key} is {value!r} for {job.row.label} and {first[key]!r} for {jobs[0].row.label}, but all rows "
                    "are tested on the same tasks; set it for all"
                )


def _test_settings(settings: Settings) -> dict[str, Any]:
    return {
        "family": settings.family,
        "family_kwargs": settings.family_kwargs,
        "evaluation.test_tasks": settings.evaluation.test_tasks,
        "evaluation.seed": settings.evaluation.seed,
    }


def _done(job: Job, out: Path) -> bool:
    try:
        _results(job, out)
    except ValueError:
        return False
    return True


def run_all(jobs: Sequence[Job], out: Path, parallel: int, *, waits: bool = True) -> list[str]:
    """Train and test the runs that are not done yet, resuming interrupted ones; return a sentence for each failure.

    Other processes may do the same in the same folder: each run is trained by one of them.

    Args:
        jobs: all runs.
        out: the folder of the runs' folders.
        parallel: how many runs are trained at a time; if more than one, each in its own process with one thread, which
            does not change the results by a single bit.
        waits: for the runs of other processes.

    Raises:
        ValueError: the folder cannot be written.
    """
    claims = Claims(out / FOLDER)
    claims.prepare()
    todo = {job.name: job for job in jobs if not _done(job, out)}
    calls = {name: (job.settings, out, name) for name, job in todo.items()}
    work = train_quietly if parallel > 1 else _train_with_bar
    failed = []
    began = time.perf_counter()
    ends = share(work, calls, claims, lambda name: _done(todo[name], out), parallel=parallel, waits=waits)
    for count, end in enumerate(ends, start=1):
        place = "" if end.here else " in another process"
        if end.failure is None:
            means = _results(todo[end.name], out).returns.mean(axis=1)
            returns = ", ".join(
                f"{means[step]:.2f} after {step}" for step in sorted({0, min(1, len(means) - 1), len(means) - 1})
            )
            say(f"{end.name}{place}: {returns} ({count} of {len(todo)}, {time.perf_counter() - began:.0f} s)")
        else:
            failed.append(f"{end.name} failed{place}: {end.failure}")
            say(f"{end.name}: failed{place} ({count} of {len(todo)})")
    return failed


def train_quietly(claims: Claims, number: int, settings: Settings, out: Path, name: str) -> Failure:
    """Train and test a run without a progress bar; return its failure or None, or ``TAKEN``.

    Args:
        claims: on the runs in the folder.
        number: of the latest claim on this run, which does not hold any more.
        settings: of the run.
        out: the folder of the runs' folders.
        name: of the run's folder.
    """
    return _train(claims, number, settings, out, name, progress_bar=False)


def _train_with_bar(claims: Claims, number: int, settings: Settings, out: Path, name: str) -> Failure:
    return _train(claims, number, settings, out, name, progress_bar=True)


def _train(claims: Claims, number: int, settings: Settings, out: Path, name: str, *, progress_bar: bool) -> Failure:
    how, failure = LEFT, None
    try:
        claim = claims.take(name, number)
    except OSError as error:
        return in_words(error)
    if claim is None:
        return TAKEN
    try:
        training.train(settings, out, name, progress_bar=progress_bar, callbacks=[StillOurs(claim)])
        how = DONE
    except LostError:
        say(f"{name}: another process has taken it, since this one was not heard of for long")
        return TAKEN
    except (ValueError, RolloutError, FloatingPointError) as error:
        how, failure = FAILED, " ".join(str(error).split())
    except OSError as error:
        how, failure = FAILED, in_words(error)
    finally:
        claim.end(how, failure or "")
    return failure


@contextlib.contextmanager
def tables_alone(out: Path) -> Iterator[None]:
    """Let no other process write the tables of a folder meanwhile, and delete what a killed one left of them."""
    with Claims(out / FOLDER).waiting_for("tables"):
        sweep_parts(out, re.compile("|".join(map(re.escape, FILES))))
        yield


def _results(job: Job, out: Path) -> Evaluation:
    return Run(out / job.name).read_results(job.settings)


def read_entries(jobs: Sequence[Job], out: Path) -> list[Entry]:
    """Return the results of the runs that are done, an entry for each row with at least one such run."""
    entries = []
    for row in {job.row.label: job.row for job in jobs}.values():
        done = [job for job in jobs if job.row == row and _done(job, out)]
        if not done:
            continue
        results = [_results(job, out) for job in done]
        costs = [_cost(job, out) for job in done]
        optima = [result.oracle for result in results]
        entries.append(
            Entry(
                label=row.label,
                learner=row.learner,
                seeds=tuple(job.seed for job in done),
                returns=np.array([result.returns for result in results]),
                successes=_successes(results),
                episodes=results[0].episodes,
                optimum=_mean([None if optimum is None else float(optimum.mean()) for optimum in optima]),
                environment_steps=_mean([cost.get("environment_steps") for cost in costs]),
                seconds=_mean([cost.get("seconds") for cost in costs]),
                counted=results[0].counted,
                tasks=_tasks_of_seeds(results),
            )
        )
    return entries


def _tasks_of_seeds(results: Sequence[Evaluation]) -> TasksOfSeeds:
    """Return whether the seeds have common tasks, as far as the results tell."""
    tasks = [result.runs[0].tasks for result in results]
    return "common" if tasks[0] is not None and all(other == tasks[0] for other in tasks) else "own"


def _successes(results: Sequence[Evaluation]) -> NDArray[np.float64] | None:
    """Return the share of episodes with success, ``[seed, step, task]``; None unless all results tell it."""
    told = [result.statistics.get("success") for result in results]
    known = [part for part in told if part is not None]
    return np.array(known) if len(known) == len(told) else None


def lost_rows(entries: Sequence[Entry], out: Path) -> list[str]:
    """Return the labels of rows that the tables in a folder have with more seeds than these entries."""
    seeds = {entry.label: len(entry.seeds) for entry in entries}
    return [label for label, count in read_rows(out).items() if seeds.get(label, 0) < count]


def _cost(job: Job, out: Path) -> dict[str, Any]:
    """Return the known part of a run's training cost."""
    try:
        return Run(out / job.name).read_cost()
    except ValueError:
        return {"environment_steps": _results(job, out).timesteps}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
