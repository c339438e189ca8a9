"""The task axis: every reduction over tasks, and which tasks belong to this share of an iteration.

An iteration's tasks may be dealt to several shares (for example processes), each of which plays and differentiates its
own tasks. Everything that shares exchange passes through this module: a reduction first gathers the contributions of
all tasks in task order, then sums them in that order. So the result is the same to the last bit for any number of
shares.

Tasks are dealt in fixed groups of ``GROUP_SIZE`` consecutive tasks, whole groups to a share. All shares have to make
the same calls of this module in the same order.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents import Rollouts, Samples, pad_time
from metarl.gradients.parallel import map_tasks

GROUP_SIZE = 2


@dataclass(kw_only=True)
class Share:
    """One of several shares of the tasks.

    Attributes:
        index: of this share.
        count: how many shares there are.
        gather: a tensor ``[row, ...]``, and how many rows each share has -> the tensors of all shares, in order; called
            by all shares in the same order.
        deals: False: what is played belongs to this share already.
        rows: how many tasks each share has of those that were dealt last.
    """

    index: int
    count: int
    gather: Callable[[Tensor, Sequence[int]], list[Tensor]]
    deals: bool = True
    rows: tuple[int, ...] = ()


_share: contextvars.ContextVar[Share | None] = contextvars.ContextVar("share of the tasks", default=None)


@contextlib.contextmanager
def dealt_to(share: Share) -> Iterator[None]:
    """Restrict this thread to a share of the tasks."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def is_dealt() -> bool:
    """Return whether this thread is restricted to a share."""
    return _share.get() is not None


def number() -> int:
    """Return the number of this share; 0 if there are no shares."""
    share = _share.get()
    return 0 if share is None else share.index


def parts(group: range) -> list[range]:
    """Return each share's part of a range of tasks; some are empty if it has fewer groups of tasks than shares."""
    share = _share.get()
    if share is None:
        return [group]
    n_groups = -(-len(group) // GROUP_SIZE)
    ends = [n_groups * i // share.count * GROUP_SIZE for i in range(share.count + 1)]
    return [group[first:end] for first, end in itertools.pairwise(ends)]


def refuse_too_many_shares(n_tasks: int, count: int) -> None:
    """Refuse to deal tasks to more shares than there are groups of them.

    Raises:
        ValueError: there are fewer groups of tasks than shares.
    """
    if -(-n_tasks // GROUP_SIZE) < count:
        raise ValueError(
            f"{n_tasks} tasks cannot be dealt to {count} shares in groups of {GROUP_SIZE}; use fewer shares or at "
            f"least {GROUP_SIZE * (count - 1) + 1} tasks"
        )


def own_tasks(n_tasks: int) -> range:
    """Return the numbers of this share's tasks; all tasks if there are no shares.

    Raises:
        ValueError: there are fewer groups of tasks than shares.
    """
    share = _share.get()
    if share is None or not share.deals:
        return range(n_tasks)
    refuse_too_many_shares(n_tasks, share.count)
    dealt = parts(range(n_tasks))
    share.rows = tuple(map(len, dealt))
    return dealt[share.index]


@contextlib.contextmanager
def part_of(group: range) -> Iterator[range]:
    """Yield this share's part of a range of tasks, which is to be played as it is, without dealing it again.

    A share whose part is empty gets the first group of tasks, so that it makes the same calls as the others.
    """
    share = _share.get()
    if share is None:
        yield group
        return
    with dealt_to(replace(share, deals=False)):
        yield parts(group)[share.index] or group[:GROUP_SIZE]


def gather(own: Tensor, rows: Sequence[int] | None = None) -> Tensor:
    """Return the entries of all shares' tasks, ``[task, ...]``, from those of this share's tasks.

    Args:
        own: ``[own task, ...]``.
        rows: how many entries each share has; default: as many as it has tasks of those that were dealt last.
    """
    share = _share.get()
    return own if share is None else torch.cat(share.gather(own, share.rows if rows is None else rows))


def gather_one(own: Tensor) -> Tensor:
    """Return ``[share, ...]`` from one entry of each share."""
    share = _share.get()
    return own[None] if share is None else torch.cat(share.gather(own[None], [1] * share.count))


def gather_rollouts(own: Rollouts, rows: Sequence[int] | None = None) -> Rollouts:
    """Return the rollouts of all shares' tasks in one message, without ``infos``; see ``gather``."""
    if _share.get() is None:
        return own
    tensors: list[Tensor] = []

    def note(part: Tensor) -> Tensor:
        tensors.append(part)
        return part

    plain = replace(own, infos={}).map(note)
    flat = [part.reshape(len(part), math.prod(part.shape[1:])).contiguous().view(torch.uint8) for part in tensors]
    columns = iter(torch.split(gather(torch.cat(flat, dim=1), rows), [part.shape[1] for part in flat], dim=1))
    return plain.map(lambda part: next(columns).contiguous().view(part.dtype).reshape(-1, *part.shape[1:]))


def gather_arrays(own: Mapping[str, NDArray[np.generic]]) -> list[dict[str, NDArray[np.generic]]]:
    """Return each share's arrays by name."""
    share = _share.get()
    if share is None:
        return [dict(own)]
    file = io.BytesIO()
    np.savez(file, **own)  # type: ignore[arg-type]
    block = torch.frombuffer(bytearray(file.getbuffer()), dtype=torch.uint8)
    found = share.gather(block, gather_one(torch.tensor(len(block))).tolist())
    return [dict(np.load(io.BytesIO(part.numpy().tobytes()))) for part in found]


def same_length(own: Rollouts) -> Rollouts:
    """Return this share's rollouts, padded to the longest time of all shares, the length without shares."""
    if _share.get() is None:
        return own
    return pad_time(own, int(gather_one(torch.tensor(own.mask.shape[2])).max()))


def mean(own: Tensor) -> Tensor:
    """Return the mean over all tasks; on the CPU summed one after another, independently of torch's threads.

    Args:
        own: ``[own task, ...]``.
    """
    parts = gather(own)
    if parts.device.type != "cpu":
        return parts.mean(dim=0)
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total / len(parts)


def tree_mean(own: Tensor) -> Tensor:
    """Return the mean over all tasks in torch's order of summation, which is fixed for a number of tasks.

    Args:
        own: ``[own task, ...]``.
    """
    return gather(own).mean(dim=0)


def count(own: int) -> int:
    """Return the sum of an integer over all shares."""
    return own if _share.get() is None else int(gather_one(torch.tensor(own)).sum())


def standardize(own: Tensor) -> Tensor:
    """Return this share's values, standardised with mean and deviation over all tasks; zero if the deviation is.

    Args:
        own: ``[own task]``.
    """
    values = gather(own)
    spread = values.std(correction=0)
    return torch.where(spread > 0, (own - values.mean()) / spread.clamp(min=1e-8), 0.0)


def first_other(own: int) -> int | None:
    """Return the first share that has another number below 2^63 than share 0; None if all have the same."""
    if _share.get() is None:
        return None
    numbers = gather_one(torch.tensor(own))
    return int((numbers != numbers[0]).int().argmax()) or None


def first_not_finite(own: Tensor) -> Tensor:
    """Return the number of the first task whose vector is not finite, else -1; nothing is read back from a GPU.

    Args:
        own: ``[own task, parameter]``.
    """
    faulty = gather((~torch.isfinite(own)).any(dim=1).int())
    return torch.where(faulty.any(), faulty.argmax(), -1)


def mean_over_steps(measure: Callable[[Samples], Tensor], samples: Samples) -> Tensor:
    """Return the mean of a measure over the environment steps of all tasks; on the CPU, task by task to save memory.

    Args:
        measure: samples without a task axis -> ``[sample]``.
        samples: of this share's tasks, ``[task, sample, ...]``.
    """

    def total(part: Samples) -> Tensor:
        return measure(part) @ part.weights

    if samples.weights.device.type != "cpu":
        if _share.get() is None:
            return total(samples.joined()) / samples.weights.sum()
        of_all = gather_one(torch.stack([total(samples.joined()), samples.weights.sum()])).sum(dim=0)
        return of_all[0] / of_all[1]
    n_tasks = samples.weights.shape[0]
    totals = map_tasks(lambda task: total(samples.task(task)), n_tasks, samples.weights.device)
    return gather(torch.stack(totals)).sum() / gather(samples.weights).sum()
