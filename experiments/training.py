"""The implementation of ``metarl train`` and ``metarl evaluate``."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from metarl.checkpoints import read_checkpoint
from metarl.experiments import mending
from metarl.experiments.configuration import to_toml
from metarl.experiments.runs import CHANGEABLE, Run, same_run, set_aside
from metarl.experiments.several.facts import refuse_ranks
from metarl.experiments.starting import learner_from
from metarl.experiments.streams import complain
from metarl.files import naming
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner, load_learner
from metarl.protocols.evaluate import find_protocol
from metarl.results import Evaluation
from metarl.results.selection import means_by_tag
from metarl.sb3.loggers import run_logger, write_hparams
from metarl.settings import Settings, as_dict
from metarl.state import Best


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; a kind of Ctrl-C, so that nobody takes it for a failure of what was interrupted."""


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
    """Writes the checkpoints of a run: after each iteration the one for ``--resume``, and the best one if it is new.

    The cost of training so far is written too.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self._best: int | None = None
        self._before = run.read_cost()["seconds"]
        self._began = time.perf_counter()

    def _init_callback(self) -> None:
        best: Best | None = self.model.best  # type: ignore[attr-defined]
        self._best = None if best is None else best.state.iteration

    def _on_step(self) -> bool:
        self.save(self.model)  # type: ignore[arg-type]
        return True

    def save(self, learner: BaseLearner) -> None:
        """Write the files."""
        if not self._run.last.parent.is_dir():
            # Writing would make it again, without all that was in it.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._run.last.parent))
        with naming(self._run.last):
            learner.save(self._run.last)
        best = None if learner.best is None else learner.best.state.iteration
        if best != self._best:
            mending.save_best(self._run, learner)
            self._best = best
        self.write_cost(learner)

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


@_failed_threads_quiet()
def start_run(
    settings: Settings, out: Path, name: str | None, standard: str, source: Path | None = None, ranks: int = 1
) -> tuple[Run, BaseLearner]:
    """Return a new run's folder and learner, ready to train; if that fails, no folder is left.

    Args:
        settings: of the run.
        out: the folder of all runs.
        name: of the run's folder; None for ``standard``, numbered.
        standard: the default name.
        source: what to start from (see ``learner_from``); None for random parameters.
        ranks: how many processes train it.

    Raises:
        ValueError: see ``BaseLearner``, ``learner_from``, ``refuse_ranks`` and ``Run.create``.
    """
    origin = None
    if source is None:
        learner: BaseLearner = find_learner(settings.learner).from_settings(settings)
    else:
        learner, origin = learner_from(settings, source)
    try:
        find_protocol(settings.evaluation.protocol).refuse(learner, steps=None)
        refuse_ranks(learner, ranks)
        learner.check_family()
        run = Run.create(out, name, standard, learner.given_settings, learner.save, origin)
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
def resume_run(folder: Path, overrides: Sequence[tuple[str, Any]] = (), ranks: int = 1) -> tuple[Run, BaseLearner]:
    """Return a run's folder and learner, in the state of its last checkpoint.

    Other files that do not agree with the checkpoint are repaired, see ``mending``. If settings change, what they were
    is kept, see ``Run.keep_earlier``.

    Args:
        folder: of the run.
        overrides: settings to change, of ``CHANGEABLE``; a finished run needs more ``learning.iterations``.
        ranks: how many processes go on with it.

    Raises:
        ValueError: the folder is not a run, its checkpoint is damaged, the run is finished and gets no more
            iterations, a setting cannot be changed or has a wrong value, or there are too many processes.
    """
    fixed = [key for key, _ in overrides if key not in CHANGEABLE]
    if fixed:
        raise ValueError(
            f"{', '.join(fixed)} cannot change in a run that was begun, only {', '.join(CHANGEABLE)} can; begin a new "
            f"run from its parameters: metarl train CONFIGURATION --from {folder} {fixed[0]}=..."
        )
    run = Run.open(folder)
    if not run.last.is_file():
        raise ValueError(
            f"the run {str(folder)!r} has no checkpoint to go on from; begin a new run with its configuration: "
            f"metarl train {run.config}"
        )
    run.lock()
    run.sweep()
    learner: BaseLearner = load_learner(run.last, device=dict(overrides).get("device"), allow=True)
    try:
        refuse_ranks(learner, ranks)
        settings = mending.mend_config(run, learner)
        before = replace(learner.given_settings, device=read_checkpoint(run.last).facts["settings"]["device"])
        # Where a process was killed while it changed settings, the change is made only in the configuration.
        changing = same_run(settings, before) and run.kept_before(before, learner.iteration)
        if not changing and replace(settings, device=before.device) != before:
            raise ValueError(
                f"{str(run.config)!r} was changed since the run began, or {str(run.last)!r} is of another run: their "
                "settings differ; undo the change (or rename the file: it is then made again from the checkpoint) and "
                "give settings that may change beside --resume, as learning.iterations=200, or begin a new run"
            )
        wanted = run.settings(overrides)
        finished = mending.has_results(run, learner)
        mending.mend_best(run, learner)
        mending.mend_progress(run, learner)
        mending.mend_cost(run, learner)
        mending.mend_machine(run)
        _refuse_too_few(run, learner, before, wanted, finished=finished)
        if wanted != before:
            run.keep_earlier(before, learner.iteration)
            run.write_config(wanted)
            learner.given_settings = wanted
            with naming(run.last):
                learner.save(run.last)
            learner.close()
            learner = load_learner(run.last, allow=True)
        learner.set_logger(run_logger(run.folder, keep_rows=learner.iteration, purge_step=learner.num_timesteps + 1))
    except BaseException:
        learner.close()
        raise
    return run, learner


def _refuse_too_few(run: Run, learner: BaseLearner, before: Settings, wanted: Settings, *, finished: bool) -> None:
    """Raise an error if there is nothing to go on with: the run is finished, or is beyond the wanted iterations."""
    more = learner.trains and wanted.learning.iterations > learner.iteration
    if finished and not more:
        how = f"metarl train --resume {run.folder} learning.iterations={2 * max(learner.iteration, 1)}"
        go_on = f"go on with more iterations, as in '{how}', or " if learner.trains else ""
        raise ValueError(
            f"the run {str(run.folder)!r} is finished after iteration {learner.iteration}; {go_on}look at it with "
            f"'metarl evaluate {run.folder}'"
        )
    changed = wanted.learning.iterations != before.learning.iterations
    if learner.trains and changed and not more:
        raise ValueError(
            f"learning.iterations is {wanted.learning.iterations}, but the run {str(run.folder)!r} is at iteration "
            f"{learner.iteration} already; expected more"
        )


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


def was_begun(out: Path, name: str | None) -> bool:
    """Return whether there is a run of this name that can be resumed."""
    return name is not None and Run(out / name).last.is_file()


def train(
    settings: Settings, out: Path, name: str, *, progress_bar: bool = True, callbacks: Sequence[BaseCallback] = ()
) -> None:
    """Train and test the run ``name``; if it was begun before, it is resumed.

    A folder without a checkpoint, which older versions may have left, holds no run that was begun: it is renamed.

    Raises:
        ValueError: see ``start_run`` and ``resume_run``.
        RolloutError: an environment failed.
        FloatingPointError: numbers of the update are not finite.
    """
    folder = out / name
    begun = was_begun(out, name)
    if os.path.lexists(folder) and not begun:
        kept = set_aside(folder)
        complain(f"{str(folder)!r} has no checkpoint; it is kept as {str(kept)!r}, and the run begins anew")
    run, learner = resume_run(folder) if begun else start_run(settings, out, name, name)
    try:
        finish_run(run, learner, progress_bar=progress_bar, callbacks=callbacks)
    finally:
        learner.close()
        run.unlock()


@_failed_threads_quiet()
def finish_run(
    run: Run, learner: BaseLearner, *, progress_bar: bool = True, callbacks: Sequence[BaseCallback] = ()
) -> Evaluation:
    """Train to the end, choose the best parameters on validation tasks, and test them once.

    Args:
        run: the run's folder.
        learner: the run's learner.
        progress_bar: show a progress bar.
        callbacks: called after each iteration, before it is saved.
    """
    missing = learner.given_settings.learning.iterations - learner.iteration
    if learner.iteration == 0:
        text = "\n".join(f"    {line}" for line in to_toml(learner.given_settings).splitlines())
        learner.logger.record("configuration", text, exclude="csv")
    try:
        if missing > 0:
            last = SaveLast(run)
            called = [*callbacks, last]
            learner.learn(iterations=missing, callback=called, reset_num_timesteps=False, progress_bar=progress_bar)
            # A learner that does not train is validated without a step, whose callback would have saved it.
            last.write_cost(learner) if learner.trains else last.save(learner)
    except BaseException:
        for output in learner.logger.output_formats:
            with contextlib.suppress(OSError):  # the first error is the one to report
                output.close()
        raise
    with naming(run.folder):
        learner.logger.close()
    # Again, since it holds the environment steps of the whole training.
    mending.save_best(run, learner)
    best = mending.load_best(run, learner.given_settings, learner.given_settings.device)
    try:
        evaluation = best.evaluate(split="test")
    finally:
        best.close()
    write_hparams(run.folder, as_dict(learner.given_settings), means_by_tag(evaluation, "test"), learner.num_timesteps)
    run.write_results(evaluation.to_json(), learner.given_settings)
    return evaluation


def refuse_different_runs(folders: Sequence[Path]) -> None:
    """Refuse runs whose results could not be put together, before any of them is evaluated.

    Raises:
        ValueError: one is no run, or they differ in family or learner, or two have the same seed.
    """
    settings = [Run.open(folder).settings() for folder in folders]
    for folder, other in zip(folders, settings, strict=True):
        for name in ("family", "learner"):
            if getattr(other, name) != getattr(settings[0], name):
                raise ValueError(
                    f"the {name} of {str(folder)!r} is {getattr(other, name)!r} and that of {str(folders[0])!r} is "
                    f"{getattr(settings[0], name)!r}; only runs that differ by their seeds can be put together"
                )
    seeds = [other.seed for other in settings]
    again = [str(folder) for folder, seed in zip(folders, seeds, strict=True) if seeds.count(seed) > 1]
    if again:
        raise ValueError(f"the runs {' and '.join(map(repr, again))} have the same seed; name each seed once")


def evaluate_run(
    folder: Path,
    *,
    tasks: int | None,
    episodes: int | None,
    steps: int | None,
    seed: int | None,
    device: str | None,
    protocol: str | None = None,
) -> tuple[Evaluation, Path, str]:
    """Evaluate a run's best parameters so far on test tasks; return the result, its file and ``standing``.

    Args:
        folder: the run's.
        tasks: how many test tasks, as ``episodes``, ``steps`` and ``seed`` the run's own setting by default.
        episodes: for each task and step.
        steps: adaptation steps.
        seed: of tasks and episodes.
        device: where updates run.
        protocol: of the evaluation, the run's own setting by default.

    Raises:
        ValueError: the folder is not a run, the protocol does not fit its learner or family, its checkpoint is damaged,
            or a count is not positive.
    """
    run = Run.open(folder)
    learner = mending.load_best(run, run.settings(), device)
    try:
        run.prepare_evaluations()
        evaluation = learner.evaluate(
            split="test", n_tasks=tasks, episodes=episodes, steps=steps, seed=seed, protocol=protocol
        )
        words = standing(run, learner)
    finally:
        learner.close()
    path = run.next_evaluation(evaluation.to_json(), learner.given_settings)
    evaluation.write_csv(path.with_suffix(".csv"))
    return evaluation, path, words


def standing(run: Run, learner: BaseLearner) -> str:
    """Return what is to be said of a run that is not finished and of its parameters; nothing of a finished one.

    Args:
        run: the run's folder.
        learner: with the parameters that are used.
    """
    if run.results.is_file():
        return ""
    chosen = "the best on validation tasks so far" if learner.best is not None else "not validated yet"
    try:
        at = f" (at iteration {read_checkpoint(run.last).facts['iteration']} of {run.settings().learning.iterations})"
    except ValueError:
        at = ""
    return (
        f"\nThe run is unfinished{at}: the parameters are those after iteration {learner.iteration}, {chosen}.\n"
        f"G{how_to_go_on(run)[1:]}"
    )


def program(name: str) -> str:
    """Return the command for a program of this environment: its name if it is on the path, else its relative path."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.exists() else shlex.quote(os.path.relpath(beside))


def opening_words(run: Run, learner: BaseLearner) -> str:
    """Return the first output of ``metarl train``: the run's folder, and how to look at it."""
    total = learner.given_settings.learning.iterations
    done = f"goes on after iteration {learner.iteration} of {total} and " if learner.iteration else ""
    return f"The run {done}is in {run.folder}. Look at it: {_look(run)}"


def closing_words(run: Run, evaluation: Evaluation) -> str:
    """Return the last output of ``metarl train``: the table, the run's folder, and how to start TensorBoard."""
    return (
        f"{evaluation.table()}\n\nThe run is in {run.folder} (parameters after iteration {evaluation.iteration}, the "
        f"best on validation tasks).\nLook at it: {_look(run)}"
    )


def _look(run: Run) -> str:
    return f"{program('tensorboard')} --logdir {shlex.quote(str(run.folder.parent))}"
