"""Structured pruning: smaller networks, of which neurons that pass nothing on leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import NAVIGATION, same, small
from stable_baselines3 import DQN, PPO
from torch import nn

import metarl
from metarl import MetaLearner, Prune
from metarl.agents.policies import Layer
from metarl.shrinking.neurons import importance, kept_neurons, without_neurons

LAYERS = [Layer(f"{n}.weight", f"{n}.bias", kind) for n, kind in (("a", nn.Tanh), ("b", nn.ReLU), ("c", None))]


def output(parameters: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Return the output of a perceptron with three layers."""
    hidden = rows
    for layer in LAYERS:
        hidden = nn.functional.linear(hidden, parameters[layer.weight], parameters[layer.bias])
        hidden = hidden if layer.activation is None else layer.activation()(hidden)
    return hidden


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_neurons_that_pass_nothing_on_leave_no_trace(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    first, second = data.draw(st.integers(2, 7)), data.draw(st.integers(2, 7))
    shapes = {"a": (first, 3), "b": (second, first), "c": (2, second)}
    parameters = {}
    for name, shape in shapes.items():
        parameters[f"{name}.weight"] = torch.randn(*shape, dtype=torch.float64)
        parameters[f"{name}.bias"] = torch.randn(shape[0], dtype=torch.float64)
    dead = 0
    for own, following, width in (("a", "b", first), ("b", "c", second)):
        for neuron in data.draw(st.sets(st.integers(0, width - 2), max_size=width - 1)):
            dead += 1
            if data.draw(st.booleans()):
                parameters[f"{own}.weight"][neuron] = 0.0
            else:
                parameters[f"{following}.weight"][:, neuron] = 0.0
    scores = importance(LAYERS, parameters)
    kept = kept_neurons(scores, dead / (first + second), "global")
    smaller = without_neurons(LAYERS, parameters, kept)
    assert sum(len(part) for part in kept) == first + second - dead
    rows = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(output(smaller, rows), output(parameters, rows))


@given(st.floats(0.0, 0.999), st.sampled_from(["global", "layer"]))
def test_every_layer_keeps_a_neuron_and_the_share_is_kept(amount: float, scope: Any) -> None:
    scores = [torch.arange(1.0, 6.0), torch.full((3,), 1e-9)]
    kept = kept_neurons(scores, amount, scope)
    assert all(len(part) >= 1 for part in kept)
    if scope == "layer":
        assert [len(part) for part in kept] == [max(1, 5 - round(5 * amount)), max(1, 3 - round(3 * amount))]
        assert kept[0].tolist() == list(range(5 - len(kept[0]), 5))


def test_a_pruned_learner_is_smaller_and_goes_on(tmp_path: Path) -> None:
    model = small().learn(iterations=1)
    pruned = Prune(model, 0.5, scope="layer")
    assert [tuple(shape) for name, shape in pruned.functional_policy.shapes.items() if name.endswith("weight")] == [
        (3, 2),
        (3, 3),
        (2, 3),
    ]
    assert same(pruned.state.critic, model.state.critic)
    assert same(model.parameters, Prune(model, 0.0).parameters)
    pruned.save(tmp_path / "pruned.zip")
    again = type(model).load(tmp_path / "pruned.zip")
    assert same(again.learn(iterations=1).parameters, pruned.learn(iterations=1).parameters)
    assert pruned.backend.name == "fast"
    behind = small(policy_kwargs={"features_extractor_class": "networks:Wide", "freeze": "extractor"})
    halved = Prune(behind)
    assert same(halved.functional_policy.buffers(), behind.functional_policy.buffers())
    assert sum(value.numel() for value in halved.parameters.values()) < sum(
        value.numel() for value in behind.parameters.values()
    )


@pytest.mark.parametrize("by", ["neurons", "weights"])
def test_a_pruned_learner_knows_on_which_tasks_it_was_trained(by: Any) -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 3, seed=1)
    pruned = Prune(small().learn(iterations=1, tasks=tasks), 0.5, by=by)
    with pytest.warns(UserWarning, match="were given to learn"):
        pruned.evaluate(tasks=tasks, episodes=1, steps=1)


def test_a_pruned_model_of_stable_baselines3_is_one(tmp_path: Path) -> None:
    model = PPO(
        "MlpPolicy",
        metarl.sb3.make_vec_env(NAVIGATION, 2, max_episode_steps=8),
        n_steps=8,
        batch_size=16,
        policy_kwargs={"net_arch": [8, 6]},
        seed=1,
    )
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    pruned = Prune(model, amount=0.5)
    assert same(model.policy.state_dict(), before)
    widths = [layer.out_features for layer in pruned.policy.mlp_extractor.policy_net if isinstance(layer, nn.Linear)]
    assert sum(widths) == 7
    pruned.learn(16)
    pruned.save(tmp_path / "pruned.zip")
    again = PPO.load(tmp_path / "pruned.zip")
    seen = np.zeros((3, 2), np.float32)
    np.testing.assert_array_equal(
        again.predict(seen, deterministic=True)[0], pruned.predict(seen, deterministic=True)[0]
    )
    learner = MetaLearner(Prune(model, 0.25), NAVIGATION, learning={"tasks": 2, "episodes": 2, "iterations": 1})
    assert learner is not None
    assert metarl.MAML.from_pretrained(tmp_path / "pruned.zip", NAVIGATION).functional_policy.layers is not None


@pytest.mark.parametrize("amount", [1.0, -0.1, float("nan"), True, "half"])
def test_a_wrong_amount_is_one_sentence(amount: Any) -> None:
    with pytest.raises(ValueError, match=r"^amount is .*; expected a share from 0 to below 1, as 0\.5; 1 would prune"):
        Prune(small(), amount)


def test_what_cannot_be_pruned_is_one_sentence() -> None:
    for learner in (small(policy_kwargs={"hidden_sizes": ()}), small(policy_kwargs={"lora_rank": 2}), small("cavia")):
        with pytest.raises(
            ValueError, match=r"^the actor has no hidden layers that can be pruned; expected a perceptron"
        ):
            Prune(learner)
    with pytest.raises(ValueError, match=r"^str cannot be pruned; expected a learner, or a PPO or A2C model"):
        Prune("ppo.zip")
    with pytest.raises(ValueError, match=r"^scope is 'all'; expected 'global' or 'layer'"):
        Prune(small(), scope="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^DQN cannot be pruned"):
        Prune(DQN("MlpPolicy", "CartPole-v1", buffer_size=10))


def zeros(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return where weights are 0."""
    return {name: value == 0.0 for name, value in parameters.items() if name.endswith("weight")}


@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "reptile", "fomaml"])
def test_pruned_weights_stay_zero_in_all_updates(learner: str, tmp_path: Path) -> None:
    model = small(learner, policy_kwargs={"prune": 0.4})
    before = zeros(model.parameters)
    count = sum(part.numel() for part in before.values())
    assert sum(int(part.sum()) for part in before.values()) == round(0.4 * count)
    shared = {name: value.clone() for name, value in model.parameters.items()}
    model.learn(iterations=2)
    assert same(zeros(model.parameters), before)
    assert not torch.equal(model.parameters["action_net.weight"], shared["action_net.weight"])
    model.save(tmp_path / "model.zip")
    again = type(model).load(tmp_path / "model.zip").learn(iterations=1)
    assert same(zeros(again.parameters), before)
    policy = again.adapt(metarl.sample_tasks(NAVIGATION, 1, seed=1)[0])
    assert type(policy.action_net) is nn.Linear
    assert same(zeros({name: dict(policy.named_parameters())[name] for name in before}), before)


def test_masks_are_of_all_layers_together_or_of_each_and_a_learner_is_pruned_as_it_is() -> None:
    model = small().learn(iterations=1)
    each = Prune(model, 0.5, by="weights", scope="layer")
    assert [int(part.sum()) for part in zeros(each.parameters).values()] == [6, 15, 5]
    pruned = Prune(model, 0.5, by="weights")
    weights = torch.cat([value.flatten() for name, value in model.parameters.items() if name.endswith("weight")])
    kept = torch.cat([value.flatten() for name, value in pruned.parameters.items() if name.endswith("weight")])
    largest = weights.abs() > weights.abs().median()
    assert torch.equal(kept, torch.where(largest, weights, 0.0))
    assert torch.equal(pruned.parameters["log_std"], model.parameters["log_std"])
    frozen = zeros(pruned.parameters)
    assert same(zeros(pruned.learn(iterations=1).parameters), frozen)


@pytest.mark.parametrize(
    ("learner", "policy", "message"),
    [
        ("maml", {"prune": 1.0}, "policy.prune"),
        ("maml", {"prune": 0.9999}, "which leaves layer .* no weight, and so nothing of what is observed"),
        ("maml", {"prune": 0.5, "lora_rank": 2}, "so leave one of them out"),
        ("pretrained", {"prune": 0.5}, "neither low-rank updates nor pruned weights"),
        ("rl2", {"prune": 0.5}, "and the weights of policy 'GruPolicy' are not pruned"),
    ],
)
def test_pruning_that_cannot_be_is_one_sentence(learner: str, policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*" + message):
        small(learner, policy_kwargs=policy)


def test_weights_of_models_that_do_not_keep_them_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^DQN cannot keep weights at 0 while it learns; expected a learner"):
        Prune(DQN("MlpPolicy", "CartPole-v1", buffer_size=10), by="weights")
    with pytest.raises(ValueError, match=r"^the weights of a ContextPolicy with .* are not pruned"):
        Prune(small("cavia"), by="weights")
    with pytest.raises(ValueError, match=r"^by is 'layers'; expected 'neurons', 'channels' or 'weights'"):
        Prune(small(), by="layers")  # type: ignore[arg-type]
