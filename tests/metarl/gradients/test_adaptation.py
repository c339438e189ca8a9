"""Inner updates equal per-task autograd; their Jacobians, through every linear map, equal finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from adaptations import (
    HEADS,
    adapt_all,
    adapt_context,
    adapt_with_learned_sizes,
    credit,
    derivative,
    directions,
)
from samples import double, make_policy, make_samples
from small import copied, same

from metarl.agents import DICE, LIKELIHOOD_RATIO, Parameters, policy_gradient_loss
from metarl.gradients.adaptation import Adaptation, inner_update
from metarl.gradients.curvature import Curvature


def stack(parts: list[Parameters]) -> Parameters:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("stacked", [False, True])
def test_a_step_equals_per_task_autograd(head: str, stacked: bool) -> None:
    policy = make_policy(head)
    samples = make_samples(policy)
    shared = double(policy.parameters())
    starts = [{name: value + 0.01 * task * stacked for name, value in shared.items()} for task in range(3)]
    adapted = inner_update(policy, stack(starts) if stacked else shared, samples, 0.25)
    for task, start in enumerate(starts):
        own = {name: value.clone().requires_grad_() for name, value in start.items()}
        of_task = samples.task(task)
        (-policy_gradient_loss(policy.distribution(own, of_task), of_task)).backward()
        for name, value in adapted.items():
            # Exactly alpha times the gradient: an unused step size or a forgotten sign shows.
            torch.testing.assert_close(value[task] - start[name], 0.25 * own[name].grad)


def test_the_shared_parameters_are_untouched() -> None:
    policy = make_policy()
    shared = double(policy.parameters())
    before = copied(shared)
    inner_update(policy, shared, make_samples(policy), 0.25)
    assert same(shared, before)
    assert not any(value.requires_grad for value in shared.values())


LEARNED: dict[str, Callable[[], Adaptation]] = {
    "all": adapt_all,
    "likelihood ratio": lambda: adapt_all(objective=LIKELIHOOD_RATIO),
    "dice": lambda: adapt_all(objective=DICE),
    "step sizes": adapt_with_learned_sizes,
    "step sizes of each step": lambda: adapt_with_learned_sizes(sets=2),
    "step sizes of each layer": lambda: adapt_with_learned_sizes(by_layer=True),
    "context": adapt_context,
}


@pytest.mark.parametrize(
    ("kind", "with_credit"),
    [
        ("all", False),
        ("likelihood ratio", False),
        ("dice", False),
        ("all", True),
        ("step sizes", False),
        ("step sizes of each step", False),
        ("step sizes of each layer", True),
        ("context", False),
        ("context", True),
    ],
)
def test_the_meta_gradient_equals_finite_differences(kind: str, with_credit: bool) -> None:
    adaptation = LEARNED[kind]()
    term = credit(adaptation) if with_credit else None
    curvature = Curvature(adaptation, make_samples(make_policy(), seed=9), term=term)
    gain, _ = curvature.evaluate(adaptation.vector)
    assert float(gain) == pytest.approx(float(curvature.gain), rel=1e-9)
    for direction in directions(len(adaptation.vector)):
        found = derivative(lambda vector: curvature.evaluate(vector)[0], adaptation.vector, direction)
        assert float(curvature.gradient @ direction) == pytest.approx(found, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("kind", ["step sizes", "step sizes of each step", "context"])
def test_the_fisher_product_equals_finite_differences_of_the_kl(kind: str) -> None:
    adaptation = LEARNED[kind]()
    curvature = Curvature(adaptation, make_samples(make_policy(), seed=9))
    h = 1e-3
    for direction in directions(len(adaptation.vector)):
        ahead, behind = (curvature.evaluate(adaptation.vector + sign * h * direction)[1] for sign in (1, -1))
        assert float(direction @ curvature.product(direction)) == pytest.approx(float(ahead + behind) / h**2, rel=1e-3)
