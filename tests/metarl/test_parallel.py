"""Work spread over threads: order, the calling thread's part, torch's threads inside and after, and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from metarl.parallel import map_tasks

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_tasks", [0, 1, 2, 7])
def test_results_are_in_the_order_of_tasks(n_tasks: int) -> None:
    assert map_tasks(lambda task: task * task, n_tasks, CPU) == [task * task for task in range(n_tasks)]


def test_each_thread_has_one_torch_thread_and_the_calling_one_is_among_them(threads: int) -> None:
    together = threading.Barrier(threads)

    def work(task: int) -> tuple[int, int]:
        together.wait(timeout=10)
        return threading.get_ident(), torch.get_num_threads()

    found = map_tasks(work, threads, CPU)
    assert len({thread for thread, _ in found}) == threads
    assert threading.get_ident() in {thread for thread, _ in found}
    assert {count for _, count in found} == {1}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("wrong", [0, 1, 5])
def test_a_failure_is_raised_and_ends_the_work(wrong: int, threads: int) -> None:
    done = []

    def work(task: int) -> None:
        if task == wrong:
            raise IndexError(f"task {task}")
        time.sleep(0.001)
        done.append(task)

    with pytest.raises(IndexError, match=f"task {wrong}"):
        map_tasks(work, 10_000, CPU)
    assert len(done) < 10_000 - 1
    assert torch.get_num_threads() == threads
    assert map_tasks(str, 2, CPU) == ["0", "1"]
