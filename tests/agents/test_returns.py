"""Returns and advantages against plain loops, episode by episode."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.agents import discounted_returns, generalized_advantages, normalize


def plain_returns(rewards: list[float], gamma: float) -> list[float]:
    return [sum(gamma ** (j - i) * rewards[j] for j in range(i, len(rewards))) for i in range(len(rewards))]


def plain_advantages(
    rewards: list[float], values: list[float], terminated: bool, gamma: float, lam: float
) -> list[float]:
    n = len(rewards)
    deltas = []
    for t in range(n):
        following = 0.0 if terminated and t == n - 1 else values[t + 1]
        deltas.append(rewards[t] + gamma * following - values[t])
    return [sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, n)) for i in range(n)]


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    terminated=st.lists(st.booleans(), min_size=4, max_size=4),
    gamma=st.floats(0.0, 1.0),
    lam=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_padded_batches_equal_plain_loops(
    lengths: list[int], terminated: list[bool], gamma: float, lam: float, seed: int
) -> None:
    steps = max(lengths) + 2
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(1, len(lengths), steps, generator=generator, dtype=torch.float64)
    values = torch.randn(1, len(lengths), steps + 1, generator=generator, dtype=torch.float64)
    mask = torch.zeros_like(rewards)
    ends = torch.zeros_like(rewards, dtype=torch.bool)
    stops = torch.zeros_like(ends)
    for i, n in enumerate(lengths):
        mask[0, i, :n] = 1.0
        (ends if terminated[i] else stops)[0, i, n - 1] = True
    returns = discounted_returns(rewards, mask, gamma)
    advantages = generalized_advantages(rewards, values, mask, ends, stops, gamma=gamma, gae_lambda=lam)
    for i, n in enumerate(lengths):
        expected = plain_returns(rewards[0, i, :n].tolist(), gamma)
        assert returns[0, i, :n].tolist() == pytest.approx(expected)
        expected = plain_advantages(
            rewards[0, i, :n].tolist(), values[0, i, : n + 1].tolist(), terminated[i], gamma, lam
        )
        assert advantages[0, i, :n].tolist() == pytest.approx(expected)
        assert (returns[0, i, n:] == 0).all()
        assert (advantages[0, i, n:] == 0).all()


def test_terminated_and_truncated_differ_by_the_value_of_the_last_observation() -> None:
    rewards, values = torch.ones(1, 1, 1), torch.tensor([[[2.0, 5.0]]])
    yes, no = torch.ones(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, 1, dtype=torch.bool)
    mask = torch.ones(1, 1, 1)
    ended = generalized_advantages(rewards, values, mask, yes, no, gamma=0.5, gae_lambda=1.0)
    cut = generalized_advantages(rewards, values, mask, no, yes, gamma=0.5, gae_lambda=1.0)
    assert ended.item() == pytest.approx(1.0 - 2.0)
    assert cut.item() == pytest.approx(1.0 + 0.5 * 5.0 - 2.0)


def test_normalize_is_per_task_and_ignores_padding() -> None:
    values = torch.randn(2, 3, 4, dtype=torch.float64) * 5 + 2
    mask = torch.ones_like(values)
    mask[1, 2, 1:] = 0.0
    wild = torch.where(mask > 0, values, 1e6)
    result = normalize(wild, mask, wild)
    for task in range(2):
        ran = result[task][mask[task] > 0]
        assert ran.mean().item() == pytest.approx(0.0, abs=1e-12)
        assert ran.std(correction=0).item() == pytest.approx(1.0, abs=1e-6)
    assert (result[mask == 0] == 0).all()


def test_normalize_of_equal_values_is_zero() -> None:
    assert (normalize(torch.full((1, 2, 3), 7.0), torch.ones(1, 2, 3), torch.ones(1, 2, 3)) == 0).all()
