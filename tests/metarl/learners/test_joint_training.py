"""Joint training by stable-baselines3's PPO."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import small

from metarl.envs import RolloutError


def test_joint_training_is_stable_baselines3s_and_leaves_its_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = small("pretrained").learn(iterations=1)
    assert torch.equal(torch.rand(3), expected)
    assert model.num_timesteps == 3 * 4 * 2 * 8 == 192
    assert float(model.state.own_tensors["adam_steps"]) == 2 * 10  # rollouts, epochs
    assert all(torch.isfinite(value).all() for value in model.parameters.values())
    model = small("pretrained", outer={"environments": 4, "rollout_steps": 6, "minibatches": 2, "epochs": 3})
    model.learn(iterations=1)
    assert model.num_timesteps == 192
    assert float(model.state.own_tensors["adam_steps"]) == 8 * 3 * 2  # rollouts, epochs, minibatches


def test_unequal_minibatches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outer.environments is 12, which outer.minibatches = 5 does not divide"):
        small("pretrained", outer={"minibatches": 5})
    with pytest.raises(ValueError, match=r"outer.environments is 3, which outer.minibatches = 2 does not divide"):
        small("pretrained", outer={"environments": 3, "minibatches": 2})
    outer = {"environments": 2, "rollout_steps": 1, "minibatches": 2}
    with pytest.raises(ValueError, match=r"2 environments with 1 steps of each .* 2 minibatches give"):
        small("pretrained", outer=outer).learn(iterations=1)


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        (
            {"family": "toy_faults:NanReward"},
            r"NanReward, task \[.*\], sub-environment 0 gave the reward nan, at step 0",
        ),
        ({"family": "toy_faults:Huge"}, r"Huge, task \[.*\], sub-environment 0 gave the reward \S+, at step 0"),
        (
            {"family": "toy_faults:Leaves", "family_kwargs": {"where": "step", "what": "error"}},
            r"Leaves, task \[.*\], sub-environment 0 raised RuntimeError: no, at step 0",
        ),
    ],
)
def test_environments_that_cannot_be_learned_from_are_named(kwargs: dict[str, Any], expected: str) -> None:
    learning = {"tasks": 2, "check": False}
    evaluation = {"every": 100}
    with pytest.raises(RolloutError, match=expected):
        small("pretrained", learning=learning, evaluation=evaluation, **kwargs).learn(iterations=1)
