"""Statistics over seeds and tasks: values by hand, a plain loop, and what holds for any scores."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metarl.results.aggregates import (
    interquartile_mean,
    interval,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    resampled,
    share_of_the_way,
)
from metarl.statistics import RESAMPLES, bootstrap_interval

SCORES = np.array([[0.0, 1.0, 5.0, 8.0], [2.0, 3.0, 4.0, 100.0]])


def scores(seeds: int | None = None) -> st.SearchStrategy[np.ndarray]:
    """Return scores ``[seed, task]`` of a few seeds and tasks."""
    shapes = st.tuples(st.integers(1, 4) if seeds is None else st.just(seeds), st.integers(1, 9))
    numbers = st.floats(-1e3, 1e3, allow_nan=False)
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=numbers))


def test_values_by_hand() -> None:
    # Sorted: 0 1 2 3 4 5 8 100; without two at each end: 2 3 4 5.
    assert interquartile_mean(SCORES) == 3.5
    # Means of the tasks over seeds: 1, 2, 4.5, 54.
    assert median(SCORES) == 3.25
    assert mean(SCORES) == 123 / 8
    before, optimum = np.zeros((2, 4)), np.full((2, 4), 20.0)
    assert share_of_the_way(SCORES, before, optimum) == pytest.approx(123 / 160)
    assert optimality_gap(SCORES, before, optimum) == pytest.approx(37 / 160)
    np.testing.assert_array_equal(performance_profile(SCORES, np.array([-1.0, 3.0, 99.0, 100.0])), [1, 0.5, 0.125, 0])


def test_the_gap_is_0_at_the_optimum_1_without_gain_and_nothing_without_room() -> None:
    before, optimum = np.array([[-10.0, -20.0]]), np.array([[-2.0, -4.0]])
    assert optimality_gap(optimum, before, optimum) == 0.0
    assert optimality_gap(before, before, optimum) == 1.0
    assert optimality_gap(before - 12.0, before, optimum) == 2.0
    assert np.isnan(optimality_gap(optimum, optimum, optimum))


def test_improvement_by_hand_with_ties_halved() -> None:
    ours, theirs = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [2.0, 9.0]])
    # Pairs of the same seed: 1 < 2, 5 = 5, 3 > 2, 5 < 9.
    assert probability_of_improvement(ours, theirs) == 1.5 / 4
    # Task 0, all pairs: 1 < 2, 1 < 2, 3 > 2, 3 > 2; task 1: =, <, =, <.
    assert probability_of_improvement(ours, theirs, same_tasks=True) == (2 / 4 + 1 / 4) / 2
    with pytest.raises(ValueError, match="expected the same tasks"):
        probability_of_improvement(ours, theirs[:, :1])
    with pytest.raises(ValueError, match="seeds in pairs"):
        probability_of_improvement(ours, theirs[:1])


@settings(deadline=None)
@given(scores())
def test_statistics_agree_with_plain_loops(values: np.ndarray) -> None:
    flat = sorted(values.reshape(-1).tolist())
    cut = len(flat) // 4
    assert interquartile_mean(values) == pytest.approx(statistics.fmean(flat[cut : len(flat) - cut]), abs=1e-9)
    by_task = [statistics.fmean(column) for column in values.T.tolist()]
    assert median(values) == pytest.approx(statistics.median(by_task), abs=1e-9)
    shares = performance_profile(values, np.array(flat))
    assert shares.tolist() == pytest.approx([sum(one > other for one in flat) / len(flat) for other in flat])


@settings(deadline=None)
@given(scores(3), scores(3))
def test_improvement_agrees_with_a_loop_over_pairs_and_is_complementary(one: np.ndarray, other: np.ndarray) -> None:
    tasks = min(one.shape[1], other.shape[1])
    one, other = one[:, :tasks], other[:, :tasks]
    won = [
        1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
        for task in range(tasks)
        for ours, theirs in itertools.product(one[:, task].tolist(), other[:, task].tolist())
    ]
    assert probability_of_improvement(one, other, same_tasks=True) == pytest.approx(statistics.fmean(won))
    for same in (True, False):
        both = [probability_of_improvement(*pair, same_tasks=same) for pair in ((one, other), (other, one))]
        assert sum(both) == pytest.approx(1.0)
        assert probability_of_improvement(one, one, same_tasks=same) == pytest.approx(0.5)


@settings(max_examples=15, deadline=None)
@given(scores(), st.floats(0.1, 10.0), st.floats(-100.0, 100.0))
def test_intervals_lie_within_the_scores_and_follow_scale_and_shift(
    values: np.ndarray, factor: float, shift: float
) -> None:
    for statistic in (mean, median, interquartile_mean):
        low, high = interval(statistic, values)
        assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
        moved = interval(statistic, factor * values + shift)
        assert moved == pytest.approx((factor * low + shift, factor * high + shift), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 30), (4, 30)])
def test_the_interval_of_the_mean_is_that_of_results(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    assert interval(mean, values) == pytest.approx(bootstrap_interval(values), abs=1e-12)


@pytest.mark.parametrize("tasks", ["own", "common", "fixed"])
def test_intervals_are_those_of_a_plain_loop_over_resamples(tasks: str) -> None:
    values = np.random.default_rng(2).gamma(2.0, size=(3, 7))
    seeds, chosen = resampled(RESAMPLES, 3, 7, tasks)  # type: ignore[arg-type]
    found = []
    for number in range(RESAMPLES):
        drawn = sorted(
            float(values[seeds[number, seed, task], chosen[number, seed, task]])
            for seed in range(3)
            for task in range(7)
        )
        found.append(statistics.fmean(drawn[5:16]))
    expected = np.quantile(found, [0.025, 0.975])
    assert interval(interquartile_mean, values, tasks=tasks) == pytest.approx(tuple(expected))  # type: ignore[arg-type]


def test_what_is_resampled() -> None:
    seeds, tasks = resampled(50, 3, 5, "own")
    assert (seeds == seeds[:, :, :1]).all(), "a seed is drawn as a whole"
    assert len(np.unique(seeds)) == 3
    assert (tasks[:, 0] != tasks[:, 1]).any()
    seeds, tasks = resampled(50, 3, 5, "common")
    assert (seeds == seeds[:, :, :1]).all()
    assert (tasks == tasks[:, :1]).all(), "all seeds have the tasks that were drawn"
    seeds, tasks = resampled(50, 3, 5, "fixed")
    assert (tasks == np.arange(5)).all(), "the tasks stay"
    assert (seeds != seeds[:, :, :1]).any(), "seeds are drawn for each task"
    for kind in ("own", "common", "fixed"):
        seeds, tasks = resampled(50, 1, 5, kind)
        assert (seeds == 0).all()
        assert (tasks != np.arange(5)).any(), "a single seed gets an interval over tasks"


def test_an_interval_of_common_tasks_is_as_wide_as_tasks_differ() -> None:
    rng = np.random.default_rng(3)
    of_tasks = rng.normal(size=40)
    values = np.stack([of_tasks + 0.01 * rng.normal(size=40) for _ in range(5)])
    half = 1.96 * of_tasks.std() / np.sqrt(40)
    low, high = interval(mean, values, tasks="common")
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    fixed = interval(mean, values, tasks="fixed")
    assert fixed[1] - fixed[0] < 0.1 * (high - low)


def test_values_and_intervals_are_those_of_rliable() -> None:
    """What rliable 1.2.0 (with pandas 2, in an environment of its own, 20,000 resamples) gave for the same scores."""
    ours = np.random.default_rng(4).gamma(2.0, size=(5, 12))
    theirs = np.random.default_rng(5).gamma(2.2, size=(5, 12))
    for statistic, value, low, high in (
        (mean, 1.86575312, 1.5735006, 2.17361443),
        (median, 1.83153237, 1.29423032, 2.17794016),
        (interquartile_mean, 1.52140621, 1.21290545, 1.89428719),
    ):
        assert statistic(ours) == pytest.approx(value, abs=1e-8)
        assert interval(statistic, ours, tasks="fixed") == pytest.approx((low, high), abs=0.03)
    assert probability_of_improvement(ours, theirs, same_tasks=True) == pytest.approx(0.4466666666666666)
    shares = [1.0, 0.61666667, 0.33333333, 0.2, 0.08333333, 0.03333333, 0.0]
    np.testing.assert_allclose(performance_profile(ours, np.linspace(0, 6, 7)), shares, atol=1e-8)
