"""Work spread over threads: order, the calling thread's part, torch's threads inside and after, and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from metarl.gradients.parallel import map_tasks

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


def test_an_interrupt_ends_the_work_of_all_threads() -> None:
    done = []

    def work(task: int) -> None:
        if task == 3:
            raise KeyboardInterrupt
        time.sleep(0.001)
        done.append(task)

    with pytest.raises(KeyboardInterrupt):
        map_tasks(work, 10_000, CPU)
    count = len(done)
    time.sleep(0.01)
    assert len(done) == count < 10_000 - 1


def test_work_within_work_finds_its_results() -> None:
    found = map_tasks(lambda task: map_tasks(lambda inner: (task, inner), 3, CPU), 3, CPU)
    assert found == [[(task, inner) for inner in range(3)] for task in range(3)]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_modes_do_not_reach_the_work(mode: Any) -> None:
    def work(task: int) -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.ones(1).is_inference()

    with mode():
        assert map_tasks(work, 5, CPU) == [(True, False, False)] * 5
