"""Intervals of several seeds on the same tasks: the same numbers in tables, files and pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small import small

from metarl.experiments.comparison import difference
from metarl.experiments.reporting.experience import curves
from metarl.results import Evaluation, combine
from metarl.results.aggregates import interval, mean, tasks_of


def test_a_curve_has_the_intervals_of_the_results() -> None:
    together = combine([small(seed=seed).evaluate(n_tasks=6) for seed in (1, 2)])
    (curve,) = curves([("maml", together)])
    entries = together.to_json()["adaptation"]
    assert tasks_of(together) == "common"
    np.testing.assert_allclose(curve.bounds, [[entry["low"], entry["high"]] for entry in entries])


def test_paired_differences_draw_common_tasks_for_all_seeds_at_once() -> None:
    from metarl.experiments.comparison import Entry

    rng = np.random.default_rng(0)
    by_task = rng.normal(size=(1, 2, 5)) * 5 + np.zeros((3, 1, 1))
    made = {"seeds": (1, 2, 3), "episodes": 2, "optimum": None, "environment_steps": None, "seconds": None}
    ours = Entry(label="a", learner="maml", returns=by_task, tasks="common", **made)
    base = Entry(label="b", learner="scratch", returns=0.0 * by_task, tasks="common", **made)
    found = difference(ours, base, 1, 1)
    assert found is not None
    assert (found.low, found.high) == interval(mean, by_task[:, 1], tasks="common")
    own = difference(replace(ours, tasks="own"), base, 1, 1)
    assert own is not None
    assert own.high - own.low < 0.8 * (found.high - found.low)  # they would take one task for three


def test_evaluations_with_fewer_episodes_are_filled_up() -> None:
    one, other = (small(seed=seed).evaluate(n_tasks=3) for seed in (1, 2))
    short = replace(one, metrics={name: values[..., :1] for name, values in one.metrics.items()})
    together = combine([short, other])
    assert np.isnan(together.metrics["return"][0, :, :, 1]).all()
    np.testing.assert_array_equal(together.means()[1], other.means()[0])
    with pytest.raises(ValueError, match="'runs/x' is no evaluation; read one by"):
        combine(["runs/x"])  # type: ignore[list-item]
    assert isinstance(together, Evaluation)
