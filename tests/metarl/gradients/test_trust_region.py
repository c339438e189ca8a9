"""Conjugate gradient, step length and line search, on problems with known answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.gradients.trust_region import conjugate_gradient, full_step, line_search


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_conjugate_gradient_solves_in_as_many_steps_as_dimensions(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size, dtype=torch.float64)
    target = torch.randn(size, generator=generator, dtype=torch.float64)
    solution, residual = conjugate_gradient(lambda v: matrix @ v, target, size + 2)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(residual, target - matrix @ solution, rtol=1e-6, atol=1e-8)


def test_a_zero_gradient_gives_a_zero_step() -> None:
    zero = torch.zeros(3)
    solution, residual = conjugate_gradient(lambda v: v, zero, 5)
    step = full_step(solution, residual, zero, 0.01)
    assert (step == 0).all()


def test_the_full_step_has_the_quadratic_kl_that_is_allowed() -> None:
    matrix = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    gradient = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    # Two iterations do not solve it, so the residual matters.
    solution, residual = conjugate_gradient(lambda v: matrix @ v, gradient, 2)
    step = full_step(solution, residual, gradient, 0.02)
    assert float(0.5 * step @ matrix @ step) == pytest.approx(0.02, rel=1e-9)


START = torch.zeros(1, dtype=torch.float64)
SEARCH = {"gain": torch.tensor(0.0, dtype=torch.float64), "max_kls": (0.1,), "steps": 15, "ratio": 0.5}


def test_the_line_search_takes_the_longest_step_within_bounds() -> None:
    found = line_search(lambda x: (x[0], x[0] ** 2), START, START + 1.0, **SEARCH)
    assert found.accepted == 2  # 0.25^2 <= 0.1 < 0.5^2
    assert found.parameters.item() == 0.25
    assert found.improvement == pytest.approx(0.25)
    assert found.kls == pytest.approx((0.0625,))
    # A second bound, on another KL, counts as the first does.
    both = line_search(lambda x: (x[0], x[0] ** 2, x[0]), START, START + 1.0, **{**SEARCH, "max_kls": (0.1, 0.2)})
    assert both.parameters.item() == 0.125


@settings(deadline=None, max_examples=80)
@given(
    gains=st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=15, max_size=15),
    kls=st.lists(st.floats(0, 0.3) | st.just(float("inf")) | st.just(float("nan")), min_size=15, max_size=15),
)
def test_the_line_search_never_accepts_a_worse_gain_or_a_kl_over_the_bound(
    gains: list[float], kls: list[float]
) -> None:
    tries = iter(zip(gains, kls, strict=True))

    def evaluate(_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gain, kl = next(tries)
        return torch.tensor(gain, dtype=torch.float64), torch.tensor(kl, dtype=torch.float64)

    found = line_search(evaluate, START, START + 1.0, **SEARCH)
    if found.accepted is None:
        assert torch.equal(found.parameters, START)
        assert found.improvement is None
        assert found.kls == ()
        assert not any(gain > 0 and kl <= 0.1 for gain, kl in zip(gains, kls, strict=True))
    else:
        assert gains[found.accepted] > 0
        assert kls[found.accepted] <= 0.1
        assert not any(gain > 0 and kl <= 0.1 for gain, kl in list(zip(gains, kls, strict=True))[: found.accepted])
