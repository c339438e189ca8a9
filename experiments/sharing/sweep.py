"""``metarl sweep``: search settings with Optuna, in a study that several processes share."""

from __future__ import annotations

import csv
import math
import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.callbacks import BaseCallback

from metarl.checkpoints import read_checkpoint
from metarl.envs import RolloutError
from metarl.experiments import training
from metarl.experiments.configuration import read_configuration
from metarl.experiments.runs import Run
from metarl.experiments.sharing.claims import DONE, FAILED, LEFT, POLL_SECONDS, Claim
from metarl.experiments.sharing.space import Searched, split
from metarl.experiments.sharing.still_ours import LostError, StillOurs
from metarl.experiments.sharing.study import (
    COMPLETE,
    FAIL,
    PRUNED,
    RUNNING,
    WAITING,
    Study,
    failure_of,
    run_of,
    values_of,
)
from metarl.experiments.streams import say
from metarl.files import in_words, replacing
from metarl.learners.registry import find_learner
from metarl.settings import Settings, as_dict

if TYPE_CHECKING:  # an extra
    from optuna.trial import FrozenTrial, Trial

_STATES = {COMPLETE: "complete", PRUNED: "pruned", RUNNING: "running", WAITING: "waiting"}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is searched, and how.

    Attributes:
        config: a shipped configuration, a TOML file or an environment.
        given: settings of all trials.
        vary: what varies in an environment, as for ``read_configuration``.
        space: the settings that are searched.
        seeds: of each trial, 1, 2, ...; its value is the mean over them.
        trials: how many.
        prunes: whether trials are stopped whose validation is worse than the median of the others.
    """

    config: str
    given: tuple[tuple[str, Any], ...]
    vary: tuple[str, ...]
    space: dict[str, Searched]
    seeds: int
    trials: int
    prunes: bool

    def settings(self, values: dict[str, Any], seed: int) -> Settings:
        """Return the settings of a run."""
        overrides = [*self.given, *values.items(), ("seed", seed)]
        return read_configuration(self.config, overrides, self.vary)[1]

    def about(self) -> dict[str, Any]:
        """Return what all processes of a sweep have in common."""
        settings = as_dict(self.settings(self._at(0), 1))
        space = {key: searched.as_plain() for key, searched in self.space.items()}
        return {"settings": settings, "space": space, "seeds": self.seeds, "prunes": self.prunes}

    def _at(self, end: int) -> dict[str, Any]:
        return {key: searched.ends[end] for key, searched in self.space.items()}

    def as_whole(self, key: str, searched: Searched) -> Searched:
        """Return a range as one of whole numbers if the setting takes no others between its ends."""
        if isinstance(searched.low, int) and isinstance(searched.high, int):
            try:
                self.settings(self._at(0) | {key: searched.low + 0.4142 * (searched.high - searched.low)}, 1)
            except ValueError:
                return replace(searched, integer=True)
        return searched

    def check(self) -> None:
        """Refuse values that are no settings, before anything is trained.

        Raises:
            ValueError: one of them is wrong, or does not fit the learner or the family.
        """
        for key, searched in self.space.items():
            for value in searched.ends:
                self.settings(self._at(0) | {key: value}, 1)
        settings = self.settings(self._at(0), 1)
        find_learner(settings.learner).from_settings(settings).close()


def plan(config: str, texts: Sequence[str], vary: Sequence[str], *, seeds: int, trials: int, prunes: bool) -> Sweep:
    """Return the sweep that a command line says.

    Args:
        config: a shipped configuration, a TOML file or an environment.
        texts: settings, and ranges and choices of those that are searched (see ``space.split``).
        vary: what varies in an environment.
        seeds: of each trial.
        trials: how many.
        prunes: whether trials that are worse than the median are stopped.

    Raises:
        ValueError: nothing is searched, or something is wrong with a setting.
    """
    given, space = split(texts)
    if not space:
        raise ValueError(
            "no setting is searched; give ranges or choices, as in 'metarl sweep navigation "
            "inner.step_size=0.01..0.5:log policy.activation=tanh,relu'"
        )
    twice = sorted({key for key, _ in given} & set(space))
    if twice or "seed" in dict(given) or "seed" in space:
        of_twice = f"{twice[0]} is given and searched; leave one out" if twice else ""
        raise ValueError(of_twice or "seed is set by --seeds; leave it out of the settings")
    found = Sweep(
        config=config, given=tuple(given), vary=tuple(vary), space=space, seeds=seeds, trials=trials, prunes=prunes
    )
    found.check()
    return replace(found, space={key: found.as_whole(key, searched) for key, searched in space.items()})


class _PrunedError(Exception):
    """A trial is worse than the median of the others."""


class _Reports(BaseCallback):
    """Reports the best validation so far to the study, which may end the trial."""

    def __init__(self, study: Study, trial: Trial, *, prunes: bool) -> None:
        super().__init__()
        self._study, self._trial, self._prunes = study, trial, prunes

    def _on_step(self) -> bool:
        learner: Any = self.model
        if learner.best is not None and learner.iteration % learner.settings.evaluation.every == 0:
            is_worse = self._study.report(self._trial, learner.best.score, learner.iteration)
            if self._prunes and is_worse:
                raise _PrunedError
        return True


def open_study(sweep: Sweep, folder: Path) -> Study:
    """Return the study in a folder, which is begun where there is none.

    Raises:
        ValueError: see ``Study``.
    """
    return Study(folder, sweep.about(), sweep.space, seed=0)


def run_trials(sweep: Sweep, study: Study, *, waits: bool = True) -> None:
    """Train the trials that no other process takes, until there are as many as wanted.

    Args:
        sweep: what is searched.
        study: of all processes.
        waits: for the trials of other processes, of which one may die.
    """
    told = False
    while True:
        taken = study.take(sweep.trials)
        if taken is not None:
            _run(sweep, study, *taken)
            continue
        running = [trial for trial in study.results() if trial.state.name == RUNNING]
        if not running:
            return
        if not told:
            names = ", ".join(f"{run_of(trial)} ({study.holder(trial)})" for trial in running)
            say(f"{'Waiting for' if waits else 'Left to others:'} {names}")
            told = True
        if not waits:
            return
        time.sleep(POLL_SECONDS)


def _run(sweep: Sweep, study: Study, trial: Trial, claim: Claim) -> None:
    name, how = run_of(trial), LEFT
    values = values_of(trial)
    say(f"{name}: {_said(values)} ...")
    try:
        try:
            scores = [_score(sweep, study, trial, claim, seed) for seed in range(1, sweep.seeds + 1)]
            value, failure = statistics.fmean(scores), ""
            if not math.isfinite(value):
                failure = f"its validation is {value}"
        except _PrunedError:
            value, failure = None, ""
        except (ValueError, RolloutError, FloatingPointError) as error:
            value, failure = None, " ".join(str(error).split())
        except OSError as error:
            value, failure = None, in_words(error)
        if claim.lost:
            raise LostError
        study.tell(trial, None if failure else value, failure=failure)
        how = FAILED if failure else DONE
    except LostError:
        say(f"{name}: another process has taken it, since this one was not heard of for long")
        return
    finally:
        claim.end(how)
    told = f"failed: {failure}" if failure else "pruned" if value is None else f"{value:.3f}"
    done = [one for one in study.results() if one.state.is_finished()]
    first = done[0]
    best = f", the best is {first.value:.3f} of {run_of(first)}" if first.state.name == COMPLETE else ""
    say(f"{name}: {told} ({len(done)} of {sweep.trials}{best})")


def _score(sweep: Sweep, study: Study, trial: Trial, claim: Claim, seed: int) -> float:
    """Train a run of a trial, unless that is done, and return the validation of its best parameters."""
    settings = sweep.settings(values_of(trial), seed)
    name = run_of(trial) if sweep.seeds == 1 else f"{run_of(trial)}-{seed}"
    run = Run(study.folder / name)
    if not _is_done(run, settings):
        reports = [_Reports(study, trial, prunes=sweep.prunes)] if seed == 1 else []
        training.train(settings, study.folder, name, progress_bar=False, callbacks=[StillOurs(claim), *reports])
    best = read_checkpoint(run.last).facts["best"]
    if best is None:
        raise ValueError(f"the run {str(run.folder)!r} has no validation to choose by")
    return float(best["score"])


def _is_done(run: Run, settings: Settings) -> bool:
    try:
        run.read_results(settings)
    except ValueError:
        return False
    return True


def write_table(sweep: Sweep, study: Study) -> tuple[str, bool]:
    """Write ``sweep.csv`` and ``sweep.md``; return the text of the last, and whether there is a best trial."""
    trials = study.results()
    rows = [_row(sweep, study, trial) for trial in trials]
    titles = ["trial", "state", "validation", "test", *sweep.space]
    with study.claims.waiting_for("tables"):
        with replacing(study.folder / "sweep.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([titles, *rows])
        best = trials[0] if trials and trials[0].state.name == COMPLETE else None
        lines = [titles, ["---"] * len(titles), *([_cell(value) for value in row] for row in rows)]
        of = "" if sweep.seeds == 1 else f", as means over {sweep.seeds} seeds"
        text = (
            "Trials, the best first: the return of the best parameters on validation tasks, by which trials are "
            f"compared, and after the last step on test tasks{of}.\n\n"
        ) + "".join(f"| {' | '.join(line)} |\n" for line in lines)
        if best is not None:
            text += f"\nThe best settings:\n\n    {best_command(sweep, values_of(best))}\n"
        with replacing(study.folder / "sweep.md") as beside:
            beside.write_text(text, encoding="utf-8")
    return text, best is not None


def best_command(sweep: Sweep, values: dict[str, Any]) -> str:
    """Return the command that trains with a trial's settings."""
    settings = [f"{key}={_toml(value)}" for key, value in [*sweep.given, *values.items()]]
    vary = [word for text in sweep.vary for word in ("--vary", text)]
    return shlex.join(["metarl", "train", sweep.config, *settings, *vary])


def _row(sweep: Sweep, study: Study, trial: FrozenTrial) -> list[Any]:
    state = _STATES.get(trial.state.name, "")
    if trial.state.name == FAIL:
        state = f"failed: {failure_of(trial) or 'its process ended'}"
    values = values_of(trial)
    value = trial.value if trial.state.name == COMPLETE else None
    test = _test(sweep, study, trial, values) if value is not None else None
    return [run_of(trial), state, value, test, *(values.get(key) for key in sweep.space)]


def _test(sweep: Sweep, study: Study, trial: FrozenTrial, values: dict[str, Any]) -> float | None:
    """Return the return after the last step on test tasks; None where the results cannot be read."""
    names = [run_of(trial)] if sweep.seeds == 1 else [f"{run_of(trial)}-{seed + 1}" for seed in range(sweep.seeds)]
    try:
        found = [
            Run(study.folder / name).read_results(sweep.settings(values, seed)) for seed, name in enumerate(names, 1)
        ]
    except ValueError:
        return None
    return statistics.fmean(float(one.returns[-1].mean()) for one in found)


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {_cell(value)}" for key, value in values.items())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
