"""Computation task by task, distributed over threads, with results in the order of the tasks."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from torch import Tensor

from metarl.agents import Samples
from metarl.gradients.backend import TaskGroups

Result = TypeVar("Result")

_outside: contextvars.ContextVar[int | None] = contextvars.ContextVar("threads outside of one_thread", default=None)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread inside the block; ``map_tasks`` still uses as many as before.

    Torch sums long vectors in as many parts as it has threads, so that the last bits would depend on their number.
    """
    threads = torch.get_num_threads()
    token = _outside.set(_outside.get() or threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _outside.reset(token)
        torch.set_num_threads(threads)


@contextlib.contextmanager
def all_threads() -> Iterator[None]:
    """Let torch compute with as many threads as it has outside of ``one_thread``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_outside.get() or threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def map_tasks(work: Callable[[int], Result], n_tasks: int, device: torch.device) -> list[Result]:
    """Return ``[work(0), ..., work(n_tasks - 1)]``.

    On the CPU the tasks are distributed over as many Python threads as torch would use, each with one torch thread, so
    that the result does not depend on their number. The calling thread is one of them, since it already has a core.
    On other devices the tasks are computed one after another. The caller's ``no_grad`` or ``inference_mode`` does not
    apply to ``work``.
    """

    def run(task: int) -> Result:
        with torch.inference_mode(False), torch.enable_grad():
            return work(task)

    threads = _outside.get() or torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [run(task) for task in range(n_tasks)]
    found: dict[int, Result] = {}
    left = iter(range(n_tasks))  # each thread takes its next task from here
    failed = threading.Event()

    def work_on() -> None:
        try:
            for task in left:
                if failed.is_set():
                    return
                found[task] = run(task)
        except BaseException:
            failed.set()
            raise

    with one_thread():
        others: list[Future[None]] = []
        try:
            for _ in range(min(threads, n_tasks) - 1):
                others.append(_pool(os.getpid(), threads - 1).submit(work_on))
            work_on()
        except BaseException:
            failed.set()
            raise
        finally:
            wait(others)
    while others:
        others.pop(0).result()
    return [found[task] for task in range(n_tasks)]


def map_groups(
    groups: TaskGroups, vectors: Tensor, samples: Samples, work: Callable[[Tensor, Samples], Result]
) -> list[Result]:
    """Return the results of ``work(vector, samples)`` for each task group.

    Args:
        groups: the task groups.
        vectors: ``[task, parameter]``.
        samples: ``[task, sample, ...]``.
        work: a function of one task group's vectors and samples, such as the methods of ``Backend``.
    """

    def work_on(group: int) -> Result:
        return work(vectors[groups[group]].clone(), samples.task(groups[group]))

    return map_tasks(work_on, len(groups), samples.weights.device)


def join_groups(groups: TaskGroups, results: list[Tensor]) -> Tensor:
    """Return the results of all task groups as one tensor with a leading task axis."""
    return torch.cat(results) if isinstance(groups[0], slice) else torch.stack(results)


@functools.cache
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:
    # Keyed by process, since a fork does not inherit threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="metarl", initializer=torch.set_num_threads, initargs=(1,))
