"""Policies as functions: equal to stable-baselines3's, and acting as they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from samples import ACTIONS, assert_acting_equals_learning, make_policy, observed

from metarl.agents import Noise, Policy, build_policy

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
SETTINGS = {
    "seed": 0,
    "hidden_sizes": (8, 8),
    "activation": "tanh",
    "output_gain": 1.0,
    "log_std_init": 0.0,
    "log_std_min": None,
}


def variants() -> dict[str, Policy]:
    return {
        "tanh": make_policy(),
        "relu": make_policy(activation="relu"),
        "no hidden layer": make_policy(sizes=()),
        "categorical": make_policy("categorical"),
        "multi-categorical": make_policy("multi-categorical"),
        "discrete observation": build_policy(spaces.Discrete(4), ACTIONS["gaussian"], name="MlpPolicy", **SETTINGS),
        "gelu": build_policy(VECTOR, ACTIONS["gaussian"], name="MlpPolicy", activation_fn=torch.nn.GELU, **SETTINGS),
        "images": build_policy(IMAGE, ACTIONS["categorical"], name="CnnPolicy", **SETTINGS),
    }


def observe(policy: Policy, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    space = policy.observation_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, 4, shape)
    if space.dtype == np.uint8:
        return rng.integers(0, 255, (*shape, *space.shape)).astype(np.uint8)
    return rng.normal(size=(*shape, 3)).astype(np.float32)


@pytest.mark.parametrize("name", variants())
def test_the_function_equals_stable_baselines3s_module(name: str) -> None:
    policy = variants()[name]
    observations = torch.as_tensor(observe(policy, 5))
    parameters = {key: value + 0.1 for key, value in policy.parameters().items()}
    distribution = policy.distribution(parameters, observed(observations))
    actions = torch.as_tensor(np.stack([policy.action_space.sample() for _ in range(5)]))
    _, log_prob, entropy = policy.module(parameters).evaluate_actions(observations, actions)
    torch.testing.assert_close(distribution.log_prob(actions), log_prob)
    torch.testing.assert_close(distribution.entropy(), entropy)


@pytest.mark.parametrize("name", variants())
@pytest.mark.parametrize("stacked", [True, False])
def test_acting_equals_learning(name: str, stacked: bool) -> None:
    policy = variants()[name]
    tasks, episodes = 3, 4
    parameters = policy.parameters()
    if stacked:
        parameters = {key: torch.stack([value + 0.1 * i for i in range(tasks)]) for key, value in parameters.items()}
    observations = observe(policy, tasks, episodes)
    noise = Noise([np.random.default_rng(i) for i in range(tasks)], episodes, policy.action_space)
    actions, log_probs = policy.actor(parameters).act(observations, noise.at(0))
    assert log_probs.shape == (tasks, episodes)
    assert_acting_equals_learning(policy, parameters, observations, actions, log_probs, stacked=stacked)


@pytest.mark.parametrize("head", ["categorical", "multi-categorical"])
def test_choices_follow_their_probabilities(head: str) -> None:
    policy = make_policy(head)
    observations = np.tile(np.array([0.3, -1.0, 0.5], dtype=np.float32), (1, 4000, 1))
    noise = Noise([np.random.default_rng(1)], 4000, policy.action_space).at(0)
    actions, _ = policy.actor(policy.parameters()).act(observations, noise)
    first = actions[0] if head == "categorical" else actions[0, :, 1]
    logits = policy.distribution(policy.parameters(), observed(observations[0, :1])).parameters[0][0]
    expected = torch.softmax(logits if head == "categorical" else logits[2:], dim=-1).detach().numpy()
    found = np.bincount(first, minlength=3) / 4000
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_the_floor_holds_in_acting_learning_and_on_the_way_out() -> None:
    policy = make_policy()
    parameters = policy.parameters()
    parameters["log_std"] = torch.tensor([-5.0, 1.0])
    distribution = policy.distribution(parameters, observed(torch.zeros(1, 3)))
    assert distribution.parameters[1].tolist() == [[-2.0, 1.0]]
    assert policy.module(parameters).log_std.tolist() == [-2.0, 1.0]
    zeros = np.zeros((1, 1, 3), dtype=np.float32)
    actor = policy.actor(parameters)
    moved = actor.act(zeros, np.ones((1, 1, 2), np.float32))[0] - actor.act(zeros, np.zeros((1, 1, 2), np.float32))[0]
    np.testing.assert_allclose(moved[0, 0], np.exp([-2.0, 1.0]), rtol=1e-5)


def test_weights_are_xavier_uniform_and_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    policy = make_policy(sizes=(64, 64))
    assert torch.equal(torch.rand(3), expected)
    parameters = policy.parameters()
    weight = parameters["action_net.weight"]
    bound = (6 / (64 + 2)) ** 0.5
    assert 0.8 * bound < weight.abs().max() <= bound
    assert (parameters["action_net.bias"] == 0).all()
    assert parameters["log_std"].tolist() == pytest.approx([-0.3, -0.3])


def test_noise_does_not_depend_on_the_other_tasks() -> None:
    together = Noise([np.random.default_rng(i) for i in range(3)], 2, ACTIONS["gaussian"])
    alone = Noise([np.random.default_rng(1)], 2, ACTIONS["gaussian"])
    for step in range(150):
        np.testing.assert_array_equal(together.at(step)[1], alone.at(step)[0])


def test_what_is_not_supported_is_refused_in_a_sentence() -> None:
    nested = spaces.Dict({"a": spaces.Dict({"b": VECTOR})})
    with pytest.raises(ValueError, match="observations of type Dict are not supported"):
        build_policy(nested, ACTIONS["gaussian"], name="MlpPolicy", **SETTINGS)
    with pytest.raises(ValueError, match="actions of type Dict are not supported"):
        build_policy(VECTOR, nested, name="MlpPolicy", **SETTINGS)
    for odd, words in (
        (spaces.Box(-1, 1, (0,)), "have no numbers"),
        (spaces.MultiDiscrete([[2, 3], [2, 2]]), r"whole numbers in one row, as in MultiDiscrete\(\[2, 3, 2, 2\]\)"),
    ):
        for space in (odd, spaces.Dict({"a": odd, "b": VECTOR})):
            with pytest.raises(ValueError, match=words):
                build_policy(space, ACTIONS["gaussian"], name="MlpPolicy", **SETTINGS)
    with pytest.raises(ValueError, match=r"the key 'a', of Box.*; give it a dimension, as in the shape"):
        build_policy(
            spaces.Dict({"a": spaces.Box(-1, 1, ())}), ACTIONS["gaussian"], name="MultiInputPolicy", **SETTINGS
        )
    for odd in (spaces.Box(-1, 1, (0,)), spaces.MultiDiscrete([[2, 3], [2, 2]])):
        with pytest.raises(ValueError, match="actions of"):
            build_policy(VECTOR, odd, name="MlpPolicy", **SETTINGS)
    with pytest.raises(ValueError, match="unknown policy 'Mlp'"):
        build_policy(VECTOR, ACTIONS["gaussian"], name="Mlp", **SETTINGS)
    with pytest.raises(ValueError, match="use_sde"):
        build_policy(VECTOR, ACTIONS["gaussian"], name="MlpPolicy", use_sde=True, **SETTINGS)
    with pytest.raises(
        ValueError, match="policy_kwargs has 'wrong', which MlpPolicy does not take; expected one of hidden_sizes"
    ):
        build_policy(VECTOR, ACTIONS["gaussian"], name="MlpPolicy", wrong=1, **SETTINGS)
