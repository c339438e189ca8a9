"""The meta-gradient and the Fisher product: finite differences, shares of the samples, and a parabola worked out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adaptations import (
    CPU,
    HEADS,
    STEP_SIZE,
    WAYS,
    adapt,
    derivative,
    directions,
    make_backend,
)
from samples import make_policy, make_samples
from torch import Tensor

from metarl.agents import (
    DICE,
    POLICY_GRADIENT,
    Gaussian,
    InnerObjective,
    Parameters,
    Policy,
    Samples,
    likelihood_ratio_gain,
)
from metarl.gradients.adaptation import Adaptation, choose_backend
from metarl.gradients.autograd_backend import AutogradBackend
from metarl.gradients.curvature import Curvature
from metarl.gradients.flat import flatten
from metarl.gradients.perceptron_backend import Plan
from metarl.learners.promp import KLPenalty


def problem(
    head: str = "gaussian",
    steps: int = 1,
    way: str = "several at once",
    objective: InnerObjective = POLICY_GRADIENT,
    *,
    rows: int = 7,
    plan: Plan | None = None,
) -> tuple[Adaptation, Samples]:
    policy = make_policy(head)
    adaptation = adapt(make_backend(policy, way, objective, plan=plan), policy, steps, rows=rows)
    return adaptation, make_samples(policy, rows=rows, seed=9)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_equals_finite_differences(head: str, steps: int) -> None:
    curvature = Curvature(*problem(head, steps))
    for direction in directions(len(curvature.vector), 4):
        found = derivative(lambda vector: curvature.evaluate(vector)[0], curvature.vector, direction)
        assert float(curvature.gradient @ direction) == pytest.approx(found, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_the_product_equals_finite_differences_of_the_kl(head: str) -> None:
    curvature = Curvature(*problem(head))
    h = 1e-3
    for direction in directions(len(curvature.vector), seed=3):
        _, ahead = curvature.evaluate(curvature.vector + h * direction)
        _, behind = curvature.evaluate(curvature.vector - h * direction)
        bend = float(ahead + behind) / h**2  # the KL at the parameters themselves is 0
        assert float(direction @ curvature.product(direction)) == pytest.approx(bend, rel=1e-3)


def test_the_product_is_symmetric_and_positive() -> None:
    curvature = Curvature(*problem(steps=2))
    generator = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, len(curvature.vector), dtype=torch.float64, generator=generator)
    assert float(u @ curvature.product(v)) == pytest.approx(float(v @ curvature.product(u)), rel=1e-9)
    assert float(u @ curvature.product(u)) > 0


def test_second_order_differs_from_first_order() -> None:
    adaptation, query = problem()
    curvature = Curvature(adaptation, query)
    first_order = []
    for task in range(3):
        own = {name: value[task].clone().requires_grad_() for name, value in adaptation.parameters[-1].items()}
        samples = query.task(task)
        gain = likelihood_ratio_gain(adaptation.policy.distribution(own, samples), samples)
        first_order.append(flatten(torch.autograd.grad(gain, list(own.values()))))
    difference = curvature.gradient - torch.stack(first_order).mean(dim=0)
    assert difference.norm() > 0.01 * curvature.gradient.norm()


@pytest.mark.parametrize("way", WAYS)
def test_products_from_a_share_of_the_samples_stay_close_and_leave_the_gradient_alone(way: str) -> None:
    adaptation, query = problem(way=way, rows=400)
    whole, share = Curvature(adaptation, query), Curvature(adaptation, query, fisher_fraction=0.5)
    torch.testing.assert_close(whole.gradient, share.gradient)
    vector = whole.gradient / whole.gradient.norm()
    exact, close = whole.product(vector), share.product(vector)
    assert 0 < float((exact - close).norm() / exact.norm()) < 0.3


@pytest.mark.parametrize("way", WAYS)
def test_a_share_of_the_samples_leaves_a_coupled_hessian_whole(way: str) -> None:
    adaptation, query = problem(way=way, objective=DICE)
    policy = adaptation.policy
    (support,) = adaptation.supports
    share = Curvature(adaptation, query, 0.5)
    vector = torch.randn(len(adaptation.vector), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    expected = []
    for task in range(3):
        own = {name: value.requires_grad_() for name, value in adaptation.named(adaptation.vector.clone()).items()}
        samples = support.task(task)
        loss = DICE.loss(policy.distribution(own, samples), samples)
        gradient = flatten(torch.autograd.grad(loss, list(own.values()), create_graph=True))

        def hessian(v: Tensor, gradient: Tensor = gradient, own: Parameters = own) -> Tensor:
            return flatten(torch.autograd.grad(gradient @ v, list(own.values()), retain_graph=True))

        pushed = vector - STEP_SIZE * hessian(vector)
        adapted = flatten([value[task] for value in adaptation.parameters[1].values()])
        turned = AutogradBackend(policy).adapted(adapted, query.subsample(0.5).task(task)).fisher(pushed)
        expected.append(turned - STEP_SIZE * hessian(turned))
    torch.testing.assert_close(share.product(vector), torch.stack(expected).mean(dim=0), rtol=1e-9, atol=1e-11)
    assert (share.product(vector) - Curvature(adaptation, query).product(vector)).norm() > 0.01


def test_a_term_beside_a_coupled_objective_sees_the_same_blocks_of_rows() -> None:
    found = []
    for plan in (Plan(block_numbers=60), Plan()):  # several blocks, and one
        adaptation, query = problem(way="one by one", objective=DICE, plan=plan)
        curvature = Curvature(adaptation, query, term=KLPenalty(adaptation, 0.5))
        vector = torch.randn(len(adaptation.vector), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        found.append((curvature.gain, curvature.gradient, *curvature.evaluate(curvature.vector + 0.05 * vector)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)


class Parabola:
    """Stands in for a policy: one parameter, log pi = -h/2 (theta - c)^2, so that the inner loss is a parabola."""

    layers = None
    shapes: dict[str, torch.Size]

    def __init__(self, curve: float, centre: float) -> None:
        self.shapes = {"theta": torch.Size([1])}
        self._curve, self._centre = curve, centre

    def distribution(self, parameters: Parameters, samples: Samples) -> Parabola.Distribution:
        return self.Distribution(-0.5 * self._curve * (parameters["theta"] - self._centre).square())

    class Distribution(Gaussian):
        def __init__(self, value: Tensor) -> None:
            super().__init__(value, 0.0 * value)

        def log_prob(self, actions: Tensor) -> Tensor:
            return self.mean

        def detach(self) -> Parabola.Distribution:
            return type(self)(self.mean.detach())


@pytest.mark.parametrize("curve", [0.5, 2.0])
def test_the_quadratic(curve: float) -> None:
    """Second order h(1-ah)^2(theta-c), first order h(1-ah)(theta-c): Finn et al. 2017 worked out on a parabola."""
    centre, alpha, theta = 0.7, 0.3, 2.0
    policy: Policy = Parabola(curve, centre)  # type: ignore[assignment]
    one = torch.ones(1, 1, dtype=torch.float64)
    adaptation = Adaptation(policy, choose_backend(policy, CPU), theta * one[0])
    samples = Samples(observations=one, actions=one, log_probs=one, advantages=one, weights=one, episode_rows=1)
    adaptation.adapt(samples, alpha)
    found = float(adaptation.parameters[1]["theta"])
    assert found == pytest.approx(theta - alpha * curve * (theta - centre))
    query = replace(samples, log_probs=-0.5 * curve * (found - centre) ** 2 * one)
    first_order = curve * (1 - alpha * curve) * (theta - centre)
    second_order = curve * (1 - alpha * curve) ** 2 * (theta - centre)
    # The gain is what is maximised, the parabola what is minimised.
    assert -Curvature(adaptation, query).gradient.item() == pytest.approx(second_order)
    assert second_order != pytest.approx(first_order)
