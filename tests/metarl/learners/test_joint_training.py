"""Joint training by stable-baselines3's PPO."""

from __future__ import annotations

import pytest
import torch
from small import small


def test_joint_training_is_stable_baselines3s_and_leaves_its_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = small("pretrained").learn(iterations=1)
    assert torch.equal(torch.rand(3), expected)
    assert model.num_timesteps == 3 * 4 * 2 * 8 == 192
    assert float(model.state.own_tensors["adam_steps"]) == 2 * 10 * 12  # rollouts, epochs, minibatches
    assert all(torch.isfinite(value).all() for value in model.parameters.values())
    with pytest.raises(ValueError, match=r"outer.environments is 8, which outer.minibatches = 3 does not divide"):
        small("pretrained", outer={"environments": 8, "minibatches": 3})
