"""Work in several shares of the tasks, each in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metarl.gradients import task_axis

TIMEOUT = 60.0  # seconds that a share waits for the others


class Exchange:
    """Gathers tensors of all shares, each a thread, in the order of the shares."""

    def __init__(self, count: int) -> None:
        self._given: list[Tensor] = [torch.empty(0)] * count
        self._met = threading.Barrier(count, timeout=TIMEOUT)

    def gather_as(self, index: int) -> Callable[[Tensor, Sequence[int]], list[Tensor]]:
        def gather(own: Tensor, rows: Sequence[int]) -> list[Tensor]:
            assert len(own) == rows[index]
            self._given[index] = own
            self._met.wait()
            found = [part.clone() for part in self._given]
            self._met.wait()
            return found

        return gather

    def abort(self) -> None:
        self._met.abort()


def in_shares(work: Callable[[int], Any], count: int = 2) -> list[Any]:
    """Return what work gives in each of so many shares, called with the share's number."""
    exchange = Exchange(count)
    found: list[Any] = [None] * count
    failed: list[BaseException] = []

    def run(index: int) -> None:
        try:
            with task_axis.dealt_to(task_axis.Share(index=index, count=count, gather=exchange.gather_as(index))):
                found[index] = work(index)
        except BaseException as error:
            failed.append(error)
            exchange.abort()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise next((error for error in failed if not isinstance(error, threading.BrokenBarrierError)), failed[0])
    return found
