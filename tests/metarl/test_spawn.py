"""Training works in a process that was started with ``spawn``, as on macOS and Windows."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

from small import small


def learn(queue: Any) -> None:
    model = small().learn(iterations=1)
    queue.put((os.getpid(), model.parameters["log_std"].tolist()))


def test_a_spawned_process_learns_the_same() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=learn, args=(queue,))
    process.start()
    pid, spawned = queue.get(timeout=120)
    process.join(timeout=60)
    assert process.exitcode == 0
    assert pid != os.getpid()
    local = multiprocessing.get_context("spawn").SimpleQueue()
    learn(local)
    assert local.get() == (os.getpid(), spawned)
