"""Random numbers for many sub-environments at once, each from a stream of its own.

Making a numpy generator takes longer than a short episode, so the states of all streams are one array here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # what a stream's state advances by with each number


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return words scrambled, one to one.

    Source: the finaliser of SplitMix64, Steele, Lea and Flood 2014.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class Streams:
    """SplitMix64 generators, one for each sub-environment; one without a seed starts at a random state."""

    def __init__(self, count: int) -> None:
        self._state = np.random.default_rng().integers(2**64, size=count, dtype=np.uint64)

    def seed(self, indices: Sequence[int], seeds: Sequence[int]) -> None:
        """Start the streams of sub-environments at their seeds."""
        self._state[indices] = mix(np.array([seed % 2**64 for seed in seeds], dtype=np.uint64))

    def uniform(self, indices: NDArray[np.intp], count: int) -> NDArray[np.float64]:
        """Return the next ``count`` numbers of each of these streams, uniform in [0, 1), ``[len(indices), count]``."""
        steps = np.arange(1, count + 1, dtype=np.uint64) * GAMMA
        states = self._state[indices, None] + steps
        self._state[indices] = states[:, -1]
        return (mix(states) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, indices: NDArray[np.intp], count: int) -> NDArray[np.float64]:
        """Return ``count`` standard normal numbers of each of these streams, ``[len(indices), count]``.

        Source: Box and Muller 1958, the cosine's half.
        """
        radius, angle = np.split(self.uniform(indices, 2 * count), 2, axis=1)
        numbers: NDArray[np.float64] = np.sqrt(-2.0 * np.log1p(-radius)) * np.cos(2.0 * np.pi * angle)
        return numbers
