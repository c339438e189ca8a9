"""Uniform actions, and adaptation from scratch."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from small import SIGN, batch, copied, played, same, small


@pytest.mark.parametrize("actions", ["standard box", "matrix", "discrete", "multi"])
def test_random_actions_are_uniform(actions: str) -> None:
    model = small(
        "random",
        family=SIGN,
        family_kwargs={"actions": actions, "observations": "box"},
        evaluation={"steps": 1, "episodes": 3},
    )
    task = np.array([0.5], dtype=np.float32)
    rollouts = played(model, batch(model, task), episodes=1000)
    drawn = rollouts.actions.reshape(3000, -1).double()
    space = model.action_space
    if isinstance(space, gymnasium.spaces.Box):
        assert float(drawn.min()) > -1.0
        assert float(drawn.max()) < 1.0
        torch.testing.assert_close(drawn.mean(dim=0), torch.zeros_like(drawn[0]), atol=0.05, rtol=0)
        torch.testing.assert_close(drawn.var(dim=0), torch.full_like(drawn[0], 1 / 3), atol=0.02, rtol=0)
        expected = -np.log(2.0) * drawn.shape[1]
    else:
        counts = getattr(space, "nvec", None)
        counts = [space.n] if counts is None else counts
        for column, count in zip(drawn.T, counts, strict=True):
            shares = [float((column == value).double().mean()) for value in range(count)]
            np.testing.assert_allclose(shares, 1 / count, atol=0.04)
        expected = -np.log(np.prod(counts))
    np.testing.assert_allclose(rollouts.log_probs, expected, rtol=1e-5)
    assert model.learn(iterations=5).iteration == 0
    assert model.evaluate(n_tasks=2).returns.shape == (2, 2)
    with pytest.raises(ValueError, match="has no policy to give"):
        model.adapt(task)


def test_from_scratch_only_adapts() -> None:
    model = small("scratch")
    before = copied(model.parameters)
    model.learn(iterations=3)
    assert same(before, model.parameters)
    assert (model.num_timesteps, model.best is not None) == (0, True)
    np.testing.assert_array_equal(model.evaluate(n_tasks=3).returns, small("maml").evaluate(n_tasks=3).returns)
