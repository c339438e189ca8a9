"""Permutations as tasks: which button does what, which word means what; some are held out for testing."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools

LEAST_HELD_OUT = 24  # permutations of four: of fewer, none are held out
MOST = 7  # things to permute


@functools.cache
def permutations_of(count: int, split: str) -> NDArray[np.int64]:
    """Return the permutations of ``count`` things that belong to a split, ``[permutation, count]``.

    A fifth is for testing and another for validation, chosen at random once and for all; where there are fewer than
    24, the splits share them.

    Raises:
        ValueError: ``count`` is above 7.
    """
    if count > MOST:
        raise ValueError(f"{count} things are permuted; expected {MOST} at most")
    found = np.array(list(itertools.permutations(range(count))), np.int64)
    if len(found) < LEAST_HELD_OUT:
        return found
    shuffled = found[np.random.default_rng(0).permutation(len(found))]
    part = task_tools.SPLITS.index(split)
    fifth = np.arange(len(found)) % 5
    return shuffled[fifth == 5 - part] if part else shuffled[fifth < 3]


def draw_permutations(count: int, n: int, rng: np.random.Generator, split: str) -> NDArray[np.int64]:
    """Draw n permutations of a split, ``[n, count]``."""
    own = permutations_of(count, split)
    return own[rng.integers(len(own), size=n)]


def refuse_no_permutation(name: str, given: Any) -> None:
    """Refuse a task's entry that is no permutation.

    Raises:
        ValueError: a number is missing, and so another comes twice.
    """
    numbers = np.asarray(given).tolist()
    if sorted(numbers) != list(range(len(numbers))):
        raise ValueError(
            f"the task's {name} are {numbers}; expected each number from 0 to {len(numbers) - 1} once, in any order"
        )


def interval(name: str, given: Any) -> tuple[float, float]:
    """Return a probability, or the ends of a range of probabilities, as two numbers.

    Raises:
        ValueError: it is neither, or lies outside [0, 1].
    """
    ends = [given, given] if isinstance(given, int | float) else given
    fits = isinstance(ends, list | tuple) and len(ends) == 2
    if not fits or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ValueError(f"{name} is {given!r}; expected a probability or the two ends of a range, as in [0.0, 0.25]")
    if not 0.0 <= ends[0] <= ends[1] <= 1.0:
        raise ValueError(f"{name} is {given!r}; expected probabilities from 0 to 1, the smaller end first")
    return float(ends[0]), float(ends[1])
