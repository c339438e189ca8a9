"""Pieces of work that several processes do together: each takes what is free, and none does what another has done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from metarl.experiments.processes import Failure, NextCall, in_processes
from metarl.experiments.sharing.claims import FAILED, POLL_SECONDS, Claims
from metarl.experiments.streams import say

TAKEN = "taken"  # what work returns that another process took at the same moment


@dataclass(frozen=True)
class End:
    """A piece of work that has ended: its name, the sentence of a failure or None, and whether it was done here."""

    name: str
    failure: Failure
    here: bool


class _Board:
    """What is left of the work, and what has ended."""

    def __init__(self, calls: Mapping[str, tuple[Any, ...]], claims: Claims, is_done: Callable[[str], bool]) -> None:
        self.left = dict(calls)
        self.ended: list[End] = []
        self._claims, self._is_done = claims, is_done
        self._here: set[str] = set()
        # What failed before this process began is tried again; what fails from now on is not.
        first = {name: claims.state(name) for name in calls}
        self._counts_from = {name: state.number + (not state.held) for name, state in first.items()}

    def next_call(self) -> tuple[str, tuple[Any, ...]] | None:
        """Return the first piece of work that is free, with the arguments for it; None if there is none now."""
        for name in [name for name in self.left if name not in self._here]:
            state = self._claims.state(name)
            if state.held:
                continue
            if self._is_done(name):
                self._end(End(name, None, here=False))
            elif state.ended == FAILED and state.number >= self._counts_from[name]:
                self._end(End(name, state.failure, here=False))
            else:
                self._here.add(name)
                return name, (self._claims, state.number, *self.left[name])
        return None

    def answered(self, name: str, answer: Failure) -> None:
        """Note how work that was done here has ended."""
        self._here.remove(name)
        if answer != TAKEN:
            self._end(End(name, answer, here=True))

    def _end(self, end: End) -> None:
        del self.left[end.name]
        self.ended.append(end)

    def new(self) -> Iterator[End]:
        """Yield what has ended since the last time."""
        while self.ended:
            yield self.ended.pop(0)

    def holders(self) -> str:
        """Return who has what is left."""
        return ", ".join(f"{name} ({self._claims.state(name).holder or 'about to end'})" for name in self.left)


def share(
    work: Callable[..., Failure],
    calls: Mapping[str, tuple[Any, ...]],
    claims: Claims,
    is_done: Callable[[str], bool],
    *,
    parallel: int,
    waits: bool = True,
) -> Iterator[End]:
    """Call ``work(claims, number, *arguments)`` for each of ``calls`` that no other process takes, in their order.

    Yields each that has ended, also those of other processes. What a dead process left is called again. ``work`` has to
    take the claim after ``number`` on it, and to return ``TAKEN`` if it cannot.

    Args:
        work: what is to be done; with ``parallel > 1`` a function that a new process can import.
        calls: name to arguments.
        claims: of all processes that share this work.
        is_done: whether a piece of work needs not be done.
        parallel: how many calls at a time; if more than one, each in its own process with one thread.
        waits: for what other processes have taken; else it ends when nothing is free.
    """
    board = _Board(calls, claims, is_done)
    told = False
    while True:
        answers = (
            in_processes(work, board.next_call, parallel, POLL_SECONDS)
            if parallel > 1
            else _in_turn(work, board.next_call)
        )
        for name, answer in answers:
            board.answered(name, answer)
            yield from board.new()
        yield from board.new()
        if not board.left:
            return
        if not told:
            say(f"{'Waiting for' if waits else 'Left to others:'} {board.holders()}")
            told = True
        if not waits:
            return
        time.sleep(POLL_SECONDS)


def _in_turn(work: Callable[..., Failure], next_call: NextCall) -> Iterator[tuple[str, Failure]]:
    while (call := next_call()) is not None:
        name, arguments = call
        say(f"{name} ...")
        yield name, work(*arguments)
