"""A decision process with two states, small enough that expectations over its episodes are sums over all of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents import Policy, Samples, build_policy, discounted_returns
from metarl.gradients.flat import named

GAMMA = 0.9
# [state, action, next state], [state, action]; episodes start in state 0.
TRANSITIONS = torch.tensor([[[0.8, 0.2], [0.3, 0.7]], [[0.4, 0.6], [0.9, 0.1]]], dtype=torch.float64)
REWARDS = torch.tensor([[1.0, -0.5], [0.3, 2.0]], dtype=torch.float64)
START = torch.tensor([0.5, -0.4, 0.2, 0.9, -0.3, 0.1], dtype=torch.float64)  # parameters of the policy


def tabular_policy() -> Policy:
    """A softmax over the actions for each state: one layer on the state, one-hot."""
    return build_policy(
        spaces.Box(0.0, 1.0, (2,), np.float32),
        spaces.Discrete(2),
        name="MlpPolicy",
        seed=1,
        hidden_sizes=(),
        activation="tanh",
        output_gain=1.0,
        log_std_init=0.0,
        log_std_min=-2.0,
    )


POLICY = tabular_policy()


def log_policy(policy: Policy, vector: Tensor) -> Tensor:
    """Return log pi(a|s), ``[state, action]``."""
    parts = named(policy.shapes, vector)
    return torch.log_softmax(parts["action_net.weight"].mT + parts["action_net.bias"], dim=-1)


def action_values(
    log_pi: Tensor, horizon: int, transitions: Tensor = TRANSITIONS, rewards: Tensor = REWARDS
) -> list[Tensor]:
    """Return the expected discounted return Q_t(s, a) from step t on, ``[state, action]`` for each t (Bellman 1957)."""
    values, found = torch.zeros(len(log_pi), dtype=torch.float64), []
    for _ in range(horizon):
        found.append(rewards + GAMMA * transitions @ values)
        values = (log_pi.exp() * found[-1]).sum(dim=-1)
    return found[::-1]


def expected_return(log_pi: Tensor, horizon: int, **process: Tensor) -> Tensor:
    """Return the expected discounted return of episodes that start in state 0."""
    return (log_pi.exp() * action_values(log_pi, horizon, **process)[0])[0].sum()


def all_episodes(horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return states and actions ``[episode, time]`` of all episodes, and the chance ``[episode]`` of the states."""
    states, actions, chances = [], [], []
    for visited in itertools.product(range(2), repeat=horizon - 1):
        for chosen in itertools.product(range(2), repeat=horizon):
            path = (0, *visited)
            states.append(path)
            actions.append(chosen)
            moves = zip(path[:-1], chosen[:-1], path[1:], strict=True)
            chances.append(np.prod([float(TRANSITIONS[move]) for move in moves]))
    return torch.tensor(states), torch.tensor(actions), torch.tensor(chances, dtype=torch.float64)


def chances(policy: Policy, vector: Tensor, horizon: int) -> Tensor:
    """Return the probability of each of all episodes, ``[episode]``."""
    states, actions, moved = all_episodes(horizon)
    return moved * log_policy(policy, vector)[states, actions].sum(dim=1).exp()


def weighted_rewards(horizon: int) -> Tensor:
    """Return ``gamma^t r_t``, ``[episode, time]``, of all episodes."""
    states, actions, _ = all_episodes(horizon)
    return GAMMA ** torch.arange(horizon, dtype=torch.float64) * REWARDS[states, actions]


def expectation(policy: Policy, vector: Tensor, horizon: int, baseline: Tensor | None = None) -> Samples:
    """Return all episodes as samples of one task, weighted by probability: sums over samples are expectations.

    The advantages are ``gamma^t (G_t - b(s_t))``, with G_t the discounted return from step t on.

    Args:
        policy: that acts.
        vector: its parameters.
        horizon: steps of each episode.
        baseline: b, ``[state]``; 0 where it is not given.
    """
    states, actions, _ = all_episodes(horizon)
    returns = discounted_returns(REWARDS[states, actions], torch.ones(states.shape, dtype=torch.float64), GAMMA)
    if baseline is not None:
        returns = returns - baseline[states]
    weights = chances(policy, vector, horizon)[:, None].expand(-1, horizon)
    times = GAMMA ** torch.arange(horizon, dtype=torch.float64)
    rows = {
        "observations": torch.eye(2, dtype=torch.float64)[states],
        "actions": actions,
        "log_probs": log_policy(policy, vector)[states, actions],
        "advantages": times * returns,
        "weights": weights,
    }
    return Samples(**{name: part.flatten(0, 1)[None] for name, part in rows.items()}, episode_rows=horizon)


def drawn(policy: Policy, vector: Tensor, horizon: int, episodes: int) -> tuple[Samples, Tensor]:
    """Return every draw of so many episodes as samples of a task of its own, and the draws' probabilities ``[task]``.

    The weights are those of a mean over the steps of a draw, as learners have it.
    """
    one = expectation(policy, vector, horizon)
    chance = chances(policy, vector, horizon)
    draws = torch.tensor(list(itertools.product(range(len(chance)), repeat=episodes)))
    rows = (horizon * draws[:, :, None] + torch.arange(horizon)).flatten(1)
    samples = one.map(lambda part: part[0, rows])
    weights = torch.full_like(samples.weights, 1.0 / rows.shape[1])
    return replace(samples, weights=weights), chance[draws].prod(dim=1)


def exact(vector: Tensor, horizon: int) -> Tensor:
    """Return the expected discounted return of the policy with these parameters."""
    return expected_return(log_policy(POLICY, vector), horizon)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def far(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).norm()) > 0.01 * float(theirs.norm())
