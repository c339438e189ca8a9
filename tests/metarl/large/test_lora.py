"""Low-rank updates: what they compute, that only they adapt, and that they are merged on the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import NAVIGATION, copied, played, same, small
from torch import nn

import metarl
from metarl.agents.frozen.lora import LoraConv2d, LoraLinear
from metarl.gradients.flat import task_parameters

UPDATED = "mlp_extractor.policy_net.2"


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_merged_layer_is_the_updated_one(data: st.DataObject) -> None:
    inputs, outputs = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    bias, rank = data.draw(st.booleans()), data.draw(st.integers(1, 4))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    updated: LoraLinear | LoraConv2d
    if data.draw(st.booleans()):
        updated, rows = LoraLinear(nn.Linear(inputs, outputs, bias=bias), rank), torch.randn(5, inputs)
    else:
        options: Any = {"stride": data.draw(st.integers(1, 2)), "padding": data.draw(st.integers(0, 2)), "bias": bias}
        updated = LoraConv2d(nn.Conv2d(inputs, outputs, (2, 3), **options), rank)
        rows = torch.randn(2, inputs, 5, 6)
    torch.testing.assert_close(updated(rows), updated.merged()(rows), msg="at first the update is zero")
    with torch.no_grad():
        updated.lora_b.normal_()
    torch.testing.assert_close(updated(rows), updated.merged()(rows), rtol=1e-4, atol=1e-4)


def lora(learner: str = "maml", **changes: Any) -> Any:
    """Return a tiny learner with low-rank updates."""
    policy = {"lora_rank": 3, **changes.pop("policy_kwargs", {})}
    return small(learner, policy_kwargs=policy, **{"inner": {"adapts": "lora", "step_size": 0.5}, **changes})


def test_only_updates_adapt_and_frozen_weights_stay(tmp_path: Path) -> None:
    model = lora()
    before, shared = model.functional_policy.buffers(), copied(model.parameters)
    assert set(before) == {f"{UPDATED}.weight", f"{UPDATED}.bias"}
    model.learn(iterations=2)
    assert same(model.functional_policy.buffers(), before)
    assert not any(torch.equal(shared[name], value) for name, value in model.parameters.items())
    rollouts = played(model, metarl.sample_tasks(NAVIGATION, 3, seed=1))
    adapted = model.adapted(model.state, model.parameters, rollouts, 0)
    moved = {name for name, value in model.parameters.items() if not torch.equal(adapted[name][0], value)}
    assert moved == {f"{UPDATED}.lora_a", f"{UPDATED}.lora_b"}
    model.save(tmp_path / "model.zip")
    again = metarl.MAML.load(tmp_path / "model.zip")
    assert same(again.learn(iterations=1).parameters, model.learn(iterations=1).parameters)


@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "promp"])
@pytest.mark.parametrize("changes", [{"lora_rank": 3}, {"freeze": ["*.0.*"]}, {"prune": 0.5}])
def test_both_paths_have_the_same_meta_gradient(learner: str, changes: dict[str, Any]) -> None:
    found = []
    for path in ("fast", "general"):
        outer: dict[str, Any] = {"path": path, "learning_rate": 1e-3}
        outer |= {"epochs": 1} if learner == "promp" else {"update": "vpg", "optimizer": "sgd", "learning_rate": 1.0}
        model = small(learner, policy_kwargs=changes, inner={"steps": 2, "step_size": 0.5}, outer=outer)
        assert model.backend.name == path
        found.append(model.learn(iterations=2).parameters)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=2e-3, atol=2e-5)


def test_a_large_perceptron_with_updates_computes_no_weights_of_its_own_for_tasks() -> None:
    assert lora(policy_kwargs={"hidden_sizes": (1024, 1024)}).backend.name == "general"


def test_an_adapted_policy_is_a_plain_one_that_does_the_same() -> None:
    model = lora(policy_kwargs={"lora_layers": [UPDATED]}).learn(iterations=1)
    rollouts = played(model, metarl.sample_tasks(NAVIGATION, 2, seed=1))
    parameters = task_parameters(model.adapted(model.state, model.parameters, rollouts, 0), 1)
    policy = model.as_policy(parameters, model.state)
    assert type(policy.mlp_extractor.policy_net[2]) is nn.Linear
    seen = rollouts.observations[0, 0]
    expected = model.functional_policy.output(parameters, seen)
    found = policy.get_distribution(seen).distribution.mean
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives_and_step_sizes_reach_the_updates() -> None:
    exact, first = lora().learn(iterations=2), lora("fomaml").learn(iterations=2)
    assert not torch.equal(exact.parameters[f"{UPDATED}.lora_b"], first.parameters[f"{UPDATED}.lora_b"])
    learned = lora("meta-sgd").learn(iterations=2)
    assert learned.functional_policy.shapes[f"{UPDATED}.lora_a"] == (3, 6)


def test_a_convolution_has_updates_and_the_head_none() -> None:
    from gymnasium import spaces

    from metarl.agents.frozen.trained import Trained

    policy = networks.small_policy(
        spaces.Box(0, 255, (20, 20, 3), "uint8"),
        hidden_sizes=[8],
        activation="relu",
        trained=Trained(lora_rank=2, lora_layers=["features_extractor.*"]),
        features_extractor_class=networks.Pixels,
    )
    own = {name for name in policy.shapes if "lora" in name}
    assert own == {f"features_extractor.module.convolution.lora_{one}" for one in "ab"}
    assert "action_net.weight" in policy.shapes
    assert "features_extractor.module.convolution.weight" not in policy.shapes


@pytest.mark.parametrize(
    ("learner", "policy", "inner", "message"),
    [
        ("maml", {}, {"adapts": "lora"}, "but policy.lora_rank is 0; set it to the rank of the updates"),
        ("maml", {"lora_rank": 50}, {}, "and no layer of the actor is larger than that"),
        (
            "maml",
            {"lora_rank": 6, "lora_layers": [UPDATED]},
            {},
            "larger than the rank of layer",
        ),
        ("maml", {"lora_rank": 2, "lora_layers": ["critic"]}, {}, "which matches no linear or convolutional layer"),
        ("maml", {"lora_rank": -1}, {}, "policy.lora_rank"),
        ("maml", {"lora_layers": [UPDATED]}, {}, "and policy.lora_rank is 0, so no layer is updated"),
        ("rl2", {"lora_layers": [UPDATED]}, {}, "and policy.lora_rank is 0, so no layer is updated"),
        (
            "maml",
            {
                "features_extractor_class": "networks:Wide",
                "freeze": "extractor",
                "lora_rank": 2,
                "lora_layers": ["features_extractor.*"],
            },
            {},
            "so that what is frozen would depend on what adapts",
        ),
        ("pretrained", {"lora_rank": 2}, {}, "which has neither low-rank updates nor"),
        ("rl2", {"lora_rank": 2}, {}, "policy 'GruPolicy' has no low-rank updates; use one of"),
        (
            "maml",
            {"lora_rank": 3},
            {"adapts": [f"{UPDATED}.weight"]},
            "and that is frozen by policy.freeze or policy",
        ),
    ],
)
def test_bad_input_is_one_sentence(learner: str, policy: dict[str, Any], inner: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*" + message):
        small(learner, policy_kwargs=policy, inner=inner)
