"""What adapts: the head of ANIL, the context of CAVIA, or the parameters that ``inner.adapts`` names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import observed
from small import NAVIGATION, SIGN, adapted_to, copied, played, small
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

import metarl
from metarl.agents.policies.context import CONTEXT
from metarl.gradients.flat import task_parameters

HIDDEN = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2")
BIASES = {f"{layer}.bias" for layer in (*HIDDEN, "action_net")}
HEAD = {"action_net.weight", "action_net.bias", "log_std"}


class Normed(FlattenExtractor):
    """Features with a normalisation layer."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.norm = nn.LayerNorm(self.features_dim)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        normed: torch.Tensor = self.norm(super().forward(observations))
        return normed


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
    model = small("cavia", inner={"step_size": 1.0}, policy_kwargs={"context_size": 3}).learn(iterations=1)
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


def moved_by(model: Any) -> set[str]:
    """Return the names of the parameters that an adaptation step changes."""
    rollouts = played(model, metarl.sample_tasks(NAVIGATION, 3, seed=1))
    adapted = model.adapted(model.state, model.parameters, rollouts, 0)
    return {
        name for name, value in model.parameters.items() if any(not torch.equal(own, value) for own in adapted[name])
    }


@pytest.mark.parametrize("learner", ["maml", "fomaml", "meta-sgd", "promp", "e-maml", "reptile", "scratch"])
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("head", HEAD),
        ("biases", BIASES),
        (["action_net.*"], HEAD - {"log_std"}),
        ("context", {CONTEXT}),
        ("*.0.*", {f"{HIDDEN[0]}.weight", f"{HIDDEN[0]}.bias"}),
        (["log_std", "*.2.bias"], {"log_std", f"{HIDDEN[1]}.bias"}),
    ],
)
def test_only_what_is_named_moves_in_adaptation_and_all_is_meta_trained(
    learner: str, part: Any, expected: set[str]
) -> None:
    model = small(learner, inner={"step_size": 1.0, "adapts": part})
    assert moved_by(model) == expected
    if learner in ("maml", "reptile"):
        before = copied(model.parameters)
        model.learn(iterations=1)
        moved = {name for name, value in before.items() if not torch.equal(model.parameters[name], value)}
        assert moved == (expected if learner == "reptile" else set(before))


@pytest.mark.parametrize("learner", ["maml", "meta-sgd"])
def test_a_context_adapts_with_the_same_gradients_on_both_paths(learner: str) -> None:
    found = []
    for path in ("fast", "general"):
        model = small(
            learner,
            inner={"step_size": 1.0, "steps": 2, "adapts": "context"},
            outer={"path": path, "update": "vpg", "optimizer": "sgd", "learning_rate": 1.0},
            policy_kwargs={"context_size": 2},
        )
        assert model.functional_policy.shapes[CONTEXT] == (2,)
        found.append(model.learn(iterations=1).parameters)
    assert found[0][CONTEXT].abs().max() > 0  # its start is meta-trained, unlike CAVIA's
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5)


def test_the_head_is_anils() -> None:
    named, anil = small("maml", inner={"adapts": "head"}), small("anil")
    for model in (named, anil):
        model.learn(iterations=2)
    for name, value in anil.parameters.items():
        assert torch.equal(named.parameters[name], value)


def test_normalisation_layers_adapt_on_the_general_path() -> None:
    model = small(
        "maml",
        inner={"step_size": 1.0, "adapts": "norms"},
        policy_kwargs={"features_extractor_class": Normed},
        learning={"check": False},
    )
    assert model.backend.name == "general"
    assert moved_by(model) == {"features_extractor.norm.weight", "features_extractor.norm.bias"}
    model.learn(iterations=1)
    assert all(torch.isfinite(value).all() for value in model.parameters.values())


def test_naming_all_of_them_is_all() -> None:
    assert small("maml", inner={"adapts": ["*"]}).adapts is None
    assert small("maml").adapts is None


def test_it_is_kept_in_a_checkpoint_and_in_the_policy_that_was_adapted(tmp_path: Any) -> None:
    model = small("maml", inner={"step_size": 1.0, "adapts": "biases"})
    model.save(tmp_path / "model")
    loaded = metarl.MAML.load(tmp_path / "model")
    assert loaded.adapts == frozenset(BIASES)
    task = metarl.sample_tasks(NAVIGATION, 1, seed=1)[0]
    adapted = dict(loaded.adapt(task, steps=1, episodes=2).named_parameters())
    assert {name for name, value in model.parameters.items() if not torch.equal(adapted[name], value)} == BIASES
    mean = model.functional_policy.distribution(model.parameters, observed(torch.zeros(1, 2))).parameters[0]
    assert torch.isfinite(mean).all()


@pytest.mark.parametrize(
    ("learner", "part", "expected"),
    [
        (
            "maml",
            ["action_nett.weight"],
            r"inner.adapts names 'action_nett.weight', .*; the nearest are action_net.weight",
        ),
        (
            "maml",
            "qqq",
            r"names 'qqq', which matches no .*; it has log_std, .*; a single word is all, head",
        ),
        ("maml", "norms", r"inner.adapts is 'norms', but the policy has none; its parameters are log_std, "),
        ("maml", [], r"inner.adapts is \[\]; expected"),
        (
            "maml",
            3,
            r"inner.adapts is 3; expected 'all', 'head', 'biases', 'norms', 'lora', 'context', or names",
        ),
        ("maml", ["log_std", ""], r"inner.adapts.1 is ''; expected 'all'"),
        ("anil", "biases", r"inner.adapts is 'biases', but learner anil adapts its head, of outer.head_layers layers"),
        (
            "cavia",
            ["log_std"],
            r"inner.adapts is \['log_std'\], but learner cavia adapts its context alone; leave it out",
        ),
        ("multi-task", "head", r"learner multi-task adapts the weights of its mixture alone"),
        ("task-aware", "head", r"learner task-aware adapts nothing, since it is told the task"),
        ("rl2", "head", r"learner rl2 adapts by its memory, without inner steps"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(learner: str, part: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        small(learner, inner={"adapts": part})
