"""Policies of one's own, by ``module:Class``, go through training, adaptation and checkpoints on the general path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_policies import Linear, Near
from samples import assert_acting_equals_learning
from small import batch, copied, played, same, small
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl import MAML
from metarl.gradients.flat import flatten

NAMES = ["own_policies:Near", "own_policies:Linear"]


@pytest.mark.parametrize("update", ["trpo", "ppo"])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_saved_and_loaded(name: str, update: str, tmp_path: Path) -> None:
    model = small(policy=name, outer={"update": update})
    before = copied(model.parameters)
    assert model.backend.name == "general"
    model.learn(iterations=2)
    assert all(not torch.equal(model.parameters[key], value) for key, value in before.items())
    assert (model.iteration, model.settings.policy.name) == (2, name)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    assert type(loaded.functional_policy) is type(model.functional_policy)
    assert same(loaded.parameters, model.parameters)
    np.testing.assert_array_equal(loaded.evaluate(n_tasks=2).returns, model.evaluate(n_tasks=2).returns)
    assert same(loaded.learn(iterations=1).parameters, model.learn(iterations=1).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_it_acts_as_it_learns_and_adapts_to_a_policy_of_stable_baselines3(name: str) -> None:
    model = small(policy=name)
    rollouts = played(model, batch(model, [0.2, 0.1], [-0.3, 0.4]))
    seen, actions, log_probs = rollouts.observations[:, :, 0], rollouts.actions[:, :, 0], rollouts.log_probs[:, :, 0]
    assert_acting_equals_learning(
        model.functional_policy, model.parameters, seen.numpy(), actions.numpy(), log_probs.numpy(), stacked=False
    )
    adapted = model.adapt([0.2, 0.1], steps=2)
    assert isinstance(adapted, ActorCriticPolicy)
    assert not torch.equal(adapted.log_std, model.policy.log_std)
    assert isinstance(adapted, Near) == (name == "own_policies:Near")


def test_the_mean_of_a_policy_is_what_it_says() -> None:
    observation = np.array([0.3, -0.05], dtype=np.float32)
    linear = small(policy="own_policies:Linear")
    assert isinstance(linear.functional_policy, Linear)
    expected = linear.parameters["matrix"].numpy() @ observation
    np.testing.assert_allclose(linear.predict(observation, deterministic=True)[0], np.clip(expected, -1, 1), rtol=1e-5)
    near = small(policy="own_policies:Near")
    np.testing.assert_array_equal(
        near.predict(observation, deterministic=True)[0],
        near.predict(np.array([0.1, -0.05], dtype=np.float32), deterministic=True)[0],
    )


def test_the_meta_gradient_is_that_of_its_own_distribution() -> None:
    """A Near policy is a perceptron where nothing is clipped: the general path gives what the fast one gives."""
    arguments: dict[str, Any] = {"family_kwargs": {"max_episode_steps": 1}, "outer": {"update": "vpg"}}
    near, plain = small(policy="own_policies:Near", **arguments), small(**arguments)
    assert same(near.parameters, plain.parameters)
    assert (near.backend.name, plain.backend.name) == ("general", "fast")
    before = flatten(plain.parameters.values())
    near.learn(iterations=1)
    plain.learn(iterations=1)
    moved, expected = (flatten(model.parameters.values()) - before for model in (near, plain))
    assert float((moved - expected).norm()) < 1e-2 * float(expected.norm())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "own_policies:Near", "outer": {"path": "fast"}}, "no fast path for this policy"),
        ({"policy": "own_policies:Nowhere"}, "policy 'own_policies:Nowhere' cannot be imported"),
        ({"policy": "nowhere:Near"}, "policy 'nowhere:Near' cannot be imported"),
        ({"policy": "own_policies:LinearActor"}, "is no policy; expected a subclass of"),
        ({"policy": "own_policies:TwoWays"}, "overrides extract_features, which would not be run everywhere"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)
