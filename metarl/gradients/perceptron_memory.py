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
    """This thread's tensors by tag, reused from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype], tuple[Tensor, Tensor]] = {}  # the whole memory, and the latest view

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
    """This thread's weights by tag and type, which are overwritten again and again, since making views is slow."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, frozenset[str] | None, torch.Size, torch.dtype], Weights] = {}


_BUFFERS = _Buffers()


def scratch_of_thread(dtype: torch.dtype) -> Allocator:
    """Return an allocator of this thread's tensors, which may be overwritten by the next block."""
    return _BUFFERS.allocate(dtype)


class Store:
    """Tensors that are kept between products, and whose memory is reused in the next iteration.

    New memory takes longer than the computation that fills it, since the operating system provides it page by page. If
    no free tensor fits, the largest one is dropped: so if sizes change, not much more memory is held than was ever
    needed at once.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []  # by length
        self._lock = threading.Lock()
        # Not in _free, since garbage collection can return tensors while this thread holds the lock.
        self._returned: deque[Tensor] = deque()

    def allocate(self, dtype: torch.dtype, owned: list[Tensor]) -> Allocator:
        """Return an allocator of tensors to keep, which appends them to ``owned``, for ``give_back``."""

        def allocate(tag: str, shape: Sequence[int], axes: int = 2) -> Tensor:
            length = aligned_length(shape, axes, dtype)
            held = self._fitting(length, dtype)
            if held is None:
                held = torch.empty(length, dtype=dtype)
            owned.append(held)
            return aligned_view(held, shape, axes)

        return allocate

    def give_back(self, owned: list[Tensor]) -> None:
        """Make the memory of tensors that are no longer needed available again."""
        self._returned.extend(owned)

    def free(self) -> list[Tensor]:
        """Return the tensors that are held but not in use."""
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
    """Return an allocator of new tensors with a vector's type, for a GPU, where torch reuses memory itself."""
    return lambda tag, shape, axes=2: vector.new_empty(shape)
