"""The recurrent policy: its derivatives by hand, and acting step by step as in the training pass."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import LENGTHS_DIFFER, SIGN, remembering, steps_of, trials_of
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from metarl.agents.policies import GruPolicy, build_policy
from metarl.agents.policies.gru import gru
from metarl.memory.ppo import remembered


def weights(inputs: int, hidden: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3 * hidden, inputs), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,))
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return parts[0], parts[1], parts[2], parts[3]


@pytest.mark.parametrize("sizes", [[4, 4, 3, 3, 1], [3, 3, 3], [1], [2, 1], [700] * 3, [1300, 900, 299, 40]])
def test_the_unit_and_its_gradient_are_those_of_torch(sizes: list[int]) -> None:
    counts, own = torch.tensor(sizes), weights(5, 6)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64, requires_grad=True)
    start = torch.randn(sizes[0], 6, generator=generator, dtype=torch.float64, requires_grad=True)
    found = gru(inputs, counts, start, own)
    expected, _ = torch.gru(inputs, counts, start[None], list(own), True, 1, 0.0, False, False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    towards = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((part * towards).sum(), [inputs, start, *own]) for part in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-10)


def test_the_gradient_of_the_unit_is_that_of_finite_differences() -> None:
    sizes, own = torch.tensor([3, 2, 2, 1]), weights(2, 3)
    inputs = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    start = torch.full((3, 3), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, h, *w: gru(x, sizes, h, w), (inputs, start, *own))


CASES: dict[str, dict[str, Any]] = {
    "navigation": {},
    "bandit": {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"arms": 4, "pulls": 6}},
    "mdp": {"family": "metarl/TabularMDP-v0"},
    "episodes of different lengths": {"family": LENGTHS_DIFFER},
    "several choices": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "multi"}},
    "choices from -1": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "discrete"}},
    "a matrix": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "matrix"}},
    "a number": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "number"}},
    "open ends": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "some ends"}},
    "whole numbers": {"family": SIGN, "family_kwargs": {"observations": "discrete"}},
    "images": {"family": LENGTHS_DIFFER, "family_kwargs": {"observations": "image channels last"}},
    "images and more": {"family": SIGN, "family_kwargs": {"observations": "dict", "actions": "multi"}},
    "one layer": {"policy_kwargs": {"hidden_sizes": (5,)}},
    "relu": {"policy_kwargs": {"hidden_sizes": (7, 6, 5), "activation": "relu"}},
    "a plain critic": {"outer": {"critic": "plain"}},
    "normalised": {"learning": {"normalize_observations": True, "normalize_rewards": True, "trial_episodes": 3}},
}


@pytest.mark.parametrize("case", CASES)
def test_acting_is_the_training_pass(case: str) -> None:
    model = remembering(**CASES[case]).learn(iterations=1)
    _, rollouts = trials_of(model, episodes=3)
    state, policy = model.state, model.functional_policy
    seen, _ = model.as_seen(state, rollouts)
    memory = remembered(policy, state.parameters, seen, 4, None)
    found = policy.act_on(state.parameters, memory).log_prob(seen.actions)
    np.testing.assert_allclose(found, seen.log_probs, atol=1e-5, rtol=0.0)
    assert len(found) == int(rollouts.mask.sum())
    if "different" in case:
        assert len(set(seen.lengths.tolist())) > 1


def test_what_is_told_is_remembered_until_the_trial_ends() -> None:
    """Another reward after the first step changes the memory of all later steps of its trial, and of no other."""
    model = remembering(family="metarl/BernoulliBandit-v0", family_kwargs={"arms": 3, "pulls": 4})
    _, rollouts = trials_of(model, episodes=2)
    policy, found = model.functional_policy, []
    for change in (0.0, 1.0):
        rollouts.rewards[1, 0, 0] += change
        found.append(remembered(policy, model.parameters, steps_of(model, rollouts), 6, None))
    differs = (found[0] != found[1]).any(dim=1).nonzero().flatten().tolist()
    assert differs == list(range(9, 16))  # trial 1 begins at row 8 and ends at row 15


def test_trials_side_by_side_do_not_change_each_other() -> None:
    model = remembering(family=LENGTHS_DIFFER)
    _, rollouts = trials_of(model, episodes=2)
    steps, policy = steps_of(model, rollouts), model.functional_policy
    together = remembered(policy, model.parameters, steps, 6, None)
    alone = remembered(policy, model.parameters, steps, 1, None)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    in_chunks = remembered(policy, model.parameters, steps, 6, 2)
    np.testing.assert_allclose(together, in_chunks, atol=1e-6)


def test_a_seed_gives_the_same_policy_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, second, third = (remembering(seed=seed).parameters for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["weight_hh"], third["weight_hh"])
    copy = pickle.loads(pickle.dumps(remembering().functional_policy))
    assert all(torch.equal(value, first[name]) for name, value in copy.parameters().items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden_sizes": ()}, "policy.hidden_sizes is empty; expected at least one number, the size of the memory"),
        ({"net_arch": [3]}, "policy 'GruPolicy' has no argument 'net_arch'"),
        ({"features_extractor_class": nn.Linear}, "the features extractor Linear cannot be made"),
    ],
)
def test_arguments_that_make_no_policy(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        remembering(policy_kwargs=arguments)


def test_spaces_that_are_not_supported_are_named() -> None:
    model = remembering()
    settings: dict[str, Any] = {"hidden_sizes": (4,), "activation": "tanh", "output_gain": 1.0, "log_std_init": 0.0}
    with pytest.raises(ValueError, match="observations of type Text are not supported"):
        build_policy(spaces.Text(3), model.action_space, name="GruPolicy", seed=1, log_std_min=None, **settings)
    with pytest.raises(ValueError, match="actions of type MultiBinary are not supported"):
        build_policy(
            model.observation_space, spaces.MultiBinary(3), name="GruPolicy", seed=1, log_std_min=None, **settings
        )


def test_flattened_images_are_acted_on_as_they_are_learned_from() -> None:
    space = spaces.Box(0, 255, (1, 6, 6), np.uint8)
    policy = GruPolicy.build(space, spaces.Discrete(3), seed=0, features_extractor_class=FlattenExtractor)
    parameters = policy.parameters()
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 1, 6, 6), dtype=np.uint8)
    actor = policy.actor(parameters)
    actor.act(images, None)
    assert actor.memory is not None
    told, start = torch.zeros(4, policy.told_size), torch.zeros(4, policy.memory_size)
    learned_from = policy.remember(parameters, torch.from_numpy(images[0]), told, torch.tensor([4]), start)
    np.testing.assert_allclose(actor.memory.hidden, learned_from, atol=1e-5)
