"""Jobs of a cluster (submitit) that each run the same command in the same folder, and so share its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.experiments.configuration import parse_override
from metarl.experiments.streams import say

Main = Callable[[Sequence[str]], int]
_DAY = 24 * 60
USAGE = "expected the number of jobs and settings of submitit, as in '4 slurm_partition=gpu timeout_min=600'"


@dataclass(frozen=True)
class Jobs:
    """How many jobs are submitted, on what, and submitit's parameters."""

    count: int
    executor: str | None
    parameters: dict[str, Any]


def parse_jobs(text: str) -> Jobs:
    """Return what ``--submitit`` says.

    >>> parse_jobs("4 executor=slurm slurm_partition=gpu timeout_min=600")
    Jobs(count=4, executor='slurm', parameters={'slurm_partition': 'gpu', 'timeout_min': 600})

    Raises:
        ValueError: it begins with no number of jobs, or goes on with something other than settings.
    """
    count, *settings = text.split() or [""]
    if not count.isdecimal() or int(count) < 1:
        raise ValueError(f"--submitit is {text!r}; {USAGE}")
    try:
        found = dict(parse_override(setting) for setting in settings)
    except ValueError as error:
        raise ValueError(f"--submitit is {text!r}: {error}") from error
    return Jobs(int(count), found.pop("executor", None), found)


class SameCommand:
    """A job: the command with its arguments; if it is stopped to be queued again, it goes on where it stopped."""

    def __init__(self, main: Main, arguments: Sequence[str]) -> None:
        self.main, self.arguments = main, list(arguments)

    def __call__(self) -> int:
        """Run the command; return its exit status."""
        return self.main(self.arguments)

    def checkpoint(self) -> Any:
        """Return what is queued when the job's time is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def in_jobs(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the jobs: those of this command, which do not submit, and do not wait for each other."""
    found, skips = [], False
    for word in arguments:
        if not skips and word != "--submitit" and not word.startswith("--submitit="):
            found.append(word)
        skips = word == "--submitit"
    return [*found, *([] if "--no-wait" in found else ["--no-wait"])]


def launch(jobs: Jobs, main: Main, arguments: Sequence[str], folder: Path) -> list[str]:
    """Submit jobs and wait until they have ended; return a sentence for each that failed. Ctrl-C cancels them.

    Args:
        jobs: how many, and where.
        main: the command.
        arguments: of this command.
        folder: for the logs of the jobs.

    Raises:
        ValueError: submitit is missing, there is no such executor, or it or the cluster refuses the jobs.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError("--submitit needs the extra [cluster]: pip install 'metarl-suite[cluster]'") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=jobs.executor)
        executor.update_parameters(**{"timeout_min": _DAY, "name": "metarl", **jobs.parameters})
        with executor.batch():
            submitted = [executor.submit(SameCommand(main, in_jobs(arguments))) for _ in range(jobs.count)]
    except (ValueError, NameError, AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"--submitit: {' '.join(str(error).split())}") from error
    names = ", ".join(job.job_id for job in submitted)
    say(f"Submitted to {executor.cluster}: {names}; their output is in {folder}")
    try:
        return [sentence for job in submitted if (sentence := _failure(job))]
    except BaseException:
        for job in submitted:
            job.cancel(check=False)
        raise


def _failure(job: Any) -> str:
    """Wait for a job; return how it failed, or nothing."""
    error = job.exception()
    if error is None:
        status = job.result()
        return f"the job {job.job_id} ended with status {status}; see {job.paths.stderr}" if status else ""
    last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return f"the job {job.job_id} failed: {last}; see {job.paths.stderr}"
