"""Mixtures: their mathematics against torch's and finite differences, and that acting, learning and SB3 agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import ACTIONS, assert_acting_equals_learning, double, make_policy, observed
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, MixtureSameFamily, Normal

from metarl.agents import Categorical, Gaussian, Mixture, MultiCategorical
from metarl.agents.policies.mixture import LOGITS, MixtureActorCriticPolicy, MixturePolicy


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixtures() -> dict[str, tuple[Mixture, Tensor]]:
    """Three components for four samples, with actions."""
    logits = randn(4, 3)
    gaussians = Gaussian(randn(4, 3, 2, seed=1), 0.3 * randn(4, 3, 2, seed=2))
    return {
        "gaussian": (Mixture(logits, gaussians), randn(4, 2, seed=3)),
        "categorical": (Mixture(logits, Categorical(randn(4, 3, 5, seed=1))), torch.tensor([0, 4, 2, 1])),
        "multi": (
            Mixture(logits, MultiCategorical(randn(4, 3, 5, seed=1), (2, 3))),
            torch.tensor([[0, 2], [1, 1], [1, 0], [0, 0]]),
        ),
    }


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
def test_log_prob_equals_torchs(head: str) -> None:
    mixture, actions = mixtures()[head]
    parts: Any = mixture.components
    inner = Independent(Normal(parts.mean, parts.log_std.exp()), 1) if head == "gaussian" else TorchCategorical(
        logits=parts.logits
    )  # fmt: skip
    twin = MixtureSameFamily(TorchCategorical(logits=mixture.logits), inner)
    torch.testing.assert_close(mixture.log_prob(actions), twin.log_prob(actions))


@pytest.mark.parametrize("head", mixtures())
def test_the_probability_is_the_weighted_sum_of_the_components(head: str) -> None:
    mixture, actions = mixtures()[head]
    weights = torch.softmax(mixture.logits, dim=-1)
    total = torch.zeros(4, dtype=torch.float64)
    for component in range(3):
        parts = [part[:, component] for part in mixture.components.parameters]
        sizes = (mixture.components.sizes,) if head == "multi" else ()
        total += weights[:, component] * type(mixture.components)(*parts, *sizes).log_prob(actions).exp()
    torch.testing.assert_close(mixture.log_prob(actions), total.log())


@pytest.mark.parametrize("head", mixtures())
def test_the_score_equals_finite_differences(head: str) -> None:
    mixture, actions = mixtures()[head]
    own = mixture.parameters
    rest = (mixture.components.sizes,) if head == "multi" else ()

    def log_prob(parts: list[Tensor]) -> float:
        return float(Mixture(parts[0], type(mixture.components)(*parts[1:], *rest)).log_prob(actions).sum())

    h = 1e-6
    for index, score in enumerate(mixture.score(actions)):
        direction = randn(*own[index].shape, seed=9)
        ahead, behind = (
            log_prob([part + sign * h * direction if i == index else part for i, part in enumerate(own)])
            for sign in (1, -1)
        )
        assert float((score * direction).sum()) == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-5, 5), min_size=2, max_size=5),
    means=st.lists(st.floats(-3, 3), min_size=5, max_size=5),
    action=st.floats(-5, 5),
    shift=st.floats(-10, 10),
)
def test_the_weights_gradient_sums_to_zero_and_points_to_what_drew_the_action(
    logits: list[float], means: list[float], action: float, shift: float
) -> None:
    count = len(logits)
    weights = torch.tensor(logits, dtype=torch.float64)
    centres = torch.tensor(means[:count], dtype=torch.float64).unsqueeze(-1)
    actions = torch.tensor([action], dtype=torch.float64)
    mixture = Mixture(weights, Gaussian(centres, torch.zeros_like(centres)))
    score = mixture.weight_score(actions)
    assert abs(float(score.sum())) < 1e-9
    nearest = int((centres[:, 0] - action).abs().argmin())
    assert float(score[nearest]) >= -1e-9
    # A constant added to all logits changes nothing.
    moved = Mixture(weights + shift, mixture.components)
    torch.testing.assert_close(moved.log_prob(actions), mixture.log_prob(actions))


def test_what_has_no_closed_form_is_refused() -> None:
    mixture, _ = mixtures()["gaussian"]
    with pytest.raises(NotImplementedError, match="entropy of a mixture"):
        mixture.entropy()
    with pytest.raises(NotImplementedError, match="KL of mixtures"):
        mixture.kl(mixture)
    with pytest.raises(NotImplementedError, match="Fisher matrix of a mixture"):
        mixture.metric([])


def spread_out(head: str, tasks: int | None = None) -> tuple[MixturePolicy, dict[str, Tensor]]:
    """A mixture of four unlike components of unlike weights; for several tasks they differ by task too."""
    policy = MixturePolicy(make_policy(head), 4)
    shape = () if tasks is None else (tasks,)
    parameters = {
        name: value + 0.5 * torch.randn(*shape, *value.shape, generator=torch.Generator().manual_seed(7))
        for name, value in policy.parameters().items()
    }
    return policy, parameters


@pytest.mark.parametrize("head", ACTIONS)
def test_equal_components_are_the_perceptron(head: str) -> None:
    plain = make_policy(head)
    policy = MixturePolicy(plain, 3)
    observations = randn(6, 3)
    mixture = policy.distribution(double(policy.parameters()), observed(observations))
    single = plain.distribution(double(plain.parameters()), observed(observations))
    actions = torch.zeros(6, 2, dtype=torch.float64) if head == "gaussian" else torch.zeros(6, 2, dtype=torch.int64)
    actions = actions[:, 0] if head == "categorical" else actions
    torch.testing.assert_close(mixture.log_prob(actions), single.log_prob(actions))
    assert policy.layers is None
    assert {name: value.shape for name, value in policy.critic().items()} == {
        name: value.shape for name, value in plain.critic().items()
    }


@pytest.mark.parametrize("head", ACTIONS)
@pytest.mark.parametrize("stacked", [True, False])
def test_acting_equals_learning(head: str, stacked: bool) -> None:
    tasks, episodes = 3, 5
    policy, parameters = spread_out(head, tasks if stacked else None)
    observations = randn(tasks, episodes, 3).float().numpy()
    actor = policy.actor(parameters)
    noise = actor.noise([np.random.default_rng(i) for i in range(tasks)], episodes)
    actions, log_probs = actor.act(observations, noise.at(0))
    assert_acting_equals_learning(policy, parameters, observations, actions, log_probs, stacked=stacked)


@pytest.mark.parametrize("head", ["gaussian", "categorical"])
def test_components_act_as_often_as_their_weights_say(head: str) -> None:
    policy = MixturePolicy(make_policy(head), 3)
    parameters = policy.parameters()
    shares = torch.tensor([0.6, 0.3, 0.1])
    parameters[LOGITS] = shares.log()
    # Each component does its own thing whatever it observes.
    parameters["action_net.weight"] = torch.zeros_like(parameters["action_net.weight"])
    if head == "gaussian":
        parameters["action_net.bias"] = torch.tensor([[-20.0, 0.0], [0.0, 0.0], [20.0, 0.0]])
    else:
        parameters["action_net.bias"] = 50.0 * torch.eye(3)
    actor = policy.actor(parameters)
    noise = actor.noise([np.random.default_rng(0)], 4000)
    actions, _ = actor.act(np.zeros((1, 4000, 3), dtype=np.float32), noise.at(0))
    chosen = np.round(actions[0, :, 0] / 20.0).astype(int) + 1 if head == "gaussian" else actions[0]
    np.testing.assert_allclose(np.bincount(chosen, minlength=3) / 4000, shares, atol=0.03)
    sampled, _ = policy.module(parameters).predict(np.zeros((4000, 3), dtype=np.float32))
    if head == "categorical":
        np.testing.assert_allclose(np.bincount(sampled, minlength=3) / 4000, shares, atol=0.03)
    deterministic, _ = policy.module(parameters).predict(np.zeros((1, 3), dtype=np.float32), deterministic=True)
    np.testing.assert_array_equal(deterministic[0], np.array([-1.0, 0.0]) if head == "gaussian" else 0)


@pytest.mark.parametrize("head", ACTIONS)
def test_the_policy_of_stable_baselines3_is_the_same_mixture(head: str, tmp_path: Path) -> None:
    policy, parameters = spread_out(head)
    module = policy.module(parameters)
    observations = randn(6, 3).float()
    actions, values, log_probs = module(observations)
    expected = policy.distribution(parameters, observed(observations)).log_prob(actions)
    torch.testing.assert_close(log_probs, expected)
    same_values, again, entropy = module.evaluate_actions(observations, actions)
    torch.testing.assert_close(again, expected)
    torch.testing.assert_close(same_values, values)
    assert entropy is None
    module.save(tmp_path / "policy")
    loaded = MixtureActorCriticPolicy.load(tmp_path / "policy")
    torch.testing.assert_close(loaded.get_distribution(observations).log_prob(actions), expected)
    logits, output = module.mixture_logits, module.action_net(module.mlp_extractor.forward_actor(observations))
    drawn, own = module.get_distribution(observations).log_prob_from_params(
        logits, output, getattr(module, "log_std", None)
    )
    torch.testing.assert_close(own, policy.distribution(parameters, observed(observations)).log_prob(drawn))


def test_the_floor_of_the_noise_holds_for_every_component() -> None:
    policy = MixturePolicy(make_policy("gaussian"), 2)
    parameters = policy.parameters()
    parameters["log_std"] = torch.tensor([[-5.0, 1.0], [0.0, -5.0]])
    components: Any = policy.distribution(parameters, observed(torch.zeros(1, 3))).components
    assert components.log_std[0].tolist() == [[-2.0, 1.0], [0.0, -2.0]]
    assert policy.module(parameters).log_std.tolist() == [[-2.0, 1.0], [0.0, -2.0]]
    actor = policy.actor(parameters)
    width = spaces.flatdim(policy.action_space) + 1
    zeros, ones = (np.full((1, 1, width), value, dtype=np.float32) for value in (0.0, 1.0))
    zeros[..., -1] = ones[..., -1] = 5.0  # the last component
    at = np.zeros((1, 1, 3), dtype=np.float32)
    moved = actor.act(at, ones)[0] - actor.act(at, zeros)[0]
    np.testing.assert_allclose(moved[0, 0], np.exp([0.0, -2.0]), rtol=1e-5)
