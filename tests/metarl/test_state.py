"""State as a value: an iteration changes nothing, and gives the same bits each time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small import copied, same, small
from torch import Tensor

from metarl.learners.registry import LEARNERS, find_learner
from metarl.state import Outcome, State, advance

TRAINING = [name for name in LEARNERS if find_learner(name).trains]
MORE: dict[str, dict[str, Any]] = {
    "promp": {"outer": {"adaptive": True}},
    "reptile": {"outer": {"optimizer": "adam"}},
    "maml": {"learning": {"normalize_observations": True, "normalize_rewards": True}},
}
COUNTS = ("iteration", "num_timesteps", "line_search_failures")


def tensors(state: State) -> dict[str, dict[str, Tensor]]:
    return {part: copied(named) for part, named in state.tensors().items()}


def assert_same(one: State, tensors_of_other: dict[str, dict[str, Tensor]], other: State) -> None:
    assert one.tensors().keys() == tensors_of_other.keys()
    for part, named in one.tensors().items():
        assert same(named, tensors_of_other[part]), part
    assert [getattr(one, name) for name in COUNTS] == [getattr(other, name) for name in COUNTS]


def played(outcome: Outcome) -> dict[str, Tensor]:
    found = {}
    for step, rollouts in enumerate(outcome.rollouts):
        for name in ("observations", "actions", "log_probs", "rewards", "mask"):
            found[f"{step}/{name}"] = getattr(rollouts, name)
    return found


@pytest.mark.parametrize("name", TRAINING)
def test_an_iteration_leaves_learner_and_state_as_they_are(name: str) -> None:
    model = small(name, **MORE.get(name, {})).learn(iterations=1)  # moments and statistics are no longer empty
    state, before, counts = model.state, tensors(model.state), copy.copy(model.state)
    policy, settings, best = copied(model.functional_policy.parameters()), copy.deepcopy(model.settings), model.best
    best_before = tensors(best.state)
    random = torch.get_rng_state()
    outcome = model.meta_iteration(state, 2)
    assert model.state is state
    assert_same(state, before, counts)
    assert same(policy, model.functional_policy.parameters())
    assert settings == model.settings
    assert model.best is best
    assert_same(best.state, best_before, best.state)
    assert torch.equal(torch.get_rng_state(), random)
    assert not same(outcome.state.parameters, state.parameters)
    # What all learners have in common is counted on by ``advance``, which changes no argument either.
    ahead, counts = tensors(outcome.state), copy.copy(outcome.state)
    following = advance(outcome, gamma=0.99, log_std_min=-1.6)
    assert_same(outcome.state, ahead, counts)
    assert following.iteration == state.iteration + 1 == 2
    assert following.num_timesteps > state.num_timesteps


@pytest.mark.parametrize("name", TRAINING)
def test_an_iteration_from_the_same_state_gives_the_same_bits(name: str) -> None:
    model = small(name, **MORE.get(name, {}))
    first, second = (model.meta_iteration(model.state, 1) for _ in range(2))
    assert_same(first.state, tensors(second.state), second.state)
    assert first.metrics == second.metrics
    assert same(played(first), played(second))
    # Also after others, and by another learner of the same settings.
    model.meta_iteration(first.state, 2)
    model.evaluate(n_tasks=2)
    again, other = model.meta_iteration(model.state, 1), small(name, **MORE.get(name, {}))
    assert_same(first.state, tensors(again.state), again.state)
    elsewhere = other.meta_iteration(other.state, 1)
    assert_same(first.state, tensors(elsewhere.state), elsewhere.state)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_tensors_that_do_not_fit_a_state_are_refused(change: str) -> None:
    state = small().state
    given = tensors(state)
    if change == "missing":
        given["parameters"].pop("log_std")
    elif change == "more":
        given["extra"]["moments"] = torch.zeros(3)
    else:
        given["parameters"]["log_std"] = torch.zeros(7)
    with pytest.raises(ValueError, match="do not fit its policy; it was damaged or edited"):
        state.restored(given)
    assert_same(state.restored(tensors(state)), tensors(state), state)
