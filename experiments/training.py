"""The implementation of ``metarl train`` and ``metarl evaluate``."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import profile

from metarl.checkpoints import read_checkpoint
from metarl.evaluation import Evaluation
from metarl.experiments import mending
from metarl.experiments.configuration import to_toml
from metarl.experiments.runs import Run
from metarl.files import naming
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner, load_learner
from metarl.sb3.loggers import run_logger, write_hparams
from metarl.settings import Settings, as_dict

STANDARD_STEPS = 3  # of adaptation, where ``metarl evaluate`` is not told how many


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise ``Terminated`` in the main thread, so that files and environments are closed."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class SaveLast(BaseCallback):
    """Writes after each iteration the checkpoint for ``--resume`` and the cost of training so far."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._before = run.read_cost()["seconds"]
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        with naming(self._run.last):
            self.model.save(self._run.last)
        self.write_cost(self.model)  # type: ignore[arg-type]
        return True

    def write_cost(self, learner: BaseLearner) -> None:
        """Write environment steps and seconds of training (with validation), including those before an interruption."""
        seconds = None
        if self._before is not None:
            seconds = round(self._before + time.perf_counter() - self._began, 3)
        self._run.write_cost({"environment_steps": learner.num_timesteps, "seconds": seconds})


@contextlib.contextmanager
def _failed_threads_quiet() -> Iterator[None]:
    """Suppress reports of ``OSError`` in threads: TensorBoard's thread raises its error in the main thread too."""

    def report(thread: threading.ExceptHookArgs) -> None:
        if not issubclass(thread.exc_type, OSError):
            previous(thread)

    previous, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = previous


class Profile(BaseCallback):
    """Writes ``profile.json``, a trace of one iteration that https://ui.perfetto.dev opens.

    It is the second iteration, since the first one warms up; the first if there is only one.
    """

    def __init__(self, folder: Path, iterations: int) -> None:
        super().__init__()
        self._path = folder / "profile.json"
        self._wait = min(iterations - 1, 1)
        self._profiler: profile | None = None

    def _on_rollout_start(self) -> None:
        if self._wait == 0:
            config = _ExperimentalConfig(profile_all_threads=True)
            self._profiler = profile(experimental_config=config)
            self._profiler.start()
        self._wait -= 1

    def _on_step(self) -> bool:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._path))
            self._profiler = None
        return True


@_failed_threads_quiet()
def start_run(settings: Settings, out: Path, name: str | None, standard: str) -> tuple[Run, BaseLearner]:
    """Return a new run's folder and learner, ready to train; if that fails, no folder is left.

    Raises:
        ValueError: see ``BaseLearner`` and ``Run.create``.
    """
    learner = find_learner(settings.learner).from_settings(settings)
    try:
        run = Run.create(out, name, standard, settings, learner.save)
        run.lock()
        try:
            learner.set_logger(run_logger(run.folder))
        except BaseException:
            run.discard()
            raise
    except BaseException:
        learner.close()
        raise
    return run, learner


@_failed_threads_quiet()
def resume_run(folder: Path, device: str | None) -> tuple[Run, BaseLearner]:
    """Return an interrupted run's folder and learner, in the state of its last checkpoint.

    Other files that do not agree with the checkpoint are repaired, see ``mending``.

    Raises:
        ValueError: the folder is not a run, the run is finished, or its checkpoint is damaged.
    """
    run = Run.open(folder)
    settings = run.settings()
    if not run.last.is_file():
        raise ValueError(f"the run {str(folder)!r} has no checkpoint to go on from; delete its folder and begin anew")
    run.lock()
    run.sweep()
    learner: BaseLearner = load_learner(run.last, device=device)
    try:
        if replace(learner.settings, device=settings.device) != settings:
            raise ValueError(
                f"{str(run.config)!r} was changed since the run began, or {str(run.last)!r} is of another run: their "
                "settings differ; undo the change, or begin a new run"
            )
        if mending.has_results(run, learner):
            mending.best_of(run, learner).close()
            raise ValueError(
                f"the run {str(folder)!r} is finished; train a new one with more learning.iterations, or look at it "
                f"with 'metarl evaluate {folder}'"
            )
        mending.mend_progress(run, learner)
        mending.mend_cost(run, learner)
        learner.set_logger(run_logger(run.folder, keep_rows=learner.iteration, purge_step=learner.num_timesteps + 1))
    except BaseException:
        learner.close()
        raise
    return run, learner


def what_is_kept(run: Run) -> str:
    """Return the place of a run's latest checkpoint, as part of a sentence."""
    try:
        iteration = read_checkpoint(run.last).facts["iteration"]
    except (ValueError, OSError):
        return f"the checkpoint {run.last} cannot be read now"
    return f"the checkpoint after iteration {iteration} is in {run.last}"


def how_to_go_on(run: Run) -> str:
    """Return the command that resumes a run, as part of a sentence."""
    return f"go on with: {program('metarl')} train --resume {shlex.quote(str(run.folder))}"


def train(settings: Settings, out: Path, name: str, *, progress_bar: bool = True) -> None:
    """Train and test the run ``name``; if it was begun before, it is resumed.

    Raises:
        ValueError: see ``start_run`` and ``resume_run``.
        RolloutError: an environment failed.
        FloatingPointError: numbers of the update are not finite.
    """
    begun = (out / name).exists()
    run, learner = resume_run(out / name, None) if begun else start_run(settings, out, name, name)
    try:
        finish_run(run, learner, progress_bar=progress_bar)
    finally:
        learner.close()


@_failed_threads_quiet()
def finish_run(run: Run, learner: BaseLearner, *, profiled: bool = False, progress_bar: bool = True) -> Evaluation:
    """Train to the end, choose the best parameters on validation tasks, and test them once.

    Args:
        run: the run's folder.
        learner: the run's learner.
        profiled: write a trace of one iteration into the folder.
        progress_bar: show a progress bar.
    """
    missing = learner.settings.learning.iterations - learner.iteration
    if learner.iteration == 0:
        text = "\n".join(f"    {line}" for line in to_toml(learner.settings).splitlines())
        learner.logger.record("configuration", text, exclude="csv")
    try:
        if missing > 0:
            last = SaveLast(run)
            callbacks = [last, *([Profile(run.folder, missing)] if profiled else [])]
            learner.learn(missing, callback=callbacks, reset_num_timesteps=False, progress_bar=progress_bar)
            last.write_cost(learner)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            learner.logger.close()
        raise
    with naming(run.folder):
        learner.logger.close()
    best = mending.best_of(run, learner)
    try:
        evaluation = best.evaluate(split="test")
    finally:
        best.close()
    tested = {f"test/return_step_{step}": evaluation.mean(step) for step in range(len(evaluation.returns))}
    write_hparams(run.folder, as_dict(learner.settings), tested, learner.num_timesteps)
    run.write_results(evaluation.to_json())
    return evaluation


def evaluate_run(
    folder: Path, *, tasks: int, episodes: int, steps: int | None, seed: int | None, device: str | None
) -> tuple[Evaluation, Path]:
    """Evaluate a finished run's best parameters on test tasks again; return the result and its file.

    Raises:
        ValueError: the folder is not a run, the run is not finished, or a count is not positive.
    """
    run = Run.open(folder)
    if not run.best.exists():
        raise ValueError(f"the run {str(folder)!r} is not finished; go on with 'metarl train --resume {folder}'")
    learner = mending.load_best(run, run.settings(), device)
    if steps is None and not learner.remembers:  # else a trial as in training
        steps = STANDARD_STEPS
    try:
        evaluation = learner.evaluate(split="test", n_tasks=tasks, episodes=episodes, steps=steps, seed=seed)
    finally:
        learner.close()
    path = run.next_evaluation(evaluation.to_json())
    evaluation.write_csv(path.with_suffix(".csv"))
    return evaluation, path


def program(name: str) -> str:
    """Return the command for a program of this environment: its name if it is on the path, else its relative path."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else shlex.quote(os.path.relpath(beside))


def closing_words(run: Run, evaluation: Evaluation) -> str:
    """Return the last output of ``metarl train``: the table, the run's folder, and how to start TensorBoard."""
    look = f"{program('tensorboard')} --logdir {shlex.quote(str(run.folder.parent))}"
    return (
        f"{evaluation.table()}\n\nThe run is in {run.folder} (parameters after iteration {evaluation.iteration}, the "
        f"best on validation tasks).\nLook at it: {look}"
    )
