"""What all meta-learners have in common: they go on where they were saved, log what is documented, share tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import NAVIGATION, copied, same, small
from stable_baselines3.common.logger import KVWriter, Logger

import metarl
from metarl.learners.registry import LEARNERS, find_learner, load_learner

UPDATES = [
    (name, getattr(outer, "update", None), steps)
    for name in LEARNERS
    if find_learner(name).trains
    for steps, outer in enumerate(find_learner(name).outer_settings, start=1)
]


@pytest.mark.parametrize(("name", "update", "steps"), UPDATES)
def test_a_learner_that_was_saved_goes_on_with_the_same_bits(
    name: str, update: str | None, steps: int, tmp_path: Path
) -> None:
    outer: dict[str, Any] = {"promp": {"adaptive": True}, "reptile": {"optimizer": "adam"}}.get(name, {})
    if update is not None:
        outer["update"] = update
    model = small(name, inner={"steps": steps}, outer=outer).learn(iterations=1)
    model.save(tmp_path / "model")
    loaded = load_learner(tmp_path / "model")
    assert type(loaded) is type(model)
    assert same(loaded.state.own_tensors, model.state.own_tensors)
    before = copied(model.parameters)
    model.learn(iterations=1)
    loaded.learn(iterations=1)
    assert same(model.parameters, loaded.parameters)
    assert same(model.state.own_tensors, loaded.state.own_tensors)
    assert not same(model.parameters, before)
    model.save_best(tmp_path / "best")
    best = load_learner(tmp_path / "best").best.state.own_tensors
    np.testing.assert_array_equal(best.keys(), model.best.state.own_tensors.keys())


class Tags(KVWriter):
    def __init__(self) -> None:
        self.tags: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.tags |= set(key_values)

    def close(self) -> None:
        pass


def test_what_only_some_learners_log_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs/tensorboard.md").read_text()
    documented = set(re.findall(r"^\| ([a-z0-9-]+) \| `([a-z_/]+)`", page, flags=re.MULTILINE))
    logged = {}
    for name in LEARNERS:
        model = small(name)
        writer = Tags()
        model.set_logger(Logger(None, [writer]))
        model.learn(iterations=1)
        logged[name] = writer.tags
    assert {(name, tag) for name, tags in logged.items() for tag in tags - logged["maml"]} == documented


def test_the_test_tasks_of_a_seed_are_the_same_for_all_learners() -> None:
    tasks = {}
    for name in LEARNERS:
        model = small(name)
        tasks[name] = np.stack(model.evaluate_rollouts("test", n_tasks=3)[1])
        model.close()
    for name, drawn in tasks.items():
        np.testing.assert_array_equal(drawn, metarl.sample_tasks(NAVIGATION, 3, seed=1, split="test"), err_msg=name)
