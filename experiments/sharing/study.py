"""The study of a sweep: Optuna's journal in a folder, from which several processes take trials.

Optuna's journal has no sign of life of its processes, so each trial is claimed (``claims``). A trial whose process has
died is closed as failed, and another is queued that has its values, goes on with its runs and counts in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.experiments.sharing.claims import FOLDER, LEFT, Claim, Claims
from metarl.experiments.sharing.space import Searched
from metarl.experiments.sharing.still_ours import LostError

if TYPE_CHECKING:  # an extra, which only those who search settings have
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
COMPLETE, PRUNED, FAIL, RUNNING, WAITING = "COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"  # Optuna's names
TRIES = 10  # of a trial whose processes die
_REPLACES, _RUN, _TRY, _FAILURE = "replaces", "run", "try", "failure"


class Study:
    """A study in a folder.

    Args:
        folder: of the study; it is made if it is missing.
        about: what the trials have in common, by which a study is known to be of the same sweep.
        space: the settings that are searched.
        seed: of the sampler.

    Raises:
        ValueError: the folder cannot be written, or holds another sweep's study or a damaged one.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], space: Mapping[str, Searched], seed: int) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.claims = folder, Claims(folder / FOLDER)
        self._space, self._seed = space, seed
        self.claims.prepare()
        about = json.loads(json.dumps(about))
        path = str((folder / JOURNAL).absolute())
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
            with self._alone():
                self._study = optuna.create_study(
                    storage=storage,
                    study_name="sweep",
                    direction="maximize",
                    pruner=optuna.pruners.MedianPruner(),
                    load_if_exists=True,
                )
                if not self._study.user_attrs and not self.trials():
                    self._study.set_user_attr("about", about)
                before = self._study.user_attrs.get("about")
        except (ValueError, KeyError, AssertionError) as error:
            raise ValueError(f"the study {path!r} cannot be read ({error}); name another folder by --study") from error
        _refuse_another(folder, before, about)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process open or take a trial meanwhile."""
        from optuna.storages.journal import JournalFileOpenLock

        lock = JournalFileOpenLock(str((self.folder / "next").absolute()))
        lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # another process took it, since this one had it for too long
                lock.release()

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, also those that were replaced."""
        return self._study.get_trials(deepcopy=False)

    def dead(self) -> list[FrozenTrial]:
        """Return the trials whose process has died or was stopped."""
        running = [trial for trial in self.trials() if trial.state.name == RUNNING]
        return [trial for trial in running if not self.claims.state(_claim_name(trial.number)).held]

    def is_full(self, count: int) -> bool:
        """Return whether so many trials are begun, of which none waits to be taken up."""
        trials = self.trials()
        waits = any(trial.state.name == WAITING for trial in trials)
        return not waits and sum(_REPLACES not in trial.user_attrs for trial in trials) >= count

    def take(self, count: int) -> tuple[Trial, Claim] | None:
        """Return a trial and this process's claim on it; None if there are ``count`` trials and none is free."""
        import optuna

        if self.is_full(count) and not self.dead():
            return None
        with self._alone():
            for left in self.dead():
                self._replace(left)
            if self.is_full(count):
                return None
            # A sampler of its own for each trial, so that a sweep by one process can be repeated.
            self._study.sampler = optuna.samplers.TPESampler(seed=self._seed + len(self.trials()))
            trial = self._study.ask({key: _distribution(searched) for key, searched in self._space.items()})
            if _RUN not in trial.user_attrs:
                trial.set_user_attr(_RUN, f"trial-{trial.number}")
            claim = self.claims.take(_claim_name(trial.number), 0)
            assert claim is not None, "two processes got the same trial"
            return trial, claim

    def _replace(self, trial: FrozenTrial) -> None:
        import optuna

        name, tries = _claim_name(trial.number), trial.user_attrs.get(_TRY, 1)
        claim = self.claims.take(name, self.claims.state(name).number)
        if claim is not None:  # so that a process that was only held up notices
            claim.end(LEFT)
        self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if tries < TRIES:
            attributes = {_REPLACES: trial.number, _RUN: run_of(trial), _TRY: tries + 1}
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=attributes,
                )
            )

    def holder(self, trial: FrozenTrial) -> str:
        """Return which process a trial is of, for messages."""
        return self.claims.state(_claim_name(trial.number)).holder or "about to end"

    def tell(self, trial: Trial, value: float | None = None, *, failure: str = "") -> None:
        """Say how a trial has ended: with a value, with a failure, or, without both, that it was pruned."""
        from optuna.trial import TrialState

        with _lost_if_ended():
            if failure:
                trial.set_user_attr(_FAILURE, failure)
            state = TrialState.FAIL if failure else TrialState.PRUNED if value is None else TrialState.COMPLETE
            self._study.tell(trial, value, state=state)

    def report(self, trial: Trial, value: float, iteration: int) -> bool:
        """Report a validation of a trial; return whether it is worse than the median of the others."""
        with _lost_if_ended():
            trial.report(value, iteration)
            return trial.should_prune()

    def results(self) -> list[FrozenTrial]:
        """Return the trials that were not replaced, the best first, then those without a value."""
        replaced = {trial.user_attrs[_REPLACES] for trial in self.trials() if _REPLACES in trial.user_attrs}
        found = [trial for trial in self.trials() if trial.number not in replaced]
        complete = [trial for trial in found if trial.state.name == COMPLETE]
        others = [trial for trial in found if trial.state.name != COMPLETE]
        return sorted(complete, key=lambda trial: -(trial.value or 0.0)) + others


def run_of(trial: FrozenTrial | Trial) -> str:
    """Return the name of a trial's run, which is another trial's if it goes on with that one."""
    return str(trial.user_attrs.get(_RUN, f"trial-{trial.number}"))


def failure_of(trial: FrozenTrial) -> str:
    """Return the sentence of a trial's failure; empty if it did not fail by itself."""
    return str(trial.user_attrs.get(_FAILURE, ""))


def values_of(trial: FrozenTrial | Trial) -> dict[str, Any]:
    """Return the settings of a trial that are searched."""
    return {
        key: json.loads(value) if isinstance(value, str) else value  # choices are kept as JSON
        for key, value in trial.params.items()
    }


@contextmanager
def _lost_if_ended() -> Iterator[None]:
    """Raise ``LostError`` where another process has closed the trial."""
    import optuna

    try:
        yield
    except optuna.exceptions.UpdateFinishedTrialError as error:
        raise LostError from error


def _claim_name(number: int) -> str:
    return f"trial-{number}"


def _distribution(searched: Searched) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if searched.choices:
        return CategoricalDistribution([json.dumps(choice) for choice in searched.choices])
    assert searched.low is not None
    assert searched.high is not None
    if searched.integer:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def _refuse_another(folder: Path, before: Any, about: Mapping[str, Any]) -> None:
    """Refuse the study of another sweep."""
    if not isinstance(before, dict):
        raise ValueError(f"the study in {str(folder)!r} is not of 'metarl sweep'; name another folder by --study")
    was, now = _flat(before), _flat(about)
    for key in sorted({*was, *now}):
        if was.get(key) != now.get(key):
            raise ValueError(
                f"the study in {str(folder)!r} was begun with {_said(key, was)} and is to go on with "
                f"{_said(key, now)}; give what it was begun with, or name another folder by --study"
            )


def _said(key: str, values: Mapping[str, Any]) -> str:
    return f"{key} = {values[key]!r}" if key in values else f"no {key}"


def _flat(plain: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key: value}
    return found
