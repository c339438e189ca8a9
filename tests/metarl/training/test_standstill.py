"""Meta-updates that change nothing are said, once, with their likely cause; the family is checked before training."""

from __future__ import annotations

import warnings

import pytest
from small import small

from metarl.training.standstill import FAILED_SEARCHES, ZERO_GRADIENTS, Standstill


def test_rewards_that_nothing_changes_are_said() -> None:
    model = small(family="toy_faults:Huge", family_kwargs={"reward": 1.0})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.learn(iterations=6)
    sentence = "iteration 3: the meta-gradient has been exactly 0 for 3 iterations, so nothing is learned: the rewards"
    assert [str(one.message)[: len(sentence)] for one in said].count(sentence) == 1
    assert sum("meta-gradient" in str(one.message) for one in said) == 1


def test_line_searches_that_fail_in_a_row_are_said_once() -> None:
    watch = Standstill()
    outcomes = [True] * (FAILED_SEARCHES - 1) + [False] + [True] * (FAILED_SEARCHES + 3)
    sentences = [watch.sentence({"train/gradient_norm": 1.0}, failed) for failed in outcomes]
    said = [number for number, sentence in enumerate(sentences) if sentence]
    assert said == [2 * FAILED_SEARCHES - 1]
    assert f"accepted no step for {FAILED_SEARCHES} iterations" in str(sentences[said[0]])


def test_gradients_that_are_zero_now_and_then_are_not_said() -> None:
    watch = Standstill()
    norms = ([0.0] * (ZERO_GRADIENTS - 1) + [1e-30]) * 4
    assert not any(watch.sentence({"train/gradient_norm": norm}, failed_search=False) for norm in norms)


def test_a_learner_checks_its_family_before_it_trains() -> None:
    model = small(family="own_environments:Endless")
    with pytest.raises(ValueError, match="it has no time limit; set one"):
        model.learn(iterations=1)
    assert model.iteration == 0
    deaf = {"family": "own_environments:Deaf", "family_kwargs": {"max_episode_steps": 6}}
    with pytest.warns(UserWarning, match="there is nothing to adapt to") as said:
        small(**deaf).learn(iterations=1)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(**deaf, learning={"check": False}).learn(iterations=1)
