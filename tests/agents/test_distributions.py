"""Our action distributions against torch's, and their Fisher matrices against the KL's Hessian."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarl.agents import Categorical, Gaussian, MultiCategorical


def cases() -> list[tuple[Any, Any, Any]]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gaussian = Gaussian(randn(4, 2), randn(4, 2) * 0.3), Gaussian(randn(4, 2), randn(4, 2) * 0.3), randn(4, 2)
    choice = Categorical(randn(4, 3)), Categorical(randn(4, 3)), torch.tensor([0, 2, 1, 1])
    multi = (
        MultiCategorical(randn(4, 5), (2, 3)),
        MultiCategorical(randn(4, 5), (2, 3)),
        torch.tensor([[0, 2], [1, 1], [1, 0], [0, 0]]),
    )
    return [gaussian, choice, multi]


def torch_twin(distribution: Any) -> list[torch.distributions.Distribution]:
    if isinstance(distribution, Gaussian):
        normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        return [torch.distributions.Independent(normal, 1)]
    if isinstance(distribution, Categorical):
        return [torch.distributions.Categorical(logits=distribution.logits)]
    parts = distribution.logits.split(list(distribution.sizes), dim=-1)
    return [torch.distributions.Categorical(logits=part) for part in parts]


@pytest.mark.parametrize(("one", "other", "actions"), cases(), ids=["gaussian", "categorical", "multi"])
def test_log_prob_entropy_and_kl_equal_torchs(one: Any, other: Any, actions: torch.Tensor) -> None:
    twins, others = torch_twin(one), torch_twin(other)
    split = [actions] if len(twins) == 1 else list(actions.unbind(-1))
    log_prob = sum(twin.log_prob(part) for twin, part in zip(twins, split, strict=True))
    torch.testing.assert_close(one.log_prob(actions), log_prob)
    torch.testing.assert_close(one.entropy(), sum(twin.entropy() for twin in twins))
    kl = sum(torch.distributions.kl_divergence(a, b) for a, b in zip(twins, others, strict=True))
    torch.testing.assert_close(one.kl(other), kl)


@pytest.mark.parametrize(("one", "other", "actions"), cases(), ids=["gaussian", "categorical", "multi"])
def test_metric_is_the_hessian_of_the_kl(one: Any, other: Any, actions: torch.Tensor) -> None:
    tangents = tuple(torch.randn_like(part) for part in one.parameters)

    def kl(*parameters: torch.Tensor) -> torch.Tensor:
        if isinstance(one, MultiCategorical):
            return one.kl(MultiCategorical(*parameters, one.sizes)).sum()
        return one.kl(type(one)(*parameters)).sum()

    _, expected = torch.autograd.functional.hvp(kl, one.parameters, tangents)
    for found, wanted in zip(one.metric(tangents), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("one", "other", "actions"), cases(), ids=["gaussian", "categorical", "multi"])
def test_score_is_the_gradient_of_log_prob(one: Any, other: Any, actions: torch.Tensor) -> None:
    own = [part.clone().requires_grad_() for part in one.parameters]
    rest = (one.sizes,) if isinstance(one, MultiCategorical) else ()
    expected = torch.autograd.grad(type(one)(*own, *rest).log_prob(actions).sum(), own)
    for found, wanted in zip(one.score(actions), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("one", "other", "actions"), cases(), ids=["gaussian", "categorical", "multi"])
def test_kl_gradient_is_that_of_the_kl_by_the_other(one: Any, other: Any, actions: torch.Tensor) -> None:
    own = [part.clone().requires_grad_() for part in other.parameters]
    rest = (one.sizes,) if isinstance(one, MultiCategorical) else ()
    expected = torch.autograd.grad(one.kl(type(one)(*own, *rest)).sum(), own)
    for found, wanted in zip(one.kl_gradient(other), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all((part == 0).all() for part in one.kl_gradient(one))


def test_log_prob_is_summed_over_action_dimensions() -> None:
    one = Gaussian(torch.zeros(1, 3), torch.zeros(1, 3)).log_prob(torch.zeros(1, 3))
    assert one.item() == pytest.approx(-1.5 * torch.log(torch.tensor(2 * torch.pi)).item())
