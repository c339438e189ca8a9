"""The linear feature baseline against least squares, task by task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.agents.baselines import baseline_features, linear_baseline


def test_features_are_those_of_the_source() -> None:
    features = baseline_features(torch.tensor([[[[2.0], [3.0]]]], dtype=torch.float64))
    assert features[0, 0, 0].tolist() == [2.0, 4.0, 0.0, 0.0, 0.0, 1.0]
    assert features[0, 0, 1].tolist() == pytest.approx([3.0, 9.0, 0.01, 0.0001, 0.000001, 1.0])


def test_the_fit_equals_least_squares_over_the_steps_that_ran() -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(2, 5, 9, 2, generator=generator, dtype=torch.float64)
    returns = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    mask = (torch.arange(8) < torch.tensor([[8, 3, 5, 8, 1], [2, 8, 8, 4, 6]])[..., None]).double()
    values = linear_baseline(observations, returns, mask)
    features = baseline_features(observations)
    for task in range(2):
        ran = mask[task] > 0
        solution, *_ = np.linalg.lstsq(features[task, :, :-1][ran].numpy(), returns[task][ran].numpy(), rcond=None)
        expected = features[task].numpy() @ solution
        np.testing.assert_allclose(values[task].numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_singular_features_give_finite_values(scale: float) -> None:
    column = torch.randn(1, 2, 4, 1) * scale
    observations = torch.cat([column, column, torch.ones_like(column)], dim=-1)
    values = linear_baseline(observations, torch.randn(1, 2, 3), torch.ones(1, 2, 3))
    assert torch.isfinite(values).all()


def test_a_single_step_gives_finite_values() -> None:
    mask = torch.zeros(1, 2, 5)
    mask[0, 0, 0] = mask[0, 1, 0] = 1.0
    values = linear_baseline(torch.randn(1, 2, 6, 3), torch.randn(1, 2, 5), mask)
    assert torch.isfinite(values).all()


def test_what_is_padded_changes_nothing() -> None:
    observations, returns = torch.randn(1, 3, 5, 2), torch.randn(1, 3, 4)
    mask = torch.tensor([[[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]])
    wild = observations.clone()
    wild[0, 1, 3:] = 1e3
    first = linear_baseline(observations, returns, mask)
    second = linear_baseline(wild, torch.where(mask > 0, returns, 1e5), mask)
    np.testing.assert_allclose(first[0, 0].numpy(), second[0, 0].numpy(), rtol=1e-6)
