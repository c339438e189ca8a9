"""Learners of which only a part of the parameters adapts: the head, or a context."""

from __future__ import annotations

import pytest
import torch
from samples import observed
from small import NAVIGATION, SIGN, adapted_to, copied, played, small

import metarl
from metarl.agents.policies.context import CONTEXT
from metarl.gradients.flat import task_parameters


def test_with_all_layers_in_the_head_anil_is_maml() -> None:
    whole = small("anil", outer={"head_layers": 3}).learn(iterations=2)
    for name, value in small("maml").learn(iterations=2).parameters.items():
        torch.testing.assert_close(whole.parameters[name], value)
    with pytest.raises(ValueError, match=r"head_layers is 4, but the policy has 3 layers .* expected at most 3"):
        small("anil", outer={"head_layers": 4})


@pytest.mark.parametrize(
    ("name", "moving"), [("anil", {"log_std", "action_net.weight", "action_net.bias"}), ("cavia", {CONTEXT})]
)
def test_only_the_part_that_adapts_moves_in_adaptation(name: str, moving: set[str]) -> None:
    model = small(name, inner={"step_size": 1.0})
    rollouts = played(model, metarl.sample_tasks(NAVIGATION, 3, seed=1))
    adapted = model.adapted(model.state, model.parameters, rollouts, 0)
    assert model.backend.name == "fast"
    assert {key for key, value in model.parameters.items() if not torch.equal(adapted[key][0], value)} == moving
    before = copied(model.parameters)
    model.learn(iterations=2)
    moved = {key for key, value in before.items() if not torch.equal(model.parameters[key], value)}
    assert moved == set(before) - {CONTEXT}


def test_an_adapted_context_is_a_plain_policy_that_does_the_same() -> None:
    model = small("cavia", inner={"step_size": 1.0}, outer={"context_size": 3}).learn(iterations=1)
    tasks = metarl.sample_tasks(NAVIGATION, 1, seed=1)
    parameters = task_parameters(adapted_to(model, tasks, steps=2, episodes=4), 0)
    assert parameters[CONTEXT].shape == (3,)
    assert (parameters[CONTEXT] != 0).all()
    observations = torch.rand(5, 2)
    mean = model.functional_policy.distribution(parameters, observed(observations)).parameters[0]
    adapted = model.as_policy(parameters, model.state)
    torch.testing.assert_close(adapted.get_distribution(observations).distribution.mean, mean)
    with pytest.raises(ValueError, match="needs a perceptron"):
        small("cavia", family=SIGN, family_kwargs={"observations": "discrete"})
