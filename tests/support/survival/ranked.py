"""Runs of several processes that are forked on this machine, with the variables that torchrun would give them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import forked

Done = subprocess.CompletedProcess[str]


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    count: int, *arguments: str, cwd: Path, others: Mapping[int, list[str]] | None = None, **variables: str
) -> list[forked.Process]:
    """Begin the command in so many processes that meet at a free port; they are in the order of their ranks.

    Args:
        count: how many.
        arguments: of the command.
        cwd: the folder.
        others: by rank, other arguments.
        variables: further environment variables.
    """
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    found = []
    for rank in range(count):
        known = {**place, "RANK": str(rank), "OMP_NUM_THREADS": "1", **variables}
        code = f"import os; os.environ.update({known!r})\n{forked.COMMAND}"
        found.append(forked.start(*(others or {}).get(rank, arguments), cwd=cwd, code=code))
    return found


def run(
    count: int, *arguments: str, cwd: Path, others: Mapping[int, list[str]] | None = None, **variables: str
) -> list[Done]:
    """Run the command in so many processes; return their status and what they printed, in the order of their ranks."""
    started = start(count, *arguments, cwd=cwd, others=others, **variables)
    return [process.finish(120.0) for process in started]
