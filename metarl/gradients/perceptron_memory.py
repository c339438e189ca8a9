"""Memory of the fast path: tensors that are used again."""

from __future__ import annotations

import bisect
import threading
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.gradients.alignment import aligned_length, aligned_view
from metarl.gradients.perceptron import Allocator, Weights


class _Buffers(threading.local):
    """Tensors of this thread by tag, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], tuple[Tensor, Tensor]] = {}  # all of it, and the latest view

    def allocate(self, dtype: torch.dtype) -> Allocator:
        def allocate(tag: str, shape: Sequence[int], axes: int = 2) -> Tensor:
            held, latest = self._held.get((tag, dtype), (None, None))
            if latest is None or latest.shape != tuple(shape):
                length = aligned_length(shape, axes, dtype)
                if held is None or len(held) < length:
                    held = torch.empty(length, dtype=dtype)
                latest = aligned_view(held, shape, axes)
                self._held[tag, dtype] = held, latest
            return latest

        return allocate


class Slots(threading.local):
    """Weights of this thread by tag and type, written into again and again: views take long to make."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, frozenset[str] | None, torch.Size, torch.dtype], Weights] = {}


_BUFFERS = _Buffers()


def scratch_of_thread(dtype: torch.dtype) -> Allocator:
    """Return what gives this thread's tensors, which are needed until the next block only."""
    return _BUFFERS.allocate(dtype)


class Store:
    """Tensors that are kept from product to product, and used again in the next iteration.

    New memory costs more than what is computed into it: the system hands it out page by page. Where none that is free
    fits, one of them goes, so that with sizes that change not much more is held than was ever needed at once.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []  # by length
        self._lock = threading.Lock()
        # Apart, since a garbage collection can hand tensors back while this thread holds the lock.
        self._returned: deque[Tensor] = deque()

    def allocate(self, dtype: torch.dtype, owned: list[Tensor]) -> Allocator:
        """Return what gives tensors to be kept, and notes them in ``owned``, for ``give_back``."""

        def allocate(tag: str, shape: Sequence[int], axes: int = 2) -> Tensor:
            length = aligned_length(shape, axes, dtype)
            held = self._fitting(length, dtype)
            if held is None:
                held = torch.empty(length, dtype=dtype)
            owned.append(held)
            return aligned_view(held, shape, axes)

        return allocate

    def give_back(self, owned: list[Tensor]) -> None:
        """Take back tensors that are needed no more."""
        self._returned.extend(owned)

    def free(self) -> list[Tensor]:
        """Return the tensors that are held and not in use."""
        with self._lock:
            return [*self._free, *self._returned]

    def _fitting(self, size: int, dtype: torch.dtype) -> Tensor | None:
        with self._lock:
            while self._returned:
                bisect.insort(self._free, self._returned.popleft(), key=len)
            place = bisect.bisect_left(self._free, size, key=len)
            if place < len(self._free) and len(self._free[place]) <= 2 * size and self._free[place].dtype == dtype:
                return self._free.pop(place)
            if self._free:
                del self._free[-1]
            return None


def new_tensors(vector: Tensor) -> Allocator:
    """Return what makes new tensors of a vector's type: a GPU's memory is handed out without delay."""
    return lambda tag, shape, axes=2: vector.new_empty(shape)
