"""``metarl compare`` and ``metarl sweep``: commands that may be started several times in one folder."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarl.experiments import compare, comparison, training
from metarl.experiments.arguments import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED
from metarl.experiments.configuration import parse_override
from metarl.experiments.reporting import write_report
from metarl.experiments.sharing.launching import Main, launch, parse_jobs
from metarl.experiments.streams import complain, say

_STOPPED = "stopped; the same command goes on where it stopped"


class _EndError(Exception):
    """The command ends with a sentence and an exit status."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@contextmanager
def _said() -> Iterator[None]:
    """Let wrong input, and a process that is to stop, end the command."""
    try:
        with training.sigterm_raises():
            yield
    except (ValueError, TypeError) as error:
        raise _EndError(" ".join(str(error).split()), BAD_INPUT) from error
    except KeyboardInterrupt as stop:
        status = TERMINATED if isinstance(stop, training.Terminated) else INTERRUPTED
        raise _EndError(_STOPPED, status) from stop


def _whole(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}; expected a whole number of at least 1")


def run_compare(options: argparse.Namespace, main: Main) -> int:
    """Train the runs of a comparison that are free, or submit jobs that do, and write the tables.

    Args:
        options: of the command line, of which ``words`` are all.
        main: the command, which jobs run.

    Returns:
        The exit status.
    """
    return _ended(_compare, options, main)


def run_sweep(options: argparse.Namespace, main: Main) -> int:
    """Train the trials of a sweep that are free, or submit jobs that do, and write the table; see ``run_compare``."""
    return _ended(_sweep, options, main)


def _ended(work: Callable[[argparse.Namespace, Main], int], options: argparse.Namespace, main: Main) -> int:
    try:
        return work(options, main)
    except _EndError as end:
        complain(str(end))
        return end.status


def _compare(options: argparse.Namespace, main: Main) -> int:
    with _said():
        _whole(options, "seeds", "parallel")
        jobs = None if options.submitit is None else parse_jobs(options.submitit)
        overrides = [parse_override(text) for text in options.overrides]
        rows = compare.parse_rows(options.learners)
        asked = (options.config, rows, options.seeds, options.out, overrides, options.vary)
        runs = compare.plan(*asked)
        kept = dict.fromkeys(run.row.label for run in runs if run.row not in rows)
        if kept:
            say(f"Rows of the tables in {options.out} that are kept: {', '.join(kept)}")
        if jobs is None:
            failed = compare.run_all(runs, options.out, options.parallel, waits=not options.no_wait)
        else:
            failed = launch(jobs, main, options.words, options.out / ".jobs")
        for sentence in failed:
            complain(sentence)
        with compare.tables_alone(options.out):
            _write_comparison(options.out, asked)
    return FAILED if failed else 0


def _write_comparison(out: Path, asked: tuple[Any, ...]) -> None:
    """Write the tables of the runs that are done."""
    try:
        # Again, since another comparison may have added rows to the tables in the meantime.
        runs = compare.plan(*asked)
        entries = compare.read_entries(runs, out)
        lost = compare.lost_rows(entries, out)
    except ValueError as error:
        raise _EndError(" ".join(str(error).split()), FAILED) from error
    if lost:
        words = f"the tables in {out} stay as they were, since they have seeds of {lost[0]!r} that failed now"
        raise _EndError(words, FAILED)
    if not entries:
        return
    say(comparison.write_tables(entries, out))
    comparison.draw(entries, out / "comparison.png")
    done = [out / run.name for run in runs if (out / run.name).is_dir()]
    try:
        write_report(done, out / "comparison.html", replace=True)
    except ValueError as error:
        words = f"the tables are written, but no report: {' '.join(str(error).split())}"
        raise _EndError(words, FAILED) from error
    say(f"Written to {out / 'comparison.md'}, comparison.csv, differences.csv, comparison.png and comparison.html")


def _sweep(options: argparse.Namespace, main: Main) -> int:
    with _said():
        _whole(options, "trials", "seeds")
        jobs = None if options.submitit is None else parse_jobs(options.submitit)
        if importlib.util.find_spec("optuna") is None:
            raise ValueError("'metarl sweep' needs the extra [sweep]: pip install 'metarl-suite[sweep]'")
        from metarl.experiments.sharing import sweep

        wanted = {"seeds": options.seeds, "trials": options.trials, "prunes": options.prune}
        planned = sweep.plan(options.config, options.overrides, options.vary, **wanted)
        study = sweep.open_study(planned, options.study)
        failed = []
        if jobs is None:
            sweep.run_trials(planned, study, waits=not options.no_wait)
        else:
            failed = launch(jobs, main, options.words, options.study / ".jobs")
        for sentence in failed:
            complain(sentence)
        text, found = sweep.write_table(planned, study)
    say(f"{text}\nWritten to {options.study / 'sweep.md'} and sweep.csv")
    return FAILED if failed or not found else 0
