"""Streams: the published generator, one to a row, whatever is drawn beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.streams import GAMMA, Streams, mix
from metarl.envs.tasks import uniform_tasks

ROWS = np.arange(3)


def seeded(*seeds: int) -> Streams:
    streams = Streams(len(seeds))
    streams.seed(range(len(seeds)), seeds)
    return streams


def test_it_is_splitmix64() -> None:
    """The first numbers of the reference implementation (Vigna, splitmix64.c) from the state 1234567."""
    words = mix(np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * GAMMA)
    assert words.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(0, 2**64 - 1), st.integers(1, 5), st.integers(1, 5))
def test_a_stream_goes_on_where_it_was_and_depends_on_its_seed_only(seed: int, first: int, second: int) -> None:
    whole = seeded(seed).uniform(np.arange(1), first + second)
    streams = seeded(1, seed, 2)
    parts = [streams.uniform(np.array([1]), first)]
    streams.uniform(np.array([0, 2]), 7)
    parts.append(streams.uniform(ROWS, second)[1:2])
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_numbers_are_uniform_and_normal_and_streams_differ() -> None:
    streams = seeded(*range(1000))
    rows = np.arange(1000)
    uniform, normal = streams.uniform(rows, 500), streams.normal(rows, 500)
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    counts = np.histogram(uniform, bins=50, range=(0.0, 1.0))[0]
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 90.0  # chi-squared, 49 degrees of freedom
    assert normal.mean() == pytest.approx(0.0, abs=0.006)
    assert normal.var() == pytest.approx(1.0, abs=0.01)
    assert (normal**4).mean() == pytest.approx(3.0, abs=0.05)
    for numbers in (uniform - 0.5, normal):
        across, along = np.corrcoef(numbers), np.corrcoef(numbers.T)
        assert np.abs(across - np.eye(1000)).max() < 6 / np.sqrt(500)
        assert np.abs(along - np.eye(500)).max() < 6 / np.sqrt(1000)


def test_streams_without_seeds_differ() -> None:
    assert len(np.unique(Streams(100).uniform(np.arange(100), 3))) == 300


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_uniform_tasks_are_the_spaces_own_samples(shape: tuple[int, ...], kind: type[np.floating[Any]]) -> None:
    bounds = np.arange(np.prod(shape, dtype=int), dtype=kind).reshape(shape)
    space = spaces.Box(bounds - 1, 3 * bounds + 0.5, shape, kind)
    drawn = uniform_tasks(space, 5, np.random.default_rng(4))
    space.seed(int(np.random.default_rng(4).integers(2**31)))
    expected = np.stack([space.sample() for _ in range(5)])
    assert drawn.dtype == kind
    np.testing.assert_array_equal(drawn, expected)
