"""How a run scales with its processes: measured on this machine, and computed for others from a model of cost.

``python -m metarl.experiments.benchmarks.ranks [--processes 2] [--tasks 40] [--repeats 7] [--hidden 100]``

It is setting A of ``metarl.experiments.benchmarks.update``: 2-D navigation, tasks x 20 episodes x 100 steps before and
after one inner step. *Strong* scaling keeps the tasks of an iteration, *weak* scaling gives each process as many. Each
process computes with one thread; one process with as many threads is the rival. Times are wall-clock seconds, so
nothing else should run at the same time; beside them stand seconds of the processor, of the process that needs most,
which other programs change little: what is computed, without waiting.

The model of an iteration on P processes, of which each computes its tasks, and then all gather the numbers of all
tasks in a ring (as gloo and NCCL do):

    seconds = rest + work * largest share of the tasks + messages * (P - 1) * latency + bytes * (P - 1) / P / bandwidth
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing

from metarl.distributed import Group, join
from metarl.experiments.benchmarks.iteration import make_model
from metarl.gradients.task_axis import GROUP_SIZE, dealt_to

BLOCK = 4_000_000  # bytes of a long message


@dataclass(frozen=True)
class Network:
    """What messages cost: seconds that one takes to the next process, and bytes a second."""

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Work:
    """What an iteration costs a single process, and what several send.

    Attributes:
        tasks: of an iteration.
        rest: seconds that do not become less with more processes.
        work: seconds that are divided among the tasks.
        messages: in an iteration.
        bytes: of all tasks in an iteration.
    """

    tasks: int
    rest: float
    work: float
    messages: float
    bytes: float


def largest_share(tasks: int, processes: int) -> float:
    """Return the part of the tasks that the process with most of them has.

    >>> largest_share(40, 2), largest_share(40, 3), largest_share(40, 64)
    (0.5, 0.35, 0.05)
    """
    groups = -(-tasks // GROUP_SIZE)
    return min(1.0, math.ceil(groups / processes) * GROUP_SIZE / tasks)


def predicted(work: Work, processes: int, network: Network) -> float:
    """Return the seconds of an iteration by the model.

    >>> predicted(Work(40, 0.0, 1.0, 0.0, 0.0), 2, Network(1e-4, 1e9))
    0.5
    """
    computing = work.rest + work.work * largest_share(work.tasks, processes)
    others = processes - 1
    return computing + work.messages * others * network.latency + work.bytes * others / processes / network.bandwidth


def measure(
    rank: int, processes: int, port: int, hidden: int, tasks: int, repeats: int, threads: int, out: str
) -> None:
    """Write, on rank 0, what an iteration and messages take."""
    place = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(threads)
    group = join(120.0) if processes > 1 else None
    model = make_model(hidden, tasks)
    numbers = iter(range(1, repeats + 2))
    with contextlib.nullcontext() if group is None else dealt_to(group.share):
        model.meta_iteration(model.state, next(numbers))
        before = (0, 0) if group is None else (group.messages, group.bytes)
        began = time.process_time()
        seconds = medians_of(lambda: model.meta_iteration(model.state, next(numbers)), repeats)
        cpu = (time.process_time() - began) / repeats
        sent = (0, 0) if group is None else (group.messages - before[0], group.bytes - before[1])
    found = {"seconds": seconds, "cpu": cpu, "messages": sent[0] / repeats, "bytes": sent[1] / repeats}
    if group is not None:
        found |= network_of(group)
        found["cpu"] = float(torch.stack(group.gather(torch.tensor([cpu]), [1] * processes)).max())
        group.leave()
    model.close()
    if rank == 0:
        Path(out).write_text(json.dumps(found))


def network_of(group: Group) -> dict[str, float]:
    """Return the seconds of a short message to the next process, and the bytes a second of a long one."""
    rows = [1] * group.size
    short = medians_of(lambda: group.gather(torch.zeros(1), rows), 200)
    long = medians_of(lambda: group.gather(torch.zeros(1, BLOCK // 4), rows), 20)
    return {"latency": short / (group.size - 1), "bandwidth": BLOCK * (group.size - 1) / max(long - short, 1e-9)}


def medians_of(call: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def in_processes(processes: int, hidden: int, tasks: int, repeats: int, threads: int = 1) -> dict[str, float]:
    """Return what ``measure`` finds in so many new processes."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port, out = free.getsockname()[1], str(Path(folder) / "found.json")
        free.close()
        torch.multiprocessing.spawn(measure, (processes, port, hidden, tasks, repeats, threads, out), processes)
        found: dict[str, float] = json.loads(Path(out).read_text())
    return found


def work_of(one: dict[str, float], half: dict[str, float], several: dict[str, float], tasks: int) -> Work:
    """Return what an iteration costs, from those of one process with all and with half of the tasks.

    Args:
        one: of one process.
        half: of one process with half as many tasks.
        several: of several processes, which count messages.
        tasks: of ``one``.
    """
    work = min(2.0 * (one["cpu"] - half["cpu"]), one["cpu"])
    return Work(tasks, one["cpu"] - work, work, several["messages"], several["bytes"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, compare with the model, and print what it says of other machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--hidden", type=int, default=100)
    options = parser.parse_args(arguments)
    count, tasks, sizes = options.processes, options.tasks, (options.hidden, options.repeats)

    def run(processes: int, tasks: int, threads: int = 1) -> dict[str, float]:
        return in_processes(processes, sizes[0], tasks, sizes[1], threads)

    one, half, threaded = run(1, tasks), run(1, tasks // 2), run(1, tasks, count)
    strong, weak = run(count, tasks), run(count, tasks * count)
    work = work_of(one, half, strong, tasks)
    twice = Work(tasks * count, work.rest, work.work * count, weak["messages"], weak["bytes"])
    network = Network(strong["latency"], strong["bandwidth"])
    for threads, size, found in ((1, tasks, one), (1, tasks // 2, half), (count, tasks, threaded)):
        print(
            f"one process, {threads} thread(s), {size} tasks: {found['seconds']:.3f} s ({found['cpu']:.3f} s computed)"
        )
    for name, found, model in (("strong", strong, work), ("weak", weak, twice)):
        print(
            f"{name}: {count} processes, {model.tasks} tasks: {found['seconds']:.3f} s measured "
            f"({found['cpu']:.3f} s computed), {predicted(model, count, network):.3f} s by the model; "
            f"{found['messages']:.0f} messages, {found['bytes'] / 1e6:.2f} MB"
        )
    print(f"messages between these processes: {1e6 * network.latency:.0f} us, {network.bandwidth / 1e9:.2f} GB/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
