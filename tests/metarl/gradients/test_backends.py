"""Every backend against double backward: adapted parameters, gain, meta-gradient, Fisher product and KL."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from adaptations import HEADS, OBJECTIVES, WAYS, adapt, adapting, make_backend, make_policy_for
from samples import double, make_policy, make_samples
from torch import Tensor

from metarl.agents import Parameters, Policy, Samples, likelihood_ratio_gain, mean_kl
from metarl.agents.policies.context import CONTEXT
from metarl.gradients.adaptation import StepSize
from metarl.gradients.backend import Backend
from metarl.gradients.curvature import Curvature
from metarl.gradients.flat import flatten, named
from metarl.gradients.perceptron_backend import Plan

TASKS = 3


@dataclass(frozen=True)
class Case:
    """Inner updates of a small policy."""

    head: str
    activation: str
    sizes: tuple[int, ...]
    steps: int
    objective: str
    per_parameter: bool  # a step size for each
    adapts: str

    @functools.cached_property
    def policy(self) -> Policy:
        return make_policy_for(self.adapts, self.head, self.activation, self.sizes)


PLAIN, RATIO = "policy-gradient", "likelihood-ratio"
CASES = [
    *itertools.product(HEADS, ["tanh", "relu"], [(), (5,), (5, 4), (4, 6, 3)], [1], [PLAIN], [False], ["all"]),
    *itertools.product(HEADS, ["tanh"], [(5, 4)], [2, 3], [PLAIN, RATIO], [False, True], ["all"]),
    *itertools.product(HEADS, ["relu"], [(5, 4)], [1, 2], [RATIO], [True], ["all"]),
    *itertools.product(HEADS, ["tanh"], [(4, 6, 3)], [2], [RATIO], [False], ["1", "2", "3", "some", "context"]),
    *itertools.product(["gaussian"], ["relu"], [(), (5, 4)], [1, 2], [PLAIN], [True], ["1", "some", "context"]),
    *itertools.product(["gaussian"], ["tanh"], [(), (5, 4)], [2], [RATIO], [True], ["noise"]),
    *itertools.product(HEADS, ["tanh"], [(5, 4)], [2], [RATIO], [True], ["low-rank", "updates", "frozen", "masked"]),
    *itertools.product(["gaussian"], ["relu"], [(4, 6, 3)], [1], [PLAIN], [False], ["low-rank", "updates", "masked"]),
    *itertools.product(HEADS, ["tanh"], [(5, 4)], [1, 2], ["dice"], [True], ["all"]),
    *itertools.product(HEADS, ["relu"], [()], [1], ["dice"], [False], ["all"]),
    *itertools.product(["gaussian"], ["tanh"], [(5, 4)], [2], ["dice"], [False], ["1", "context"]),
]


def backends(case: Case) -> list[tuple[str, Backend]]:
    """Return all ways to compute a case, with the tasks that each takes at once."""
    policy = case.policy
    found = []
    for way, keep, common in itertools.product(WAYS, (True, False), (True, False)):
        if way == "general" and not common:
            continue
        plan = Plan(gathers=common, keeps_output_derivatives=common)
        if way == "one by one":  # in several blocks of rows, padded ones in some
            plan = Plan(block_numbers=60, spread_numbers=40, gathers=common, keeps_output_derivatives=common)
        objective, adapts = OBJECTIVES[case.objective], adapting(policy, case.adapts)
        found.append((way, make_backend(policy, way, objective, adapts=adapts, keep=keep, plan=plan)))
    return found


def start(case: Case, generator: torch.Generator) -> Tensor:
    """Return parameters of which none is 0, and some of the noise is below its floor."""
    parameters = double(case.policy.parameters())
    for name, value in parameters.items():
        if name.endswith("bias") or name == CONTEXT:
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    if case.head == "gaussian":
        parameters["log_std"][0] = -2.5
    return flatten(parameters.values())


def step_sizes(case: Case, generator: torch.Generator) -> list[StepSize]:
    if not case.per_parameter:
        return [0.3 / (step + 1) for step in range(case.steps)]
    shapes = case.policy.shapes
    return [
        {name: 0.3 * torch.rand(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
        for _ in range(case.steps)
    ]


def adapted(case: Case, shared: Parameters, sizes: Sequence[StepSize], task: int) -> Parameters:
    """Return a task's parameters after inner steps in one graph, from the shared parameters."""
    policy, own = case.policy, shared
    names = adapting(policy, case.adapts)
    for step, size in enumerate(sizes):
        samples = make_samples(policy, seed=step).task(task)
        loss = OBJECTIVES[case.objective].loss(policy.distribution(own, samples), samples)
        gradients = torch.autograd.grad(loss, list(own.values()), create_graph=True, materialize_grads=True)
        scales = size if isinstance(size, dict) else dict.fromkeys(own, size)
        scales = {name: value if names is None or name in names else 0.0 for name, value in scales.items()}
        own = {name: own[name] - scales[name] * part for name, part in zip(own, gradients, strict=True)}
    return own


def objectives(
    case: Case, shared: Parameters, old: Sequence[Parameters], sizes: Sequence[StepSize], query: Samples
) -> tuple[Tensor, Tensor]:
    """Return mean gain and mean KL, from old adapted policies, of shared parameters in one graph."""
    policy = case.policy
    gains, kls = [], []
    for task in range(TASKS):
        samples = query.task(task)
        new = policy.distribution(adapted(case, shared, sizes, task), samples)
        gains.append(likelihood_ratio_gain(new, samples))
        kls.append(mean_kl(policy.distribution(old[task], samples), new, samples))
    return torch.stack(gains).mean(), torch.stack(kls).mean()


def by_double_backward(
    case: Case, vector: Tensor, sizes: Sequence[StepSize], query: Samples, direction: Tensor, moved: Tensor
) -> list[Tensor]:
    """Return gain, its gradient and the KL's Hessian times a direction, gain and KL elsewhere, adapted parameters."""
    shapes = case.policy.shapes
    shared = {name: value.clone().requires_grad_() for name, value in named(shapes, vector).items()}
    values = list(shared.values())
    by_task = [adapted(case, shared, sizes, task) for task in range(TASKS)]
    old = [{name: value.detach() for name, value in own.items()} for own in by_task]
    gain, kl = objectives(case, shared, old, sizes, query)
    gradient = flatten(torch.autograd.grad(gain, values, retain_graph=True, materialize_grads=True))
    of_kl = flatten(torch.autograd.grad(kl, values, create_graph=True, materialize_grads=True))
    assert of_kl.abs().max() < 1e-10
    product = flatten(torch.autograd.grad(of_kl @ direction, values, materialize_grads=True))
    elsewhere = {name: value.clone().requires_grad_() for name, value in named(shapes, moved).items()}
    moved_gain, moved_kl = objectives(case, elsewhere, old, sizes, query)
    stacked = [torch.stack([own[name] for own in old]) for name in shapes]
    return [*(part.detach() for part in (gain, gradient, product, moved_gain, moved_kl)), *stacked]


def by_backend(
    case: Case, backend: Backend, vector: Tensor, sizes: Sequence[StepSize], query: Samples, direction: Tensor
) -> list[Tensor]:
    """Return what ``by_double_backward`` returns."""
    adaptation = adapt(backend, case.policy, case.steps, vector=vector, sizes=sizes)
    curvature = Curvature(adaptation, query)
    gain, kl = curvature.evaluate(curvature.vector + 0.05 * direction)
    product = curvature.product(direction)
    return [curvature.gain, curvature.gradient, product, gain, kl, *adaptation.parameters[-1].values()]


@pytest.mark.parametrize(
    "case", [Case(*values) for values in CASES], ids=lambda case: "-".join(map(str, vars(case).values()))
)
def test_every_backend_equals_double_backward(case: Case) -> None:
    generator = torch.Generator().manual_seed(5)
    vector, sizes = start(case, generator), step_sizes(case, generator)
    direction = torch.randn(len(vector), generator=generator, dtype=torch.float64)
    query = make_samples(case.policy, seed=9)
    expected = by_double_backward(case, vector, sizes, query, direction, vector + 0.05 * direction)
    for way, backend in backends(case):
        assert backend.name == ("general" if way == "general" else "fast")
        assert isinstance(backend.groups(query)[0], int if way in ("general", "one by one") else slice)
        found = by_backend(case, backend, vector, sizes, query, direction)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def to_single(samples: Samples) -> Samples:
    return samples.map(lambda part: part.float())


def test_the_fast_path_in_float32_is_close_to_float64() -> None:
    policy = make_policy(sizes=(16, 16))
    backend = make_backend(policy)
    exact, query = adapt(backend, policy, 2, rows=50), make_samples(policy, rows=50, seed=9)
    single = type(exact)(policy, backend, exact.vector.float())
    for support in exact.supports:
        single.adapt(to_single(support), 0.3)
    ours, theirs = Curvature(single, to_single(query)), Curvature(exact, query)
    vector = theirs.gradient / theirs.gradient.norm()
    for close, true in (
        (ours.gradient, theirs.gradient),
        (ours.product(vector.float()), theirs.product(vector)),
    ):
        assert float((close.double() - true).norm() / true.norm()) < 1e-5
