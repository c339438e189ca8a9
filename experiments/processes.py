"""Function calls in separate processes, several at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from metarl.envs.processes import end_with_parent, interrupts_ignored, main_left_alone
from metarl.experiments.streams import say, warnings_in_sentences
from metarl.experiments.training import Terminated, sigterm_raises

PATIENCE_SECONDS = 10.0
Failure = str | None
NextCall = Callable[[], tuple[str, tuple[Any, ...]] | None]


def in_processes(
    work: Callable[..., Failure], next_call: NextCall, parallel: int, seconds: float
) -> Iterator[tuple[str, Failure]]:
    """Call ``work(*arguments)`` again and again, each time in a new process with one thread, while there are calls.

    Yields the name of each call when it has ended, with its result: None, or a sentence about its failure. A process
    that ends without a result has failed. If the caller is interrupted or closes the iterator, all processes are ended.

    Args:
        work: a function that a new process can import.
        next_call: returns name and arguments of a call, or None if there is none now.
        parallel: the largest number of processes at a time.
        seconds: after which ``next_call`` is asked again where it had none, while processes run.
    """
    running: dict[int, tuple[str, Any, Connection]] = {}  # by the process's sentinel
    try:
        while True:
            while len(running) < parallel and (call := next_call()) is not None:
                name, arguments = call
                say(f"{name} ...")
                process, answers = _start(work, arguments)
                running[process.sentinel] = name, process, answers
            if not running:
                return
            for sentinel in wait(list(running), None if len(running) == parallel else seconds):
                assert isinstance(sentinel, int)
                name, process, answers = running.pop(sentinel)
                yield name, _answer(process, answers)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, answers in running.values():
            process.join(PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
            answers.close()


def _start(work: Callable[..., Failure], arguments: tuple[Any, ...]) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    # Not daemonic, since daemonic processes cannot have children, such as workers that step environments.
    process = context.Process(target=serve, args=(theirs, work, arguments))
    with main_left_alone(), interrupts_ignored(), _one_thread_asked_for():
        process.start()
    theirs.close()
    return process, answers


@contextlib.contextmanager
def _one_thread_asked_for() -> Iterator[None]:
    """Let a new process's libraries use one thread each; numpy can only be told by an environment variable."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _answer(process: Any, answers: Connection) -> Failure:
    process.join()
    try:
        failure: Failure = answers.recv() if answers.poll() else f"its process ended with exit code {process.exitcode}"
    except EOFError:
        failure = f"its process ended with exit code {process.exitcode}"
    answers.close()
    return failure


def serve(answers: Connection, work: Callable[..., Failure], arguments: tuple[Any, ...]) -> None:
    """Do the work in this process and send its result; end together with the parent, or silently at SIGTERM."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with contextlib.suppress(Terminated), sigterm_raises(), warnings_in_sentences():
        answers.send(work(*arguments))
