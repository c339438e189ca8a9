"""Repair of a run's files that are damaged, missing or of another run; the checkpoint decides what is right.

Nothing is deleted: such a file is renamed, and a sentence on standard error says so.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.evaluation import points
from metarl.experiments.runs import Run, same_run, set_aside
from metarl.experiments.streams import complain
from metarl.files import naming
from metarl.learner import BaseLearner
from metarl.learners.registry import load_learner
from metarl.sb3.progress_file import Progress, read_progress
from metarl.settings import Settings


def mend_config(run: Run, learner: BaseLearner) -> Settings:
    """Return a run's settings; a ``config.toml`` that cannot be read is made again from the checkpoint."""
    try:
        return run.settings()
    except ValueError as error:
        state = "is missing" if not os.path.lexists(run.config) else f"cannot be used ({error})"
        _make_again(run.config, state, f"made again from {str(run.last)!r}", run.write_config, learner.given_settings)
    return learner.given_settings


def mend_machine(run: Run) -> None:
    """Write ``machine.json`` again if it cannot be read."""
    try:
        run.read_machine()
    except ValueError as error:
        _make_again(run.machine, str(error), "made again, of this machine and its packages", run.write_machine)


def _make_again(path: Path, state: str, what: str, make: Callable[..., None], *arguments: Any) -> None:
    kept = f"kept as {set_aside(path).name!r} and " if os.path.lexists(path) else ""
    make(*arguments)
    complain(f"{str(path)!r} {state}; it is {kept}{what}")


def has_results(run: Run, learner: BaseLearner) -> bool:
    """Return whether the run was tested; a ``results.json`` of another run is set aside."""
    if not os.path.lexists(run.results):
        return False
    try:
        found = run.read_results(learner.given_settings)
        if learner.trains and learner.iteration < learner.given_settings.learning.iterations:
            raise ValueError(f"is of another run: this one is at iteration {learner.iteration} only")
        own = learner.state if learner.best is None else learner.best.state
        if found.iteration != own.iteration or found.timesteps not in (learner.num_timesteps, None):
            raise ValueError(f"is of another run: it is of iteration {found.iteration}")
    except ValueError as error:
        kept = set_aside(run.results).name
        complain(
            f"{str(run.results)!r} {error}; it is kept as {kept!r}, and the run is tested when its training is done"
        )
        return False
    return True


def load_best(run: Run, settings: Settings, device: str | None) -> BaseLearner:
    """Return the learner with a run's best parameters so far; with the latest ones before the first validation.

    Raises:
        ValueError: the file is missing, damaged or of another run.
    """
    path = run.best if os.path.lexists(run.best) else run.last
    try:
        learner: BaseLearner = load_learner(path, device=device, allow=True)
    except ValueError as error:
        raise ValueError(f"{error}; 'metarl train --resume {run.folder}' makes it again if it can") from error
    if not same_run(learner.given_settings, settings):
        learner.close()
        raise ValueError(f"{str(path)!r} is of another run, or {str(run.config)!r} was changed: their settings differ")
    if path == run.last and learner.best is not None:
        learner.state = replace(learner.best.state, num_timesteps=learner.num_timesteps)
    return learner


def mend_best(run: Run, learner: BaseLearner) -> None:
    """Write ``best.zip`` again from the checkpoint if it is not right.

    Args:
        run: the run's folder.
        learner: of the checkpoint.
    """
    state = _fault_of_best(run, learner)
    if learner.best is None:
        if state is not None and os.path.lexists(run.best):
            kept = set_aside(run.best).name
            complain(f"{str(run.best)!r} {state}; it is kept as {kept!r}, since this run had no validation yet")
    # It is written just after the checkpoint, so it may be missing or of the validation before after a kill.
    elif state in ("is missing", "is old") and learner.best.state.iteration == learner.iteration:
        save_best(run, learner)
    elif state is not None:
        _make_again(run.best, state, f"made again from {str(run.last)!r}", save_best, run, learner)


def save_best(run: Run, learner: BaseLearner) -> None:
    """Write ``best.zip``, the parameters of the best validation so far; an existing file is replaced."""
    with naming(run.best):
        learner.save_best(run.best)


def _fault_of_best(run: Run, learner: BaseLearner) -> str | None:
    """Return what is wrong with ``best.zip``, or None."""
    if not os.path.lexists(run.best):
        return "is missing"
    try:
        best: BaseLearner = load_learner(run.best, device=learner.given_settings.device, allow=True)
    except ValueError:
        return "is damaged"
    best.close()
    if not same_run(best.given_settings, learner.given_settings) or learner.best is None:
        return "is of another run"
    own = learner.best.state
    if best.iteration < own.iteration:
        return "is old"
    same = best.iteration == own.iteration and best.num_timesteps <= learner.num_timesteps
    return None if same and _equal(best.state.tensors(), own.tensors()) else "is of another run"


def _equal(one: Mapping[str, Mapping[str, Tensor]], other: Mapping[str, Mapping[str, Tensor]]) -> bool:
    return all(torch.equal(value, other[part][name]) for part in one for name, value in one[part].items())


def mend_cost(run: Run, learner: BaseLearner) -> None:
    """Write ``cost.json`` from the checkpoint if it is not of this run; the time of training is then unknown.

    Args:
        run: the run's folder, with a ``progress.csv`` that was checked.
        learner: of the checkpoint.
    """
    if learner.iteration == 0 and not os.path.lexists(run.cost):
        run.write_cost({"environment_steps": 0, "seconds": 0.0})
        return
    try:
        found = run.read_cost()
        steps = found["environment_steps"]
        if steps == learner.num_timesteps:
            return
        # The file is written after the checkpoint, so it may be one iteration behind if the process was killed.
        before = _steps_after(read_progress(run.progress), learner.iteration - 1)
        if steps < learner.num_timesteps and before in (steps, None):
            # Now, since no iteration may be left that would write it.
            run.write_cost({**found, "environment_steps": learner.num_timesteps})
            return
        raise ValueError(f"is of another run: it counts {steps} environment steps, not {learner.num_timesteps}")
    except ValueError as error:
        kept = f" it is kept as {set_aside(run.cost).name!r}, and" if os.path.lexists(run.cost) else ""
        run.write_cost({"environment_steps": learner.num_timesteps, "seconds": None})
        complain(
            f"{str(run.cost)!r} {error};{kept} the environment steps are taken from the checkpoint, but the seconds of "
            "training are not known any more"
        )


def mend_progress(run: Run, learner: BaseLearner) -> None:
    """Keep only the rows of ``progress.csv`` that are of this run, up to the checkpoint; report missing ones."""
    found = read_progress(run.progress)
    own = found.until(learner.iteration)
    if not _fits(own, learner):
        own = Progress([], {}, False)
    missing = [number for number in range(1, learner.iteration + 1) if number not in own.rows]
    exists = os.path.lexists(run.progress)
    # What follows the checkpoint's row is computed again, whatever became of it; all else is kept.
    if not missing and (not exists or _is_table(run.progress)):
        return
    state = "has gaps" if own.whole else "is missing"
    if exists and not own.whole:
        kept = set_aside(run.progress)
        if own.rows:
            shutil.copyfile(kept, run.progress)
        state = f"is damaged or of another run and kept as {kept.name!r}"
    if not missing:
        complain(f"{str(run.progress)!r} {state}; no row is lost")
        return
    complain(
        f"{str(run.progress)!r} {state}; the rows of {_ranges(missing)} are not in it, but TensorBoard may have them"
    )


def _is_table(path: Path) -> bool:
    """Return whether a file is empty or begins with the columns of a ``progress.csv``, such as ``validation/gain``."""
    try:
        header = path.read_text(encoding="utf-8-sig").partition("\n")[0]
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return False
    return not header or all(re.fullmatch(r"\w+/\w+", column) for column in header.split(","))


def _ranges(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if first == last:
        return f"iteration {first}"
    return f"{len(numbers)} iterations, {first} to {last}"


def _fits(progress: Progress, learner: BaseLearner) -> bool:
    """Return whether rows agree with a learner's environment steps and with the score of its best parameters."""
    if _steps_after(progress, learner.iteration) not in (learner.num_timesteps, None):
        return False
    if learner.best is None or learner.best.state.iteration not in progress.rows:
        return True
    row = progress.row(learner.best.state.iteration)
    steps = range(0 if learner.remembers else 1, points(learner.given_settings, remembers=learner.remembers))
    best = learner.given_settings.evaluation.best
    means = [float(row.get(f"validation/{best}_step_{step}") or math.nan) for step in steps]
    return math.isclose(sum(means) / len(means), learner.best.score, rel_tol=1e-6, abs_tol=1e-9)


def _steps_after(progress: Progress, iteration: int) -> float | None:
    """Return the number of environment steps up to an iteration's end; None if there is no row for it."""
    if iteration not in progress.rows:
        return 0 if iteration == 0 else None
    return float(progress.row(iteration).get("rollout/timesteps") or math.nan)
