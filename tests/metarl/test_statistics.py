"""Statistics of episodes, and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.statistics import bootstrap_interval


def test_the_interval_is_repeatable_and_close_to_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_equal_values_have_no_width() -> None:
    assert bootstrap_interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = [low <= 0.0 <= high for low, high in (bootstrap_interval(rng.normal(size=40)) for _ in range(200))]
    assert 0.88 <= np.mean(hits) <= 0.99
