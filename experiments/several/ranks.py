"""What each rank of a run does: all hold the same learner and play their share of the tasks; rank 0 writes and speaks.

The other ranks get the learner from rank 0, as the checkpoint that the run begins with, so only rank 0 reads and writes
the run's folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import Logger

from metarl.distributed import Group, LostError, join
from metarl.envs import RolloutError
from metarl.experiments.arguments import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED
from metarl.experiments.runs import Run
from metarl.experiments.several.facts import difference, facts_of, own_code
from metarl.experiments.streams import complain
from metarl.gradients.task_axis import dealt_to
from metarl.learner import BaseLearner
from metarl.learners.registry import load_learner
from metarl.settings import Settings

Started = tuple[Run, BaseLearner]


class Ended(Exception):  # noqa: N818
    """The run has ended by what happened on another rank: a sentence, the exit status, and whether to say it here."""

    def __init__(self, sentence: str, status: int, speaks: bool) -> None:
        super().__init__(sentence)
        self.status, self.speaks = status, speaks


def train(
    options: argparse.Namespace,
    settings: Callable[[], Settings | None],
    begin: Callable[[int], Started],
    finish: Callable[[Run, BaseLearner, Group], int],
) -> int:
    """Train as one rank of several; return the exit status, which is the same for all ranks.

    Args:
        options: of the command line.
        settings: reads those of a new run; None where one is resumed.
        begin: for a number of ranks, makes or opens the run's folder, on rank 0.
        finish: trains and tests, on rank 0, and says what became of it.
    """
    rank = int(os.environ["RANK"])
    try:
        _choose_gpu()
        group = join(options.rank_timeout)
    except ValueError as error:
        complain(f"{'' if rank == 0 else f'rank {rank}: '}{error}")
        return BAD_INPUT
    try:
        with watched(group):
            status = _agree(group, options, settings)
            if status == 0:
                status = _lead(group, begin, finish) if rank == 0 else _follow(group)
            group.leave()
            return status
    except Ended as end:
        if end.speaks:
            complain(str(end))
        return end.status


@contextlib.contextmanager
def watched(group: Group) -> Iterator[None]:
    """Tell the other ranks of an error, and raise ``Ended`` with what happened on them where that is the cause."""
    try:
        yield
    except Ended:
        raise
    except LostError as error:
        words = group.what_happened()
        raise Ended(words.sentence, words.status, words.speaks) from error
    except KeyboardInterrupt as stop:
        words = group.what_happened(("stopped", status_of(stop)))
        raise Ended(words.sentence, words.status, words.speaks) from stop
    except BaseException as error:
        words = group.last_words(f"rank {group.rank}: {' '.join(str(error).split())}", FAILED)
        if group.rank == 0:
            raise
        raise Ended(words.sentence, words.status, words.speaks) from error


def status_of(stop: KeyboardInterrupt) -> int:
    """Return the exit status after Ctrl-C or SIGTERM."""
    return INTERRUPTED if type(stop) is KeyboardInterrupt else TERMINATED


def _choose_gpu() -> None:
    """Give each rank of a machine a GPU of its own, where there is one for each."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _agree(group: Group, options: argparse.Namespace, settings: Callable[[], Settings | None]) -> int:
    """Compare what the ranks are to do and with which code; return the exit status, 0 where all have the same."""
    told: dict[str, Any]
    try:
        told = {"error": None, "facts": facts_of(options, settings())}
    except (ValueError, TypeError) as error:
        told = {"error": " ".join(str(error).split()), "facts": {}}
    by_rank = group.gather_json(told)
    errors = [f"rank {rank}: {one['error']}" for rank, one in enumerate(by_rank) if one["error"] is not None]
    own = by_rank[0]["error"]
    return _refuse(group, own or next(iter(errors), None) or difference([one["facts"] for one in by_rank]))


def _refuse(group: Group, fault: str | None) -> int:
    """Say, on rank 0, what all ranks refuse to do; return the exit status, 0 where there is no fault."""
    if fault is not None and group.rank == 0:
        complain(fault)
    return 0 if fault is None else BAD_INPUT


def _lead(group: Group, begin: Callable[[int], Started], finish: Callable[[Run, BaseLearner, Group], int]) -> int:
    """Begin or open the run's folder, hand out the learner, and train; return the exit status."""
    try:
        run, learner = begin(group.size)
    except (ValueError, TypeError, RolloutError) as error:
        status = FAILED if isinstance(error, RolloutError) else BAD_INPUT
        group.hand_out(json.dumps({"status": status}).encode())
        complain(" ".join(str(error).split()))
        return status
    try:
        group.hand_out(json.dumps({"status": 0}).encode() + b"\n" + run.last.read_bytes())
        if status := _same_code(group, learner):
            return status
        with dealt_to(group.share):
            return finish(run, learner, group)
    finally:
        learner.close()
        run.unlock()


def _follow(group: Group) -> int:
    """Get the learner from rank 0, train and test it together with the others; return the exit status."""
    head, _, checkpoint = group.hand_out(None).partition(b"\n")
    if status := int(json.loads(head)["status"]):
        return status
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.zip"
        path.write_bytes(checkpoint)
        learner: BaseLearner = load_learner(path, allow=True)
    try:
        if status := _same_code(group, learner):
            return status
        # What is worth a warning is so on rank 0 too, which says it.
        with dealt_to(group.share), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _train_and_test(learner)
        return 0
    finally:
        learner.close()


def _same_code(group: Group, learner: BaseLearner) -> int:
    return _refuse(group, difference(group.gather_json(own_code(learner.given_settings))))


def _train_and_test(learner: BaseLearner) -> None:
    """Do what ``training.finish_run`` does, without its files."""
    learner.set_logger(Logger(None, []))
    missing = learner.given_settings.learning.iterations - learner.iteration
    if missing > 0:
        learner.learn(iterations=missing, reset_num_timesteps=False)
    if learner.best is not None:
        learner.state = replace(learner.best.state, num_timesteps=learner.num_timesteps)
    learner.evaluate(split="test")
