"""Evaluation: means and intervals on held-out tasks, whatever groups they are played in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small import NAVIGATION, SHORT, small

import metarl


def test_evaluate_does_not_depend_on_how_tasks_are_grouped() -> None:
    one = small().evaluate(n_tasks=7, steps=2)
    other = small(learning={"tasks": 5}).evaluate(n_tasks=7, steps=2)
    np.testing.assert_array_equal(one.returns, other.returns)
    assert one.returns.shape == (3, 7)
    assert not np.array_equal(one.returns, small().evaluate(n_tasks=7, steps=2, seed=8).returns)


def test_evaluation_reports_means_intervals_and_the_optimum() -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 6, seed=1, split="test")
    evaluation = small().evaluate(n_tasks=6)
    results = evaluation.to_json()
    assert json.loads(json.dumps(results)) == results
    env = metarl.make(NAVIGATION, **SHORT)
    optimum = np.mean([env.get_wrapper_attr("oracle_return")(task) for task in tasks])
    assert results["oracle"] == pytest.approx(optimum)
    for entry in results["adaptation"]:
        assert entry["mean"] == pytest.approx(np.mean(entry["per_task"]))
        assert entry["low"] <= entry["mean"] <= entry["high"]
        assert entry["low"] < entry["high"]
    assert [entry["step"] for entry in results["adaptation"]] == [0, 1, 2]
    assert f"{results['oracle']:.2f}" in evaluation.table()
