"""Memory of the fast path: tensors that are reused, with each task's part at an aligned address."""

from __future__ import annotations

import bisect
import math
import threading
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.gradients.perceptron import Allocator, Weights

# The last bit of a matrix product can depend on the address at which a matrix begins. So each task's matrix begins at a
# multiple of this many bytes, whether the task is computed alone or with others.
ALIGNMENT = 64


def aligned_length(shape: Sequence[int], axes: int, dtype: torch.dtype) -> int:
    """Return how many numbers of memory ``aligned_view`` needs."""
    each = ALIGNMENT // dtype.itemsize
    return math.prod(shape[:-axes]) * -(-math.prod(shape[-axes:]) // each) * each


def aligned_view(held: Tensor, shape: Sequence[int], axes: int) -> Tensor:
    """Return a view with a shape into memory that is long enough; each task's last ``axes`` axes are aligned."""
    own, tasks = math.prod(shape[-axes:]), math.prod(shape[:-axes])
    length = aligned_length(shape, axes, held.dtype)
    return held[:length].view(tasks, length // tasks)[:, :own].view(*shape[:-axes], *shape[-axes:])


def aligned(like: Tensor) -> Tensor:
    """Return an uninitialised tensor with a vector's shape ``[..., parameter]`` and type, each task's part aligned."""
    if like.device.type != "cpu" or like.dim() == 1:
        return like.new_empty(like.shape)
    return aligned_view(like.new_empty(aligned_length(like.shape, 1, like.dtype)), like.shape, 1)


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
