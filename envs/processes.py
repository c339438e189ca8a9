"""What processes need: how many cores there are, how a child process starts, and that it ends with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from multiprocessing.connection import wait


def core_numbers() -> frozenset[int]:
    """Return the numbers of the cores that this process may use; empty where the system does not tell (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def available_cores() -> int:
    """Return how many cores this process may use; all of the machine's where the system does not tell."""
    return len(core_numbers()) or os.cpu_count() or 1


def may_start_processes() -> bool:
    """Whether this process may start others; a daemonic one, as in ``multiprocessing.Pool``, may not."""
    return not multiprocessing.current_process().daemon


@contextlib.contextmanager
def main_left_alone() -> Iterator[None]:
    """Start new processes without importing this program's main module in them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Start new processes that ignore Ctrl-C, to which only their parent should react."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Wait until the parent process has ended, then end this process, whatever it is doing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
