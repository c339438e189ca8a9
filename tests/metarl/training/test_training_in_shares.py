"""Training with validation, and an evaluation by each protocol, in several shares: the bits of an undivided run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from shares import in_shares
from small import LENGTHS_DIFFER, same, small
from stable_baselines3.common.logger import Logger

from metarl.learner import BaseLearner
from metarl.learners.registry import LEARNERS, find_learner
from metarl.protocols.evaluate import PROTOCOLS
from metarl.results import Evaluation

# Too many tasks for one batch, and in the last batch fewer groups of them than shares.
EVALUATION = {"every": 1, "tasks": 8, "test_tasks": 7, "shots": [1, 2], "exploration": 1}
LEARNING: dict[str, Any] = {"tasks": 6, "episodes": 2, "check": False}
FURTHER: dict[str, dict[str, Any]] = {
    "multi-task": {"outer": {"components": 5, "epochs": 2}},
    "rl2": {"outer": {"trials": 7, "minibatch_trials": 3}},
}
DEALT = [name for name in LEARNERS if name != "pretrained"]


@pytest.fixture(autouse=True)
def one_thread_each() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner(name: str, **changes: Any) -> Any:
    model = small(name, **{"learning": LEARNING, "evaluation": EVALUATION, "seed": 5, "device": "cpu", **changes})
    model.set_logger(Logger(None, []))
    return model


def trained(model: BaseLearner) -> tuple[BaseLearner, Evaluation]:
    model.learn(iterations=2)
    return model, model.evaluate()


def assert_same(one: Evaluation, other: Evaluation) -> None:
    assert one.to_json() == other.to_json()
    assert list(one.metrics) == list(other.metrics)
    for name, values in one.metrics.items():
        assert np.array_equal(values, other.metrics[name], equal_nan=True), name


@pytest.mark.parametrize("name", DEALT)
def test_a_learner_is_trained_validated_and_tested_to_the_same_bits(name: str) -> None:
    alone, whole = trained(learner(name, **FURTHER.get(name, {})))
    assert alone.best is not None
    for count in (2, 3):
        models = [learner(name, **FURTHER.get(name, {})) for _ in range(count)]
        for model, evaluation in in_shares(lambda index, models=models: trained(models[index]), count):
            assert_same(evaluation, whole)
            assert model.best.score == alone.best.score
            for state, expected in ((model.state, alone.state), (model.best.state, alone.best.state)):
                assert all(same(part, expected.tensors()[kind]) for kind, part in state.tensors().items())
                assert state.digest() == expected.digest()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_played_in_shares_to_the_same_bits(protocol: str) -> None:
    with_ranges = {"family": "metarl/CartPoleParams-v0", "family_kwargs": {"max_episode_steps": 10}}
    family = with_ranges if protocol == "generalization" else {}
    whole = learner("maml", **family).evaluate(protocol=protocol, n_tasks=7)
    models = [learner("maml", **family) for _ in range(3)]
    for found in in_shares(lambda index: models[index].evaluate(protocol=protocol, n_tasks=7), 3):
        assert_same(found, whole)


def test_infos_that_only_some_tasks_tell_are_counted_as_in_an_undivided_run() -> None:
    changes = {"family": "toy_ranks:TellsSometimes", "evaluation": {**EVALUATION, "record": ["speed"]}, "seed": 4}
    alone, whole = trained(learner("maml", **changes))
    assert np.isnan(whole.metrics["speed"]).any(axis=(0, 2, 3)).any()
    assert not np.isnan(whole.metrics["success"]).any()
    models = [learner("maml", **changes) for _ in range(3)]
    for model, evaluation in in_shares(lambda index: trained(models[index]), 3):
        assert_same(evaluation, whole)
        assert same(model.state.parameters, alone.state.parameters)


def test_episodes_of_different_lengths_are_evaluated_in_shares_to_the_same_bits() -> None:
    whole = learner("maml", family=LENGTHS_DIFFER).evaluate()
    models = [learner("maml", family=LENGTHS_DIFFER) for _ in range(3)]
    for found in in_shares(lambda index: models[index].evaluate(), 3):
        assert_same(found, whole)


def test_shares_that_compute_other_bits_are_found_and_named() -> None:
    models = [learner("maml", seed=seed) for seed in (1, 2)]
    with pytest.raises(
        ValueError, match=r"^iteration 1: processes 0 and 1 computed other bits, .*; use machines of one"
    ):
        in_shares(lambda index: models[index].learn(iterations=1))
    assert {model.iteration for model in models} == {0}


def test_a_learner_that_cannot_deal_says_so() -> None:
    assert [name for name in LEARNERS if small(name).dealt_tasks == 0] == ["pretrained"]
    assert {find_learner(name).trains for name in DEALT} == {True, False}
