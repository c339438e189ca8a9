"""More tasks from a few: pure functions of a batch of tasks, whose results stay within the ranges of the task space."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools

Mirror = Callable[[Any, np.random.Generator], Any]


def fewer_tasks(pool: Any, count: int, rng: np.random.Generator) -> Any:
    """Return ``count`` tasks of a batch ``pool`` in random order, none of which comes twice more than another."""
    size = task_tools.count_tasks(pool)
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return task_tools.take_tasks(pool, np.concatenate(rounds)[:count])


def mirrored(tasks: Any, share: float, mirror: Mirror, rng: np.random.Generator) -> Any:
    """Return tasks of which a share is replaced by what ``mirror`` makes of them.

    Args:
        tasks: a batch.
        share: the probability with which each task is mirrored.
        mirror: the family's ``mirror_tasks``.
        rng: of the choice, and for ``mirror``.

    Raises:
        ValueError: ``mirror`` returns a batch of another shape.
    """
    chosen = rng.random(task_tools.count_tasks(tasks)) < share
    found = mirror(copy.deepcopy(tasks), rng)  # which may change them in place
    if _shape(found) != _shape(tasks):
        raise ValueError(
            f"mirror_tasks returns a batch of shape {_shape(found)} for tasks of shape {_shape(tasks)}; expected the "
            "same shape, a mirrored task in the place of each"
        )
    return _either(chosen, found, tasks)


def _shape(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _shape(part) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_shape(part) for part in batch)
    try:
        return np.shape(batch)
    except ValueError:  # tasks of several sizes
        return (len(batch),)


def mixed(space: spaces.Space[Any], tasks: Any, share: float, rng: np.random.Generator) -> Any:
    """Return tasks of which a share is mixed with another task of the batch (mixup, Zhang et al. 2018).

    With a weight w that is uniform over [0, 1], a real number becomes ``(1 - w) own + w other``. Whole numbers, choices
    and texts are the other's with probability w, each part of a task by itself.

    Args:
        space: the task space.
        tasks: a batch.
        share: the probability with which each task is mixed.
        rng: of the tasks, partners, weights and choices.
    """
    count = task_tools.count_tasks(tasks)
    chosen = rng.random(count) < share
    others = (np.arange(count) + rng.integers(1, max(count, 2), count)) % count
    weights = np.where(chosen, rng.random(count), 0.0)
    return _mix(space, tasks, task_tools.take_tasks(tasks, others), weights, rng)


def _mix(space: spaces.Space[Any], own: Any, other: Any, weights: NDArray[np.float64], rng: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _mix(part, own[key], other[key], weights, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = zip(space.spaces, own, other, strict=True)
        return tuple(_mix(part, one, another, weights, rng) for part, one, another in parts)
    if is_real(space):
        own, share = np.asarray(own), _beside(weights, own)
        between = (1.0 - share) * own + share * other
        # Where nothing is mixed, not even a bit changes.
        return np.where(share > 0.0, np.clip(between, space.low, space.high), own).astype(own.dtype)
    return _either(rng.random(len(weights)) < weights, other, own)


def perturbed(space: spaces.Space[Any], tasks: Any, deviation: float, rng: np.random.Generator) -> Any:
    """Return tasks whose real numbers have normal noise added, and are reflected at the ends of their ranges.

    Whole numbers, choices and texts stay.

    Args:
        space: the task space, whose boxes of real numbers have ends.
        tasks: a batch.
        deviation: of the noise, in widths of each number's range.
        rng: of the noise.
    """
    if isinstance(space, spaces.Dict):
        return {key: perturbed(part, tasks[key], deviation, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = zip(space.spaces, tasks, strict=True)
        return tuple(perturbed(part, entries, deviation, rng) for part, entries in parts)
    if not is_real(space):
        return tasks
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    noise = deviation * (high - low) * rng.standard_normal(tasks.shape)
    return np.clip(reflected(tasks + noise, low, high).astype(tasks.dtype), space.low, space.high)


def reflected(values: NDArray[Any], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values with what lies beyond an end of a range reflected back into it, as often as necessary.

    >>> reflected(np.array([-0.25, 0.5, 1.25, 2.25]), np.float64(0.0), np.float64(1.0)).tolist()
    [0.25, 0.5, 0.75, 0.25]
    """
    width = high - low
    double = np.where(width > 0.0, 2.0 * width, 1.0)
    folded = np.mod(values - low, double)
    return np.asarray(low + np.minimum(folded, np.where(width > 0.0, double - folded, 0.0)))


def is_real(space: spaces.Space[Any]) -> TypeGuard[spaces.Box]:
    """Whether a space is a box of real numbers."""
    return isinstance(space, spaces.Box) and space.dtype.kind == "f"


def _either(chosen: NDArray[np.bool_], one: Any, other: Any) -> Any:
    """Return a batch with the tasks of ``one`` where they are ``chosen``, else those of ``other``."""
    if isinstance(other, dict):
        return {key: _either(chosen, one[key], part) for key, part in other.items()}
    if isinstance(other, tuple):
        return tuple(_either(chosen, first, second) for first, second in zip(one, other, strict=True))
    return np.where(_beside(chosen, other), one, other)


def _beside(values: NDArray[Any], batch: NDArray[Any]) -> NDArray[Any]:
    """Return values ``[task]`` with axes of length 1 for all other axes of a batch."""
    return values.reshape(-1, *[1] * (batch.ndim - 1))
