"""Evaluation: means and intervals on held-out tasks, whatever groups they are played in."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from small import NAVIGATION, SHORT, same, small
from stable_baselines3 import A2C

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


def test_the_table_says_how_much_experience_adaptation_had_and_how_training_differs() -> None:
    model = small(learning={"episodes": 5}, evaluation={"episodes": 1})
    line = "adapted with 1 episode a step, up to 2 steps; trained with 5 episodes and 1 step"
    assert line in model.evaluate().table().splitlines()
    assert model.evaluate(episodes=5, steps=1).table().splitlines()[2].endswith("up to 1 step, as in training")
    assert "trained with" not in small("scratch").evaluate().table()


def test_adaptation_takes_its_budget_from_the_settings_of_evaluation() -> None:
    model = small(evaluation={"episodes": 2, "steps": 2})
    task = [0.2, 0.1]
    expected = model.adapt(task, steps=2, episodes=2).state_dict()
    assert same(model.adapt(task).state_dict(), expected)
    assert not same(model.adapt(task, steps=1).state_dict(), expected)
    assert not same(model.adapt(task, episodes=4).state_dict(), expected)
    env = metarl.make(NAVIGATION, task=task, **SHORT)
    assert same(model.adapt(env).state_dict(), model.adapt(env, steps=2, episodes=2).state_dict())
    adapter = model.adapter(env)
    for _ in range(5):
        adapter.play()
    assert [len(part) for part in adapter.returns] == [2, 2, 1]
    assert same(model.to_sb3(A2C, task).policy.action_net.state_dict(), model.adapt(task).action_net.state_dict())


def test_tasks_that_were_trained_on_are_named_once(tmp_path: Path) -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 4, seed=1)
    held_out = metarl.sample_tasks(NAVIGATION, 2, seed=1, split="test")
    model = small()
    model.evaluate(tasks=tasks)  # of no training yet; warnings are errors here
    model.learn(iterations=1, tasks=tasks)
    model.evaluate(tasks=held_out)
    model.save(tmp_path / "model")
    for known in (model, metarl.MAML.load(tmp_path / "model"), copy.deepcopy(model)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            known.evaluate(tasks=[*tasks[:3], held_out[0]])
            known.evaluate(tasks=[*tasks[:3], held_out[0]])
        (warning,) = caught
        assert str(warning.message).startswith("3 of the 4 tasks of this evaluation were given to learn")
        assert warning.filename == __file__
    with pytest.warns(UserWarning, match="^all 4 tasks"):
        model.evaluate(tasks=tasks)
    with pytest.raises(ValueError, match="trains on new tasks of the family only"):
        (baseline := small("pretrained")).learn(iterations=1, tasks=tasks)
    baseline.evaluate(tasks=tasks)


def test_tasks_are_drawn_to_train_on_unless_a_split_is_named() -> None:
    drawn = metarl.sample_tasks(NAVIGATION, 5, seed=1)
    np.testing.assert_array_equal(drawn, metarl.sample_tasks(NAVIGATION, 5, seed=1, split="train"))
    assert not np.isin(drawn, metarl.sample_tasks(NAVIGATION, 5, seed=1, split="test")).any()
