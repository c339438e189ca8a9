"""Repair of a run's files that are damaged, missing or of another run; the checkpoint decides what is right.

Nothing is deleted: such a file is renamed, and a sentence on standard error says so.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

from metarl.evaluation import points
from metarl.experiments.runs import Run, set_aside
from metarl.experiments.streams import complain
from metarl.files import naming
from metarl.learner import BaseLearner
from metarl.learners.registry import load_learner
from metarl.sb3.loggers import Progress, read_progress
from metarl.settings import Settings


def has_results(run: Run, learner: BaseLearner) -> bool:
    """Return whether the run was tested; a ``results.json`` of another run is set aside."""
    if not run.results.exists():
        return False
    try:
        run.read_results(learner.settings)
        if learner.trains and learner.iteration < learner.settings.learning.iterations:
            raise ValueError(f"is of another run: this one is at iteration {learner.iteration} only")
    except ValueError as error:
        kept = set_aside(run.results).name
        complain(
            f"{str(run.results)!r} {error}; it is kept as {kept!r}, and the run is tested when its training is done"
        )
        return False
    return True


def load_best(run: Run, settings: Settings, device: str | None) -> BaseLearner:
    """Return the learner with a run's best parameters.

    Raises:
        ValueError: the file is missing, damaged or of another run.
    """
    learner: BaseLearner = load_learner(run.best, device=device)
    if replace(learner.settings, device=settings.device) != settings:
        learner.close()
        raise ValueError(
            f"{str(run.best)!r} is of another run, or {str(run.config)!r} was changed: their settings differ"
        )
    return learner


def best_of(run: Run, learner: BaseLearner) -> BaseLearner:
    """Return the learner with the best parameters; if ``best.zip`` is not right, write it from the checkpoint.

    Args:
        run: the run's folder.
        learner: of the run, trained to the end.
    """
    if run.best.exists():
        try:
            best = load_best(run, learner.settings, learner.settings.device)
            if learner.best is not None and best.iteration != learner.best.state.iteration:
                best.close()
                raise ValueError(f"{str(run.best)!r} is of another run: it is of iteration {best.iteration}")
        except ValueError:
            kept = set_aside(run.best).name
            complain(
                f"{str(run.best)!r} is damaged or of another run; it is kept as {kept!r} and made again from "
                f"{str(run.last)!r}"
            )
        else:
            return best
    with naming(run.best):
        learner.save_best(run.best)
    return load_best(run, learner.settings, learner.settings.device)


def mend_cost(run: Run, learner: BaseLearner) -> None:
    """Write ``cost.json`` from the checkpoint if it is not of this run; the time of training is then unknown.

    Args:
        run: the run's folder, with a ``progress.csv`` that was checked.
        learner: of the checkpoint.
    """
    if learner.iteration == 0 and not run.cost.exists():
        run.write_cost({"environment_steps": 0, "seconds": 0.0})
        return
    try:
        steps = run.read_cost()["environment_steps"]
        # The file is written after the checkpoint, so it may be one iteration behind if the process was killed.
        before = _steps_after(read_progress(run.progress), learner.iteration - 1)
        if steps == learner.num_timesteps or (steps < learner.num_timesteps and before in (steps, None)):
            return
        raise ValueError(f"is of another run: it counts {steps} environment steps, not {learner.num_timesteps}")
    except ValueError as error:
        kept = f" it is kept as {set_aside(run.cost).name!r}, and" if run.cost.exists() else ""
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
    if not missing:
        return
    state = "has gaps" if own.whole else "is missing"
    if run.progress.exists() and not own.whole:
        kept = set_aside(run.progress)
        if own.rows:
            shutil.copyfile(kept, run.progress)
        state = f"is damaged or of another run and kept as {kept.name!r}"
    complain(
        f"{str(run.progress)!r} {state}; the rows of {_ranges(missing)} are not in it, but TensorBoard may have them"
    )


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
    steps = range(0 if learner.remembers else 1, points(learner.settings, remembers=learner.remembers))
    means = [float(row.get(f"validation/return_step_{step}") or math.nan) for step in steps]
    return math.isclose(sum(means) / len(means), learner.best.score, rel_tol=1e-6, abs_tol=1e-9)


def _steps_after(progress: Progress, iteration: int) -> float | None:
    """Return the number of environment steps up to an iteration's end; None if there is no row for it."""
    if iteration not in progress.rows:
        return 0 if iteration == 0 else None
    return float(progress.row(iteration).get("rollout/timesteps") or math.nan)
