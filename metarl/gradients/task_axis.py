"""The task axis: every reduction over tasks, and which tasks belong to this share of an iteration.

An iteration's tasks may be dealt to several shares (for example processes), each of which plays and differentiates its
own tasks. Everything that shares exchange passes through this module: a reduction first gathers the contributions of
all tasks in task order, then sums them in that order. So the result is the same to the last bit for any number of
shares.

Tasks are dealt in fixed groups of ``GROUP_SIZE`` consecutive tasks, whole groups to a share.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import Rollouts, Samples, pad_time
from metarl.gradients.parallel import map_tasks

GROUP_SIZE = 2


@dataclass(frozen=True)
class Share:
    """One of several shares of the tasks.

    Attributes:
        index: of this share.
        count: how many shares there are.
        gather: a tensor ``[own task, ...]`` -> those of all shares, in order; called by all shares in the same order.
    """

    index: int
    count: int
    gather: Callable[[Tensor], list[Tensor]]


_share: contextvars.ContextVar[Share | None] = contextvars.ContextVar("share of the tasks", default=None)


@contextlib.contextmanager
def dealt_to(share: Share) -> Iterator[None]:
    """Restrict this thread to a share of the tasks."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def own_tasks(n_tasks: int) -> range:
    """Return the numbers of this share's tasks; all tasks if there are no shares.

    Raises:
        ValueError: there are fewer groups of tasks than shares.
    """
    share = _share.get()
    if share is None:
        return range(n_tasks)
    n_groups = -(-n_tasks // GROUP_SIZE)
    if n_groups < share.count:
        raise ValueError(
            f"{n_tasks} tasks cannot be dealt to {share.count} shares in groups of {GROUP_SIZE}; use fewer shares or "
            f"at least {GROUP_SIZE * (share.count - 1) + 1} tasks"
        )
    first, end = (n_groups * i // share.count * GROUP_SIZE for i in (share.index, share.index + 1))
    return range(first, min(end, n_tasks))


def gather(own: Tensor) -> Tensor:
    """Return the entries of all shares' tasks, ``[task, ...]``, from those of this share's tasks."""
    share = _share.get()
    return own if share is None else torch.cat(share.gather(own))


def gather_rollouts(own: Rollouts) -> Rollouts:
    """Return the rollouts of all shares' tasks."""
    return own if _share.get() is None else own.map(gather)


def same_length(own: Rollouts) -> Rollouts:
    """Return this share's rollouts, padded to the longest time of all shares, the length without shares."""
    if _share.get() is None:
        return own
    length = torch.tensor([own.mask.shape[2]])
    return pad_time(own, int(gather(length).max()))


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
    return own if _share.get() is None else int(gather(torch.tensor([own])).sum())


def standardize(own: Tensor) -> Tensor:
    """Return this share's values, standardised with mean and deviation over all tasks; zero if the deviation is.

    Args:
        own: ``[own task]``.
    """
    values = gather(own)
    spread = values.std(correction=0)
    return torch.where(spread > 0, (own - values.mean()) / spread.clamp(min=1e-8), 0.0)


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
        return gather(total(samples.joined())[None]).sum() / gather(samples.weights.sum()[None]).sum()
    n_tasks = samples.weights.shape[0]
    totals = map_tasks(lambda task: total(samples.task(task)), n_tasks, samples.weights.device)
    return gather(torch.stack(totals)).sum() / gather(samples.weights).sum()
