"""The loop of ``learn``: meta-iterations, validations, and what is written about them."""

from __future__ import annotations

import difflib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, Logger, TensorBoardOutputFormat
from torch import Tensor

from metarl.agents import Policy, Rollouts
from metarl.envs import RolloutError
from metarl.envs.tasks import whole_number
from metarl.figures import has_paths, paths_figure
from metarl.gradients import task_axis
from metarl.gradients.parallel import one_thread
from metarl.results import Evaluation
from metarl.sampler import Sampler
from metarl.sb3 import loggers
from metarl.sb3.callbacks import episodes_for_callbacks
from metarl.settings import Settings
from metarl.state import Best, Outcome, State, advance, check_outcome
from metarl.statistics import episode_success
from metarl.training.adaptation_check import LEAST_DONE, REMEDY, REMEDY_OF_MEMORY, SENTENCES, AdaptationCheck
from metarl.training.schedules import Horizon, scheduled
from metarl.training.standstill import Standstill

_PICTURED_TASKS = 4


class TrainedLearner(Protocol):
    """The part of a learner that the loop needs."""

    trains: ClassVar[bool]
    learns_to_adapt: ClassVar[bool]
    remembers: ClassVar[bool]
    given_settings: Settings
    functional_policy: Policy
    state: State
    sampler: Sampler
    best: Best | None
    horizon: Horizon
    adaptation_check: AdaptationCheck
    standstill: Standstill

    @property
    def settings(self) -> Settings:
        """The settings, with the step sizes in force."""

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family."""

    @property
    def logger(self) -> Logger:
        """The logger."""

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Return the next state."""

    def evaluate_rollouts(self, split: str) -> tuple[Evaluation, list[Any], list[Rollouts]]:
        """Return an evaluation and some of its rollouts."""

    def say_once(self, sentence: str) -> None:
        """Give a warning, unless the learner has given the same one."""

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was recorded since the last write."""


def refuse_arguments(learn: Callable[..., Any], positional: tuple[object, ...], unknown: Mapping[str, object]) -> None:
    """Refuse arguments of ``learn`` by position, of which nobody can tell what they count, and unknown ones.

    Args:
        learn: the method.
        positional: the arguments by position.
        unknown: those that it does not have.

    Raises:
        TypeError: there is one.
    """
    if unknown:
        parameters = inspect.signature(learn).parameters.values()
        names = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        name = next(iter(unknown))
        near = difflib.get_close_matches(name, names, n=1)
        advice = f"the nearest is {near[0]!r}" if near else f"expected {', '.join(names)}"
        raise TypeError(f"learn has no argument {name!r}; {advice}")
    if positional:
        raise TypeError(
            f"learn({positional[0]!r}) does not say what it counts: the first argument of stable-baselines3's learn() "
            "are environment steps, and here training is counted in iterations too; write "
            f"learn(iterations={positional[0]!r}) or learn(total_timesteps={positional[0]!r})"
        )


def counted(name: str, value: Any, *, as_float: bool = False) -> int | None:
    """Return how many of something there are to be; None for no limit. With ``as_float`` it may be written as ``1e5``.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if value is None:
        return None
    if as_float and isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return whole_number(name, value)


def train(
    learner: TrainedLearner,
    callbacks: BaseCallback,
    bar: Any,
    *,
    last_iteration: int | None,
    last_timestep: int | None,
    log_interval: int | None,
) -> None:
    """Run meta-iterations with validations until a limit is reached or a callback stops them.

    Args:
        learner: to train; one that does not learn is only validated.
        callbacks: called after each iteration.
        bar: a progress bar.
        last_iteration: the number of iterations after which to stop, or None.
        last_timestep: the number of environment steps after which to stop, or None.
        log_interval: iterations between writes to the logger, or None.
    """
    every = learner.settings.evaluation.every
    final, first_timestep = not learner.trains, learner.state.num_timesteps
    if final:
        _validate(learner)
        learner.dump_logs()
    while not final:
        steps = learner.state.num_timesteps
        _iterate(learner, callbacks, bar)
        state = learner.state
        if last_timestep is not None and state.num_timesteps - steps > 2 * (last_timestep - first_timestep):
            learner.say_once(
                f"an iteration plays {state.num_timesteps - steps:,} environment steps, more than total_timesteps = "
                f"{last_timestep - first_timestep:,}, and training ends with whole iterations; for smaller ones give "
                "learning={'tasks': ..., 'episodes': ...}"
            )
        final = (last_iteration is not None and state.iteration >= last_iteration) or (
            last_timestep is not None and state.num_timesteps >= last_timestep
        )
        validated = state.iteration % every == 0 or final
        if validated:
            _validate(learner)
        if final or (log_interval is not None and state.iteration % log_interval == 0):
            learner.dump_logs()
        if not callbacks.on_step() and not final:
            if not validated:
                _validate(learner)
            learner.dump_logs()
            break


def _iterate(learner: TrainedLearner, callbacks: BaseCallback, bar: Any) -> None:
    began, played = time.perf_counter(), learner.sampler.seconds
    before = learner.state
    iteration = before.iteration + 1
    callbacks.on_rollout_start()
    learner.logger.record("rollout/iteration", iteration)
    schedules = scheduled(learner.given_settings)
    # Without schedules nothing depends on it, and a run that gets more iterations keeps the bits of a longer one.
    remaining = learner.horizon.remaining(before.iteration, before.num_timesteps) if schedules else 1.0
    learner.state = replace(before, progress_remaining=remaining)
    try:
        for key, schedule in schedules.items():
            learner.logger.record(f"train/{key.replace('.', '_')}", schedule.value(remaining))
        with one_thread():
            outcome = learner.meta_iteration(learner.state, iteration)
        check_outcome(outcome, before)
    except BaseException as error:
        learner.state = before
        if isinstance(error, RolloutError):
            raise RolloutError(f"iteration {iteration}: {error}", error.env_index) from error
        raise
    settings = learner.settings
    following = advance(outcome, gamma=settings.learning.gamma, log_std_min=settings.policy.log_std_min)
    if task_axis.is_dealt() and (other := task_axis.first_other(following.digest())) is not None:
        learner.state = before
        raise ValueError(
            f"iteration {iteration}: processes 0 and {other} computed other bits, as on processors of different kinds, "
            f"or where meta_iteration of {type(learner).__name__} does not reduce over tasks by "
            "metarl.gradients.task_axis; use machines of one kind, or a single process"
        )
    learner.state = replace(following, progress_remaining=remaining)
    stands = learner.standstill.sentence(outcome.metrics, following.line_search_failures > before.line_search_failures)
    if stands is not None and settings.learning.check:
        learner.say_once(f"iteration {iteration}: {stands}")
    callbacks.update_locals({"self": learner, "iteration": iteration, **episodes_for_callbacks(outcome.rollouts)})
    by_task, by_success = _of_all_shares(learner, outcome.rollouts)
    callbacks.on_rollout_end()
    if iteration == 1 and by_task:
        learner.adaptation_check.start = by_task[0].double().numpy()
    returns, successes = ([float(part.mean(dim=0)) for part in parts] for parts in (by_task, by_success))
    loggers.record_iteration(
        learner.logger,
        outcome.metrics,
        returns,
        successes,
        timesteps=learner.state.num_timesteps,
        steps=learner.state.num_timesteps - before.num_timesteps,
        seconds=time.perf_counter() - began,
        seconds_rollouts=learner.sampler.seconds - played,
    )
    if settings.learning.restart_workers:
        learner.logger.record("rollout/worker_restarts", learner.sampler.restarts, exclude="csv")
    if returns:
        bar.set_postfix_str(_progress("return", returns, ".2f") + _progress("; success", successes, ".0%"))
    bar.update()


def _of_all_shares(learner: TrainedLearner, rollouts: Sequence[Rollouts]) -> tuple[list[Tensor], list[Tensor]]:
    """Return each task's return after 0, 1, ... steps, and its share of episodes with success, all ``[task]``.

    There are no successes where no ``info`` tells of them.
    """
    if not rollouts:
        return [], []
    success = [episode_success(part, learner.settings.evaluation.success) for part in rollouts]
    # A share of which no info tells has episodes without success if one of another share does.
    by_success = [torch.full_like(part.returns(), torch.nan) if one is None else one.mean(dim=1)
                  for part, one in zip(rollouts, success, strict=True)]  # fmt: skip
    columns = torch.stack([*(part.returns() for part in rollouts), *by_success], dim=1)
    every = task_axis.gather(columns).T.contiguous()
    returns, told = every[: len(rollouts)], every[len(rollouts) :]
    if bool(told.isnan().all(dim=1).any()):
        return list(returns), []
    return list(returns), list(told.nan_to_num(0.0))


def _progress(name: str, values: Sequence[float], form: str) -> str:
    """Return what the progress says of a metric, before and after adaptation."""
    if not values:
        return ""
    after = f", after adaptation {values[-1]:{form}}" if len(values) > 1 else ""
    return f"{name} before {values[0]:{form}}{after}"


def _validate(learner: TrainedLearner) -> None:
    evaluation, tasks, rollouts = learner.evaluate_rollouts("validation")
    shown = any(isinstance(part, TensorBoardOutputFormat) for part in learner.logger.output_formats)
    # Behind a frozen front, rollouts hold features and no positions.
    paths = has_paths(learner.env) and learner.functional_policy.front is None
    if paths and task_axis.is_dealt():
        rows = [len(range(part.start, min(part.stop, _PICTURED_TASKS))) for part in task_axis.parts(range(len(tasks)))]
        own = rows[task_axis.number()]
        rollouts = [task_axis.gather_rollouts(part.map(lambda tensor: tensor[:own]), rows) for part in rollouts]
    if shown and paths:
        picture = paths_figure(learner.env, tasks[:_PICTURED_TASKS], rollouts, counted=evaluation.counted)
        elsewhere = ("stdout", "log", "json", "csv")
        learner.logger.record("validation/paths", Figure(picture, close=False), exclude=elsewhere)
    loggers.record_validation(learner.logger, {"return": evaluation.returns, **evaluation.statistics})
    score = _score(learner, evaluation)
    if learner.best is None or score > learner.best.score:
        learner.best = Best(score, learner.state)
    if learner.trains and learner.learns_to_adapt and learner.settings.learning.check:
        _check_adaptation(learner, evaluation.returns)


def _score(learner: TrainedLearner, evaluation: Evaluation) -> float:
    """Return by what the best parameters are chosen.

    Raises:
        ValueError: it is the success rate, and no ``info`` told of success.
    """
    best = learner.settings.evaluation.best
    if best not in evaluation.metrics:
        raise ValueError(
            f"evaluation.best is {best!r}, but no info of {evaluation.family} told of success in validation; set "
            "evaluation.best = 'return'"
        )
    return evaluation.score_by(best)


def _check_adaptation(learner: TrainedLearner, returns: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Warn, once, if the validations so far show that adaptation adds nothing."""
    check, state = learner.adaptation_check, learner.state
    check.add(returns)
    done = 1.0 - learner.horizon.remaining(state.iteration, state.num_timesteps)
    if check.said or done < LEAST_DONE:
        return
    finding = check.finding()
    if finding is not None and not (finding[0] == "no change" and learner.standstill.said):
        check.said = True
        kind, numbers = finding
        steps = [name for name in ("learning_rate", "max_kl") if hasattr(learner.settings.outer, name)]
        outer = " or ".join(f"outer.{name}" for name in steps) or "those of [outer]"
        if learner.remembers:
            advice = {"steps": outer, "remedy": REMEDY_OF_MEMORY.format(outer=outer)}
        else:
            advice = {"steps": f"inner.step_size, {outer}", "remedy": REMEDY}
        sentence = SENTENCES[kind].format(**advice, **numbers)
        learner.say_once(f"after iteration {state.iteration}: {sentence}")
