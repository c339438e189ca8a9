"""The group of processes (ranks) of one run: their messages, and what becomes of them when one fails.

Messages go through ``torch.distributed``: gloo for tensors of the CPU, NCCL for those of GPUs. What a failing rank has
to say goes through the store at which the ranks met.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from metarl.gradients.task_axis import Share

GRACE_SECONDS = 5.0  # how long ranks wait for each other's last words after a failure
_FAILED, _SAID = "failed", "said"


class LostError(RuntimeError):
    """Another rank has ended, or did not answer in time."""


@dataclass(frozen=True)
class Words:
    """What is to be said of a run that could not go on.

    Attributes:
        sentence: what happened.
        status: the exit status of all ranks.
        speaks: whether this rank is the one that says so.
    """

    sentence: str
    status: int
    speaks: bool


def launched() -> bool:
    """Return whether this process is one of several that were started together, as torchrun starts them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


class Group:
    """The ranks of one run, seen from one of them.

    Attributes:
        rank: of this process, from 0.
        size: how many ranks there are.
        messages: how many messages this rank took part in.
        bytes: how many bytes the ranks together contributed to them.
        seconds: how long this rank waited for them.

    Args:
        rank: see above.
        size: see above.
        store: in which all ranks can leave words.
    """

    def __init__(self, rank: int, size: int, store: Store) -> None:
        self.rank, self.size = rank, size
        self.messages = self.bytes = 0
        self.seconds = 0.0
        self._store = store

    @property
    def share(self) -> Share:
        """The rank's share of the tasks."""
        return Share(index=self.rank, count=self.size, gather=self.gather)

    def gather(self, own: Tensor, rows: Sequence[int]) -> list[Tensor]:
        """Return the tensors of all ranks in order, in one message.

        Args:
            own: ``[row, ...]``.
            rows: how many rows each rank has.

        Raises:
            LostError: another rank has ended, or does not answer.
        """
        flat = own.detach().reshape(len(own), own.shape[1:].numel()).contiguous().view(torch.uint8)
        most = max(rows)
        sent = flat.new_zeros((most, flat.shape[1]))
        sent[: len(flat)] = flat
        found = sent.new_empty((self.size * most, flat.shape[1]))
        if sent.numel():
            with self._counted(found.nbytes):
                dist.all_gather(list(found.chunk(self.size)), sent)
        return [
            found[rank * most : rank * most + count].view(own.dtype).reshape(count, *own.shape[1:])
            for rank, count in enumerate(rows)
        ]

    def gather_json(self, own: Any) -> list[Any]:
        """Return what each rank has to tell, each given as what JSON can hold.

        Raises:
            LostError: see ``gather``.
        """
        block = torch.frombuffer(bytearray(json.dumps(own).encode()), dtype=torch.uint8)
        lengths = torch.cat(self.gather(torch.tensor([len(block)]), [1] * self.size)).tolist()
        return [json.loads(bytes(part.tolist())) for part in self.gather(block, lengths)]

    def hand_out(self, given: bytes | None) -> bytes:
        """Return what rank 0 gives; the others give None.

        Raises:
            LostError: see ``gather``.
        """
        block = torch.frombuffer(bytearray(given or b"\0"), dtype=torch.uint8)
        length = torch.tensor([len(block)])
        with self._counted(8):
            dist.broadcast(length, 0)
        block = block if self.rank == 0 else torch.empty(int(length), dtype=torch.uint8)
        with self._counted(block.nbytes):
            dist.broadcast(block, 0)
        return block.numpy().tobytes()

    @contextlib.contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        self.messages += 1
        self.bytes += size
        began = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise LostError(str(error).partition("\n")[0]) from error
        finally:
            self.seconds += time.perf_counter() - began

    def last_words(self, sentence: str, status: int) -> Words:
        """Leave word of a failure of this rank, and return what is to be said of it; this group can do nothing more.

        Rank 0 says it for all; where it does not, this rank does so itself.

        Args:
            sentence: what failed.
            status: the exit status of all ranks.
        """
        self._part()
        own = Words(sentence, status, speaks=True)
        with contextlib.suppress(RuntimeError):  # the store is gone
            self._store.compare_set(_FAILED, "", json.dumps([sentence, status, self.rank]))
            if self.rank == 0:
                self._store.set(_SAID, "")
                return own
            self._store.set(f"alive/{self.rank}", "failed")
            if _until(lambda: self._store.check([_SAID])):
                self._store.set(f"done/{self.rank}", "")
                return replace(own, speaks=False)
        return own

    def what_happened(self, stopped: tuple[str, int] | None = None) -> Words:
        """Find out with the other ranks what ended the run, of which this rank knows no failure of its own.

        This group can do nothing more. It takes at most ``GRACE_SECONDS``.

        Args:
            stopped: what is to be said, and the exit status, if this rank was told to stop by a signal.
        """
        self._part()
        others = [rank for rank in range(self.size) if rank != self.rank]
        told: dict[int, str] = {}
        try:
            self._store.set(f"alive/{self.rank}", f"stopped {stopped[1]}" if stopped else "lost")

            def all_told() -> bool:
                for rank in others:
                    if rank not in told and self._store.check([f"alive/{rank}"]):
                        told[rank] = self._store.get(f"alive/{rank}").decode()
                return len(told) == len(others) or self._store.check([_FAILED])

            _until(all_told)
            if self._store.check([_FAILED]):
                sentence, status, failed = json.loads(self._store.get(_FAILED))
                speaks = self.rank == 0 and not self._store.check([_SAID])
                if speaks:
                    self._store.set(_SAID, "")
                    _until(lambda: self._store.check([f"done/{failed}"]))
                return Words(sentence, status, speaks)
            self._store.set(f"done/{self.rank}", "")
            if self.rank == 0:
                # Where this rank keeps the store, the others can read in it only as long as this one is there.
                _until(lambda: all(self._store.check([f"done/{rank}"]) for rank in told))
        except RuntimeError:
            if 0 not in told:
                return Words("rank 0 has ended without a word, or its machine cannot be reached", 1, self.rank == 1)
        return self._from(told, stopped)

    def _from(self, told: Mapping[int, str], stopped: tuple[str, int] | None) -> Words:
        """Return what happened, from what the ranks that are there say of themselves."""
        speaks = self.rank < min(told, default=self.size)
        missing = [rank for rank in range(self.size) if rank != self.rank and rank not in told]
        if missing:
            which = f"rank {missing[0]}" if len(missing) == 1 else f"ranks {', '.join(map(str, missing))}"
            return Words(f"{which} ended without a word, hangs, or cannot be reached", 1, speaks)
        if stopped:
            return Words(*stopped, speaks)
        ended = {rank: word for rank, word in told.items() if word.startswith("stopped")}
        if 0 in ended:
            return Words("stopped", int(ended[0].split()[1]), speaks)
        if ended:
            return Words(f"rank {min(ended)} was told to stop by a signal", 1, speaks)
        return Words("the connection between the ranks broke, though all of them are there", 1, speaks)

    def _part(self) -> None:
        """Close the connections, so that no other rank goes on waiting for this one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # what ends the others ends this one as well
        if dist.is_initialized():
            dist.destroy_process_group()

    def leave(self) -> None:
        """Wait until all ranks are done, and part, unless a failure has parted them.

        Raises:
            LostError: see ``gather``.
        """
        if dist.is_initialized():
            self.gather(torch.zeros(1), [1] * self.size)
            dist.destroy_process_group()


def _until(done: Callable[[], bool]) -> bool:
    """Wait until something holds, for at most ``GRACE_SECONDS``; return whether it does."""
    deadline = time.monotonic() + GRACE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def join(patience: float) -> Group:
    """Meet the other ranks, at the place that the environment variables of torchrun name.

    Args:
        patience: seconds that a rank may keep the others waiting, also here.

    Raises:
        ValueError: a variable is missing or wrong, the port is in use, or the others do not come.
    """
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if place.startswith(("127.", "localhost:")) and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    timeout = datetime.timedelta(seconds=patience)
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
        dist.init_process_group(
            backend, store=PrefixStore("messages", store), rank=rank, world_size=size, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        if "EADDRINUSE" in str(error):
            reason = "the port is in use"
        raise ValueError(
            f"the processes could not meet at {place}: {reason}; check that WORLD_SIZE processes are started, that "
            "MASTER_ADDR is the machine of rank 0 and reached by all, and that MASTER_PORT is free there"
        ) from error
    return Group(rank, size, store)
