"""Small random policies, rollouts and samples in float64 for the mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from metarl.agents import Policy, Rollouts, Samples, build_policy, to_samples
from metarl.agents.observations import map_observations

ACTIONS = {
    "gaussian": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "categorical": spaces.Discrete(3),
    "multi-categorical": spaces.MultiDiscrete([2, 3]),
}


def make_policy(
    head: str = "gaussian", activation: str = "tanh", sizes: tuple[int, ...] = (5, 4), numbers: int = 3
) -> Policy:
    """Return a small perceptron that observes so many numbers."""
    return build_policy(
        spaces.Box(-1.0, 1.0, (numbers,), np.float32),
        ACTIONS[head],
        name="MlpPolicy",
        seed=3,
        hidden_sizes=sizes,
        activation=activation,
        output_gain=1.0,
        log_std_init=-0.3,
        log_std_min=-2.0,
    )


def double(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in parameters.items()}


def make_rollouts(policy: Policy, tasks: int = 3, episodes: int = 4, steps: int = 6, seed: int = 0) -> Rollouts:
    """Episodes of random lengths, some terminated and some truncated, with random contents."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tasks, episodes, steps)
    lengths = torch.randint(1, steps + 1, shape[:2], generator=generator)
    mask = (torch.arange(steps) < lengths[..., None]).double()
    last = torch.arange(steps) == lengths[..., None] - 1
    ends_for_good = torch.rand(shape[:2], generator=generator)[..., None] < 0.5
    space = policy.action_space
    if isinstance(space, spaces.Box):
        actions = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
    elif isinstance(space, spaces.MultiDiscrete):
        actions = torch.stack([torch.randint(0, int(n), shape, generator=generator) for n in space.nvec], dim=-1)
    else:
        actions = torch.randint(0, int(space.n), shape, generator=generator)
    return Rollouts(
        observations=torch.randn(
            tasks, episodes, steps + 1, *policy.observation_space.shape, generator=generator, dtype=torch.float64
        ),
        actions=actions,
        log_probs=torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.1 - 2.0,
        rewards=torch.randn(*shape, generator=generator, dtype=torch.float64) * mask,
        mask=mask,
        terminated=last & ends_for_good,
        truncated=last & ~ends_for_good,
    )


def make_samples(policy: Policy, tasks: int = 3, rows: int = 7, seed: int = 0) -> Samples:
    rollouts = make_rollouts(policy, tasks=tasks, steps=rows, seed=seed)
    return to_samples(rollouts, rollouts.observations, gamma=0.9, gae_lambda=0.8)


def observed(observations: Any) -> Samples:
    """Return samples ``[sample, ...]`` of which nothing but the observations is of interest."""
    rows = map_observations(torch.as_tensor, observations)
    zeros = torch.zeros(len(next(iter(rows.values())) if isinstance(rows, dict) else rows))
    return Samples(observations=rows, actions=zeros, log_probs=zeros, advantages=zeros, weights=zeros, episode_rows=1)


def assert_acting_equals_learning(
    policy: Policy,
    parameters: dict[str, torch.Tensor],
    observations: Any,
    actions: Any,
    log_probs: Any,
    *,
    stacked: bool,
) -> None:
    """Each task's log-probabilities, as the actor gave them, are those of the distribution that is differentiated."""
    for task in range(len(actions)):
        own = {key: value[task] for key, value in parameters.items()} if stacked else parameters
        distribution = policy.distribution(own, observed(observations[task]))
        expected = distribution.log_prob(torch.as_tensor(actions[task])).detach().numpy()
        np.testing.assert_allclose(log_probs[task], expected, atol=2e-5)
