"""The inner objectives as functions of log-probabilities: their derivatives, and DiCE's by its equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.agents import (
    DICE,
    LIKELIHOOD_RATIO,
    POLICY_GRADIENT,
    InnerObjective,
    Samples,
    clipped_objective,
    likelihood_ratio_gain,
)


@dataclass(frozen=True)
class Given:
    """Stands in for a distribution: log-probabilities as they are given."""

    log_probs: Tensor

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probs


def episodes(lengths: list[int], seed: int, noise: float) -> tuple[Any, Samples]:
    """Samples of padded episodes, and log-probabilities that are ``noise`` away from those that acted."""
    rows = max(lengths) + 1
    generator = torch.Generator().manual_seed(seed)
    acted, moved, advantages = torch.randn(3, len(lengths), rows, generator=generator, dtype=torch.float64)
    mask = (torch.arange(rows) < torch.tensor(lengths)[:, None]).double()
    samples = Samples(
        observations=torch.zeros(len(lengths) * rows, 1),
        actions=torch.zeros(len(lengths) * rows, 1),
        log_probs=(acted + 1000.0 * (1.0 - mask)).flatten(),
        advantages=(advantages * mask).flatten(),
        weights=(mask / mask.sum()).flatten(),
        episode_rows=rows,
    )
    return (acted + noise * moved).flatten(), samples


def whole(objective: InnerObjective, log_probs: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return the first derivatives and the matrix of second derivatives, by the objective's own account."""
    first, second = objective.derivatives(Given(log_probs), samples)  # type: ignore[arg-type]
    columns = [torch.zeros_like(unit) if second is None else second(unit) for unit in torch.eye(len(first)).double()]
    return first, torch.stack(columns, dim=1)


@pytest.mark.parametrize(
    "objective",
    [POLICY_GRADIENT, LIKELIHOOD_RATIO, DICE, clipped_objective(0.3)],
    ids=["policy-gradient", "likelihood-ratio", "dice", "clipped"],
)
@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
    noise=st.sampled_from([0.0, 0.5]),
)
def test_derivatives_are_those_of_the_loss(
    objective: InnerObjective, lengths: list[int], seed: int, noise: float
) -> None:
    log_probs, samples = episodes(lengths, seed, noise)
    first, second = whole(objective, log_probs, samples)
    loss = lambda given: objective.loss(Given(given), samples)  # noqa: E731
    torch.testing.assert_close(first, torch.autograd.functional.jacobian(loss, log_probs))
    torch.testing.assert_close(second, torch.autograd.functional.hessian(loss, log_probs))
    h = 1e-6
    for unit in torch.eye(len(log_probs), dtype=torch.float64)[:4]:
        difference = (loss(log_probs + h * unit) - loss(log_probs - h * unit)) / (2 * h)
        assert float(first @ unit) == pytest.approx(float(difference), abs=1e-8)


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_dice_at_the_policy_that_acted_is_magic_boxes_with_stopped_gradients(lengths: list[int], seed: int) -> None:
    """Loaded DiCE as it is written, ``sum_t (B_{<=t} - B_{<t}) A_t``, and what follows: A of the later of two steps."""
    log_probs, samples = episodes(lengths, seed, 0.0)

    def loaded(given: Tensor) -> Tensor:
        sums = torch.where(samples.weights > 0, given - given.detach(), 0.0).reshape(len(lengths), -1).cumsum(dim=1)
        boxes = torch.cat([torch.ones_like(sums[:, :1]), sums.exp()], dim=1)
        return -(boxes.diff(dim=1).flatten() * samples.advantages * samples.weights).sum()

    first, second = whole(DICE, log_probs, samples)
    torch.testing.assert_close(first, torch.autograd.functional.jacobian(loaded, log_probs))
    torch.testing.assert_close(second, torch.autograd.functional.hessian(loaded, log_probs))
    torch.testing.assert_close(first, -samples.advantages * samples.weights)
    rows = samples.episode_rows
    for i in range(len(first)):
        for j in range(len(first)):
            later = first[max(i, j)] if i // rows == j // rows else torch.zeros_like(first[0])
            torch.testing.assert_close(second[i, j], later)


def test_dice_of_episodes_of_one_step_is_the_likelihood_ratio() -> None:
    log_probs, samples = episodes([1, 1, 1], 3, 0.5)
    for ours, theirs in zip(whole(DICE, log_probs, samples), whole(LIKELIHOOD_RATIO, log_probs, samples), strict=True):
        torch.testing.assert_close(ours, theirs)
    gain = likelihood_ratio_gain(Given(log_probs), samples)  # type: ignore[arg-type]
    torch.testing.assert_close(-DICE.loss(Given(log_probs), samples), gain)  # type: ignore[arg-type]
