"""Hooks of learners of one's own: what is forgotten or misspelt is named, and what is allowed works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from small import same, small

from metarl import MAML, BaseLearner
from metarl.agents import LIKELIHOOD_RATIO
from metarl.state import Outcome, State


class Forgetful(MAML):
    """Keeps a tensor of its own and forgets to return it."""

    def initial_tensors(self) -> dict[str, torch.Tensor]:
        return {"mine": torch.zeros(2)}


class Careful(Forgetful):
    """Returns it, changed."""

    def next_state(self, state: State, adaptation: Any, step: Any) -> State:
        following = super().next_state(state, adaptation, step)
        return replace(following, own_tensors={**following.own_tensors, "mine": state.own_tensors["mine"] + 1.0})


def test_a_tensor_that_is_not_returned_is_named_after_the_first_iteration() -> None:
    model = small(Forgetful)
    with pytest.raises(ValueError, match=r"returned the own tensors none, and started from mine.*next_state"):
        model.learn(iterations=2)
    assert model.iteration == 0


def test_a_tensor_of_ones_own_is_kept(tmp_path: Any) -> None:
    model = small(Careful).learn(iterations=2)
    model.save(tmp_path / "own")
    assert torch.equal(Careful.load(tmp_path / "own").state.own_tensors["mine"], torch.full((2,), 2.0))


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Settings that say nothing of unknown keys."""

    learning_rate: float = 0.1


class Still(BaseLearner):
    """Stays as it is."""

    outer_settings = (Plain,)

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        return Outcome(state=state, rollouts=[])


def test_misspelt_settings_of_any_learner_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown setting 'outer.lerning_rate'; the nearest is 'outer.learning_rate'"):
        small(Still, outer={"lerning_rate": 5.0})


class OwnObjective(MAML):
    """Descends an inner objective that it brings along."""

    inner_objective = LIKELIHOOD_RATIO


def test_an_inner_objective_may_be_ones_own() -> None:
    own, named = (
        small(OwnObjective).learn(iterations=2),
        small(MAML, inner={"objective": "likelihood-ratio"}).learn(iterations=2),
    )
    assert same(own.parameters, named.parameters)
    other = small(OwnObjective, inner={"objective": "policy-gradient"}).learn(iterations=2)
    assert same(other.parameters, small(MAML).learn(iterations=2).parameters)


class Nothing(MAML):
    """Adapts a parameter that there is not."""

    def adapting_parameters(self, policy: Any) -> frozenset[str]:
        return frozenset({"action_net.wieght"})


def test_an_adapting_parameter_that_the_policy_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"names 'action_net.wieght', which the policy lacks; it has log_std"):
        small(Nothing)
