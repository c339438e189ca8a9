"""The meta-gradient and the Fisher-vector product: finite differences, double backward, and the quadratic."""

from __future__ import annotations

import pytest
import torch
from samples import double, make_policy, make_samples
from torch import Tensor

from metarl.agents import Policy, Samples, likelihood_ratio_gain, mean_kl, policy_gradient_loss
from metarl.curvature import Chain, Curvature, InnerJacobian, flatten
from metarl.inner import inner_update

STEP_SIZE = 0.3
HEADS = ["gaussian", "categorical", "multi-categorical"]


def problem(head: str = "gaussian", steps: int = 1, activation: str = "tanh") -> tuple[Policy, Chain, Samples]:
    policy = make_policy(head, activation)
    chain = Chain([double(policy.parameters())], [], STEP_SIZE)
    for step in range(steps):
        chain.supports.append(make_samples(policy, seed=step))
        chain.parameters.append(inner_update(policy, chain.parameters[-1], chain.supports[-1], STEP_SIZE))
    return policy, chain, make_samples(policy, seed=9)


def adapted_by_autograd(policy: Policy, chain: Chain, shared: dict[str, Tensor], task: int) -> dict[str, Tensor]:
    """Inner steps in one graph, from the shared parameters: the plain way, for comparison."""
    own = shared
    for support in chain.supports:
        samples = support.task(task)
        loss = policy_gradient_loss(policy.distribution(own, samples.observations), samples)
        slopes = torch.autograd.grad(loss, list(own.values()), create_graph=True)
        own = {name: value - STEP_SIZE * slope for (name, value), slope in zip(own.items(), slopes, strict=True)}
    return own


def outer(policy: Policy, chain: Chain, query: Samples, shared: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean gain and mean KL (from the adapted policies of the chain) of shared parameters, in one graph."""
    gains, kls = [], []
    for task in range(query.weights.shape[0]):
        samples = query.task(task)
        new = policy.distribution(adapted_by_autograd(policy, chain, shared, task), samples.observations)
        old = policy.distribution(chain.at(len(chain.supports), task), samples.observations)
        gains.append(likelihood_ratio_gain(new, samples))
        kls.append(mean_kl(old, new, samples))
    return torch.stack(gains).mean(), torch.stack(kls).mean()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_and_product_equal_double_backward(head: str, steps: int) -> None:
    policy, chain, query = problem(head, steps)
    curvature = Curvature(policy, chain, query)
    shared = {name: value.clone().requires_grad_() for name, value in chain.parameters[0].items()}
    gain, kl = outer(policy, chain, query, shared)
    gradient = flatten(torch.autograd.grad(gain, list(shared.values()), retain_graph=True))
    torch.testing.assert_close(curvature.gradient, gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(curvature.gain, gain.detach())

    slope = flatten(torch.autograd.grad(kl, list(shared.values()), create_graph=True))
    assert slope.abs().max() < 1e-10
    vector = torch.randn(len(slope), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = flatten(torch.autograd.grad(slope @ vector, list(shared.values())))
    torch.testing.assert_close(curvature.product(vector), expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_equals_finite_differences(head: str, steps: int) -> None:
    policy, chain, query = problem(head, steps)
    curvature = Curvature(policy, chain, query)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        direction = torch.randn(len(curvature.parameters), dtype=torch.float64, generator=generator)
        direction /= direction.norm()
        h = 1e-5
        ahead, _ = curvature.evaluate(curvature.parameters + h * direction)
        behind, _ = curvature.evaluate(curvature.parameters - h * direction)
        slope = float(ahead - behind) / (2 * h)
        assert float(curvature.gradient @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_product_equals_finite_differences_of_the_kl(head: str) -> None:
    policy, chain, query = problem(head)
    curvature = Curvature(policy, chain, query)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = torch.randn(len(curvature.parameters), dtype=torch.float64, generator=generator)
        direction /= direction.norm()
        h = 1e-3
        _, ahead = curvature.evaluate(curvature.parameters + h * direction)
        _, behind = curvature.evaluate(curvature.parameters - h * direction)
        bend = float(ahead + behind) / h**2  # the KL at the parameters themselves is 0
        assert float(direction @ curvature.product(direction)) == pytest.approx(bend, rel=1e-3)


def test_product_is_symmetric_and_positive() -> None:
    policy, chain, query = problem(steps=2)
    curvature = Curvature(policy, chain, query)
    generator = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, len(curvature.parameters), dtype=torch.float64, generator=generator)
    assert float(u @ curvature.product(v)) == pytest.approx(float(v @ curvature.product(u)), rel=1e-9)
    assert float(u @ curvature.product(u)) > 0


def test_second_order_differs_from_first_order() -> None:
    policy, chain, query = problem()
    curvature = Curvature(policy, chain, query)
    first_order = []
    for task in range(3):
        own = {name: value.requires_grad_() for name, value in chain.at(1, task).items()}
        samples = query.task(task)
        gain = likelihood_ratio_gain(policy.distribution(own, samples.observations), samples)
        first_order.append(flatten(torch.autograd.grad(gain, list(own.values()))))
    difference = curvature.gradient - torch.stack(first_order).mean(dim=0)
    assert difference.norm() > 0.01 * curvature.gradient.norm()


def test_thinned_products_stay_close_and_leave_the_gradient_alone() -> None:
    policy = make_policy()
    chain = Chain([double(policy.parameters())], [make_samples(policy, rows=400)], STEP_SIZE)
    chain.parameters.append(inner_update(policy, chain.parameters[0], chain.supports[0], STEP_SIZE))
    query = make_samples(policy, rows=400, seed=1)
    whole, thin = Curvature(policy, chain, query), Curvature(policy, chain, query, fisher_fraction=0.5)
    torch.testing.assert_close(whole.gradient, thin.gradient)
    vector = whole.gradient / whole.gradient.norm()
    exact, close = whole.product(vector), thin.product(vector)
    assert 0 < float((exact - close).norm() / exact.norm()) < 0.3


class Quadratic:
    """Stands in for a policy: one parameter, inner loss h/2 (theta - c)^2."""


@pytest.mark.parametrize("curve", [0.5, 2.0])
def test_the_quadratic(curve: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second order h(1-ah)^2(theta-c), first order h(1-ah)(theta-c): Finn et al. 2017 worked out on a parabola."""
    centre, alpha, theta = 0.7, 0.3, 2.0

    def parabola(policy: object, parameters: dict[str, Tensor], samples: Samples, *, create_graph: bool = False):  # type: ignore[no-untyped-def]
        loss = 0.5 * curve * (parameters["theta"] - centre).square().sum()
        return torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph)

    monkeypatch.setattr("metarl.curvature.inner_gradient", parabola)
    samples = make_samples(make_policy())
    chain = Chain([{"theta": torch.tensor([theta], dtype=torch.float64)}], [samples], alpha)
    adapted = theta - alpha * curve * (theta - centre)
    jacobian = InnerJacobian(make_policy(), chain, chain.supports, 0)
    slope = torch.tensor([curve * (adapted - centre)], dtype=torch.float64)
    first_order = curve * (1 - alpha * curve) * (theta - centre)
    second_order = curve * (1 - alpha * curve) ** 2 * (theta - centre)
    assert slope.item() == pytest.approx(first_order)
    assert jacobian.backward((slope,))[0].item() == pytest.approx(second_order)
    assert jacobian.forward((slope,))[0].item() == pytest.approx(second_order)
    assert second_order != pytest.approx(first_order)


def test_grouping_of_tasks_changes_no_bit_of_the_sum() -> None:
    policy, chain, query = problem()
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            curvature = Curvature(policy, chain, query)
            results.append((curvature.gradient, curvature.product(curvature.gradient)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_the_whole_update_runs_on_the_meta_device() -> None:
    """A tensor on the wrong device, or a value read back to the host, fails here."""
    from metarl.agents import to_samples
    from metarl.trust_region import conjugate_gradient, full_step

    from samples import make_rollouts  # isort: skip

    device = torch.device("meta")
    policy = make_policy()
    parameters = {name: value.to(device) for name, value in double(policy.parameters()).items()}
    batches = []
    for seed in range(2):
        rollouts = make_rollouts(policy, seed=seed).to(device)
        batches.append(to_samples(rollouts, policy.features(rollouts.observations), gamma=0.9, gae_lambda=0.8))
    adapted = inner_update(policy, parameters, batches[0], STEP_SIZE)
    curvature = Curvature(policy, Chain([parameters, adapted], batches[:1], STEP_SIZE), batches[1], 0.5)
    solution, residual = conjugate_gradient(curvature.product, curvature.gradient, 10)
    step = full_step(solution, residual, curvature.gradient, 0.01)
    gain, kl = curvature.evaluate(curvature.parameters + step)
    for tensor in (*adapted.values(), curvature.gradient, step, gain, kl):
        assert tensor.device == device
