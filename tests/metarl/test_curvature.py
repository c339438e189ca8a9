"""The meta-gradient and the Fisher-vector product: both paths, double backward, finite differences, the quadratic."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pytest
import torch
from samples import double, make_policy, make_rollouts, make_samples
from torch import Tensor

import metarl.gradients.perceptron
import metarl.gradients.perceptron_backend
from metarl import MAML
from metarl.agents import (
    DICE,
    LIKELIHOOD_RATIO,
    POLICY_GRADIENT,
    Gaussian,
    InnerObjective,
    Parameters,
    Policy,
    Samples,
    likelihood_ratio_gain,
    mean_kl,
    to_samples,
)
from metarl.gradients.autograd_backend import GeneralPath
from metarl.gradients.context_backend import CONTEXT, ContextPath, ContextPolicy
from metarl.gradients.curvature import Chain, Curvature, adapted_kl, mean_over_tasks
from metarl.gradients.flat import flatten
from metarl.gradients.inner import Path, StepSize, choose_path
from metarl.gradients.meta_update import gradient_steps
from metarl.gradients.optimizers import first_moments
from metarl.gradients.perceptron_backend import FastPath
from metarl.gradients.trust_region import conjugate_gradient, full_step
from metarl.learners.e_maml import SamplingCredit
from metarl.learners.promp import KLPenalty
from metarl.settings import Clipped

CPU = torch.device("cpu")
STEP_SIZE = 0.3
HEADS = ["gaussian", "categorical", "multi-categorical"]


def context_policy(head: str, activation: str, sizes: tuple[int, ...]) -> ContextPolicy:
    return ContextPolicy(make_policy(head, activation, sizes), 3, seed=1)


def part(policy: Policy, which: str) -> frozenset[str] | None:
    """Names of what adapts: all, the last layers with the noise, it alone, a context, or some of here and there."""
    if which == "all":
        return None
    if which == "context":
        return frozenset({CONTEXT})
    if which == "noise":
        return frozenset({"log_std"})
    names = [name for name in policy.shapes if name != "log_std"]
    if which == "some":
        return frozenset({names[0], names[-1], *names[2:4]})
    last = names[-2 * int(which) :]
    return frozenset({*last, "log_std"} & set(policy.shapes))


def problem(
    head: str = "gaussian",
    steps: int = 1,
    activation: str = "tanh",
    sizes: tuple[int, ...] = (5, 4),
    path: str = "auto",
    objective: InnerObjective = POLICY_GRADIENT,
    step_sizes: list[StepSize] | None = None,
    keep: bool = True,
    rows: int = 7,
    parameters: Parameters | None = None,
    adapts: str = "all",
) -> tuple[Policy, Chain, Samples]:
    policy = (context_policy if adapts == "context" else make_policy)(head, activation, sizes)
    chosen: Path
    names = part(policy, adapts)
    if path in ("all at once", "one by one"):  # the first as on a GPU
        at_once: Any = "all" if path == "all at once" else "one"
        if isinstance(policy, ContextPolicy):
            chosen = ContextPath(policy, objective, keep=keep, device=CPU, at_once=at_once)
        else:
            chosen = FastPath(policy, objective, adapts=names, keep=keep, at_once=at_once)
    else:
        path = "fast" if path == "several at once" else path
        chosen = choose_path(policy, CPU, path=path, objective=objective, adapts=names, keep=keep)
    chain = Chain(policy, chosen, double(policy.parameters()) if parameters is None else parameters)
    for step in range(steps):
        chain.adapt(make_samples(policy, rows=rows, seed=step), step_sizes[step] if step_sizes else STEP_SIZE)
    return policy, chain, make_samples(policy, rows=rows, seed=9)


def adapted(
    policy: Policy,
    chain: Chain,
    shared: Parameters,
    task: int,
    objective: InnerObjective,
    sizes: list[StepSize],
    adapts: str = "all",
) -> Parameters:
    """Inner steps in one graph, from the shared parameters: the plain way, for comparison."""
    own = shared
    for support, size in zip(chain.supports, sizes, strict=True):
        samples = support.task(task)
        loss = objective.loss(policy.distribution(own, samples.observations), samples)
        slopes = torch.autograd.grad(loss, list(own.values()), create_graph=True, materialize_grads=True)
        scales = size if isinstance(size, dict) else dict.fromkeys(own, size)
        names = part(policy, adapts)
        scales = {name: value if names is None or name in names else 0.0 for name, value in scales.items()}
        own = {name: own[name] - scales[name] * slope for name, slope in zip(own, slopes, strict=True)}
    return own


def outer(
    policy: Policy,
    chain: Chain,
    query: Samples,
    shared: Parameters,
    objective: InnerObjective = POLICY_GRADIENT,
    sizes: list[StepSize] | None = None,
    adapts: str = "all",
) -> tuple[Tensor, Tensor]:
    """Mean gain and mean KL (from the adapted policies of the chain) of shared parameters, in one graph."""
    gains, kls = [], []
    for task in range(query.weights.shape[0]):
        samples = query.task(task)
        own = adapted(policy, chain, shared, task, objective, sizes or [STEP_SIZE] * len(chain.supports), adapts)
        new = policy.distribution(own, samples.observations)
        old = policy.distribution(
            {name: value[task] for name, value in chain.parameters[-1].items()}, samples.observations
        )
        gains.append(likelihood_ratio_gain(new, samples))
        kls.append(mean_kl(old, new, samples))
    return torch.stack(gains).mean(), torch.stack(kls).mean()


PLAIN, RATIO = "policy-gradient", "likelihood-ratio"
CASES = [
    *itertools.product(HEADS, ["tanh", "relu"], [(), (5,), (5, 4), (4, 6, 3)], [1], [PLAIN], [False], ["all"]),
    *itertools.product(HEADS, ["tanh"], [(5, 4)], [2, 3], [PLAIN, RATIO], [False, True], ["all"]),
    *itertools.product(HEADS, ["relu"], [(5, 4)], [1, 2], [RATIO], [True], ["all"]),
    *itertools.product(HEADS, ["tanh"], [(4, 6, 3)], [2], [RATIO], [False], ["1", "2", "3", "some", "context"]),
    *itertools.product(["gaussian"], ["relu"], [(), (5, 4)], [1, 2], [PLAIN], [True], ["1", "some", "context"]),
    *itertools.product(["gaussian"], ["tanh"], [(), (5, 4)], [2], [RATIO], [True], ["noise"]),
    *itertools.product(HEADS, ["tanh"], [(5, 4)], [1, 2], ["dice"], [True], ["all"]),
    *itertools.product(HEADS, ["relu"], [()], [1], ["dice"], [False], ["all"]),
    *itertools.product(["gaussian"], ["tanh"], [(5, 4)], [2], ["dice"], [False], ["1", "context"]),
]
OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO, "dice": DICE}


@pytest.mark.parametrize(("head", "activation", "sizes", "steps", "objective", "per_parameter", "adapts"), CASES)
def test_fast_path_general_path_and_double_backward_are_equal(
    head: str,
    activation: str,
    sizes: tuple[int, ...],
    steps: int,
    objective: str,
    per_parameter: bool,
    adapts: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = OBJECTIVES[objective]
    make = context_policy if adapts == "context" else make_policy
    parameters = double(make(head, activation, sizes).parameters())
    generator = torch.Generator().manual_seed(5)
    for name, value in parameters.items():
        if name.endswith("bias") or name == CONTEXT:
            value += 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    if head == "gaussian":
        parameters["log_std"][0] = -2.5  # below its floor
    step_sizes: list[StepSize] = [0.3 / (step + 1) for step in range(steps)]
    if per_parameter:
        step_sizes = [
            {
                name: 0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
                for name, value in parameters.items()
            }
            for _ in range(steps)
        ]
    vector = torch.randn(sum(value.numel() for value in parameters.values()), generator=generator, dtype=torch.float64)

    found = []
    paths = itertools.product(("several at once", "one by one", "all at once"), (True, False), (True, False))
    for path, keep, gathers in [*paths, ("general", True, False), ("general", False, False)]:
        # One by one with several blocks of rows, padded ones in some.
        monkeypatch.setattr(metarl.gradients.perceptron_backend, "BLOCK_NUMBERS", 60 if path == "one by one" else 2**17)
        monkeypatch.setattr(
            metarl.gradients.perceptron, "_spread_numbers", lambda _, few=path == "one by one": 40 if few else 2**17
        )
        monkeypatch.setattr(FastPath, "gathers", lambda _, samples, answer=gathers: answer and sizes != ())
        monkeypatch.setattr(
            FastPath, "keeps_output_slopes", lambda own, answer=gathers: answer and own.keep and sizes[1:] != ()
        )
        policy, chain, query = problem(
            head, steps, activation, sizes, path, inner, step_sizes, keep, parameters=parameters, adapts=adapts
        )
        curvature = Curvature(chain, query)
        assert chain.path.name == ("general" if path == "general" else "fast")
        assert isinstance(chain.parts[0], int if path in ("general", "one by one") else slice)
        moved = curvature.parameters + 0.05 * vector
        gain, kl = curvature.evaluate(moved)
        product = curvature.product(vector)
        found.append(
            [curvature.gain, curvature.gradient, product, gain, kl, *(value for value in chain.parameters[-1].values())]
        )

    shared = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    gain, kl = outer(policy, chain, query, shared, inner, step_sizes, adapts)
    values = list(shared.values())
    gradient = flatten(torch.autograd.grad(gain, values, retain_graph=True, materialize_grads=True))
    slope = flatten(torch.autograd.grad(kl, values, create_graph=True, materialize_grads=True))
    assert slope.abs().max() < 1e-10
    product = flatten(torch.autograd.grad(slope @ vector, values, materialize_grads=True))
    elsewhere = {name: value.requires_grad_() for name, value in chain.named(moved).items()}
    moved_gain, moved_kl = outer(policy, chain, query, elsewhere, inner, step_sizes, adapts)
    adapted_by_autograd = [adapted(policy, chain, shared, task, inner, step_sizes, adapts) for task in range(3)]
    expected = [
        *(value.detach() for value in (gain, gradient, product, moved_gain, moved_kl)),
        *(torch.stack([own[name].detach() for own in adapted_by_autograd]) for name in shared),
    ]
    for results in found:
        for ours, theirs in zip(results, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_fast_path_in_float32_is_close_to_float64() -> None:
    policy, exact, query = problem(steps=2, sizes=(16, 16), rows=50)
    single = Chain(policy, exact.path, policy.parameters())
    for support in exact.supports:
        single.adapt(to_single(support), STEP_SIZE)
    ours, theirs = Curvature(single, to_single(query)), Curvature(exact, query)
    vector = theirs.gradient / theirs.gradient.norm()
    for close, true in (
        (ours.gradient, theirs.gradient),
        (ours.product(vector.float()), theirs.product(vector)),
    ):
        assert float((close.double() - true).norm() / true.norm()) < 1e-5


def to_single(samples: Samples) -> Samples:
    return samples.map(lambda part: part.float())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_equals_finite_differences(head: str, steps: int) -> None:
    _, chain, query = problem(head, steps)
    curvature = Curvature(chain, query)
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
    _, chain, query = problem(head)
    curvature = Curvature(chain, query)
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
    _, chain, query = problem(steps=2)
    curvature = Curvature(chain, query)
    generator = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, len(curvature.parameters), dtype=torch.float64, generator=generator)
    assert float(u @ curvature.product(v)) == pytest.approx(float(v @ curvature.product(u)), rel=1e-9)
    assert float(u @ curvature.product(u)) > 0


def test_second_order_differs_from_first_order() -> None:
    policy, chain, query = problem()
    curvature = Curvature(chain, query)
    first_order = []
    for task in range(3):
        own = {name: value[task].clone().requires_grad_() for name, value in chain.parameters[-1].items()}
        samples = query.task(task)
        gain = likelihood_ratio_gain(policy.distribution(own, samples.observations), samples)
        first_order.append(flatten(torch.autograd.grad(gain, list(own.values()))))
    difference = curvature.gradient - torch.stack(first_order).mean(dim=0)
    assert difference.norm() > 0.01 * curvature.gradient.norm()


@pytest.mark.parametrize("path", ["several at once", "one by one", "all at once", "general"])
def test_thinned_products_stay_close_and_leave_the_gradient_alone(path: str) -> None:
    _, chain, query = problem(path=path, rows=400)
    whole, thin = Curvature(chain, query), Curvature(chain, query, fisher_fraction=0.5)
    torch.testing.assert_close(whole.gradient, thin.gradient)
    vector = whole.gradient / whole.gradient.norm()
    exact, close = whole.product(vector), thin.product(vector)
    assert 0 < float((exact - close).norm() / exact.norm()) < 0.3


@pytest.mark.parametrize("path", ["several at once", "one by one", "all at once", "general"])
def test_a_share_of_the_samples_leaves_a_coupled_hessian_whole(path: str) -> None:
    policy, chain, query = problem(path=path, objective=DICE)
    (support,) = chain.supports
    share = Curvature(chain, query, 0.5)
    vector = torch.randn(len(chain.vector), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    expected = []
    for task in range(3):
        own = {name: value.requires_grad_() for name, value in chain.named(chain.vector.clone()).items()}
        samples = support.task(task)
        loss = DICE.loss(policy.distribution(own, samples.observations), samples)
        slope = flatten(torch.autograd.grad(loss, list(own.values()), create_graph=True))

        def hessian(v: Tensor, slope: Tensor = slope, own: Parameters = own) -> Tensor:
            return flatten(torch.autograd.grad(slope @ v, list(own.values()), retain_graph=True))

        pushed = vector - STEP_SIZE * hessian(vector)
        adapted = flatten([value[task] for value in chain.parameters[1].values()])
        turned = GeneralPath(policy).adapted(adapted, query.thin(0.5).task(task)).fisher(pushed)
        expected.append(turned - STEP_SIZE * hessian(turned))
    torch.testing.assert_close(share.product(vector), torch.stack(expected).mean(dim=0), rtol=1e-9, atol=1e-11)
    assert (share.product(vector) - Curvature(chain, query).product(vector)).norm() > 0.01


def test_a_term_beside_a_coupled_objective_sees_the_same_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for numbers in (60, 2**17):  # several blocks, and one
        monkeypatch.setattr(metarl.gradients.perceptron_backend, "BLOCK_NUMBERS", numbers)
        _, chain, query = problem(path="one by one", objective=DICE)
        curvature = Curvature(chain, query, term=KLPenalty(chain, 0.5))
        vector = torch.randn(len(chain.vector), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        found.append((curvature.gain, curvature.gradient, *curvature.evaluate(curvature.parameters + 0.05 * vector)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)


class Parabola:
    """Stands in for a policy: one parameter, log pi = -h/2 (theta - c)^2, so that the inner loss is a parabola."""

    layers = None
    shapes: dict[str, torch.Size]

    def __init__(self, curve: float, centre: float) -> None:
        self.shapes = {"theta": torch.Size([1])}
        self._curve, self._centre = curve, centre

    def distribution(self, parameters: Parameters, observations: Tensor) -> Parabola.Distribution:
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
    chain = Chain(policy, choose_path(policy, CPU), {"theta": theta * one[0]})
    samples = Samples(observations=one, actions=one, log_probs=one, advantages=one, weights=one, episode_rows=1)
    chain.adapt(samples, alpha)
    found = float(chain.parameters[1]["theta"])
    assert found == pytest.approx(theta - alpha * curve * (theta - centre))
    query = replace(samples, log_probs=-0.5 * curve * (found - centre) ** 2 * one)
    first_order = curve * (1 - alpha * curve) * (theta - centre)
    second_order = curve * (1 - alpha * curve) ** 2 * (theta - centre)
    # The gain is what is maximised, the parabola what is minimised.
    assert -Curvature(chain, query).gradient.item() == pytest.approx(second_order)
    assert second_order != pytest.approx(first_order)


@pytest.mark.parametrize(
    ("path", "head", "objective", "adapts"),
    [
        *itertools.product(["fast", "general"], HEADS, ["policy-gradient"], ["all"]),
        *itertools.product(["fast"], HEADS, ["policy-gradient"], ["1", "context"]),
        ("fast", "gaussian", "dice", "all"),
    ],
)
def test_threads_and_grouping_of_tasks_change_no_bit(path: str, head: str, objective: str, adapts: str) -> None:
    policy, _, _ = problem(head, adapts=adapts)
    whole = make_samples(policy, tasks=5, rows=321), make_samples(policy, tasks=5, rows=321, seed=1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(update(policy, path, objective, adapts, *whole))
    finally:
        torch.set_num_threads(before)
    chosen = choose_path(policy, CPU, path=path, adapts=part(policy, adapts))
    assert not isinstance(chosen, FastPath) or chosen.gathers(whole[0])
    for other in results[1:]:
        assert all(torch.equal(first, second) for first, second in zip(results[0], other, strict=True))
    alone = [
        update(policy, path, objective, adapts, *(samples.map(itemgetter(slice(i, i + 1))) for samples in whole))
        for i in range(5)
    ]
    for i, (gradients, _) in enumerate(alone):
        assert torch.equal(gradients[0], results[0][0][i])
    assert torch.equal(mean_over_tasks(torch.stack([product for _, product in alone])), results[0][1])


def update(
    policy: Policy, path: str, objective: str, adapts: str, support: Samples, query: Samples
) -> tuple[Tensor, Tensor]:
    chosen = choose_path(policy, CPU, path=path, objective=OBJECTIVES[objective], adapts=part(policy, adapts))
    chain = Chain(policy, chosen, double(policy.parameters()))
    chain.adapt(support, STEP_SIZE)
    curvature = Curvature(chain, query)
    vector = torch.randn(len(chain.vector), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return curvature.gradients, curvature.product(vector)


def test_a_whole_run_has_the_same_bits_whatever_the_machines_thread_settings() -> None:
    code = (
        "from metarl import MAML\n"
        "model = MAML(learning={'tasks': 6, 'episodes': 10}, policy_kwargs={'hidden_sizes': (64, 64)},\n"
        "    evaluation={'tasks': 2, 'episodes': 2, 'steps': 1}).learn(2)\n"
        "import hashlib; from metarl.gradients.flat import flatten\n"
        "print(hashlib.sha256(flatten(model.parameters.values()).numpy().tobytes()).hexdigest())\n"
    )
    hashes = set()
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_a_policy_without_a_fast_path_is_refused_where_it_is_asked_for() -> None:
    policy = make_policy()
    assert choose_path(policy, CPU).name == "fast"
    with pytest.raises(ValueError, match="no fast path for this policy"):
        MAML(policy_kwargs={"activation_fn": torch.nn.ELU}, outer={"path": "fast"})


def test_how_many_tasks_are_taken_at_once() -> None:
    policy = make_policy(sizes=(64, 64))
    few, many = make_samples(policy, tasks=5, rows=20), make_samples(policy, tasks=5, rows=5000)
    on_cpu, elsewhere = choose_path(policy, CPU), choose_path(policy, torch.device("meta"))
    assert on_cpu.name == elsewhere.name == "fast"
    assert on_cpu.parts(few) == [slice(0, 3), slice(3, 5)]
    assert on_cpu.gathers(many)
    assert not on_cpu.gathers(few)
    wide = make_policy(sizes=(4, 20_000))
    assert not choose_path(wide, CPU).gathers(make_samples(wide, tasks=1, rows=5000))
    assert on_cpu.keeps_output_slopes()
    assert not choose_path(policy, CPU, keep=False).keeps_output_slopes()
    assert not choose_path(make_policy("multi-categorical"), CPU).keeps_output_slopes()
    assert not choose_path(make_policy(sizes=(64,)), CPU).keeps_output_slopes()
    assert on_cpu.parts(many) == list(range(5))
    assert elsewhere.parts(few) == elsewhere.parts(many) == [slice(None)]
    assert choose_path(policy, torch.device("meta"), path="general").parts(few) == list(range(5))


def test_memory_is_used_again_and_does_not_grow_with_episodes_of_changing_length() -> None:
    policy = make_policy(sizes=(64, 64))
    path = choose_path(policy, CPU)
    assert isinstance(path, FastPath)

    def iteration(rows: int) -> tuple[set[int], int]:
        """Where the tensors that lie free afterwards are, and how many numbers they have."""
        chain = Chain(policy, path, policy.parameters())
        chain.adapt(make_samples(policy, rows=rows).map(Tensor.float), STEP_SIZE)
        curvature = Curvature(chain, make_samples(policy, rows=rows, seed=1).map(Tensor.float))
        curvature.product(curvature.gradient)
        del chain, curvature
        gc.collect()
        free = [*path._store._free, *path._store._returned]
        places = {tensor.data_ptr() for tensor in free}
        assert len(places) == len(free)  # none twice
        return places, sum(map(len, free))

    places, longest = iteration(200)
    assert iteration(200) == (places, longest)
    sizes = [iteration(rows)[1] for rows in range(100, 200, 9)]
    assert max(sizes) <= 1.5 * longest


@pytest.mark.parametrize(
    ("head", "keep", "path", "objective"),
    [
        *itertools.product(HEADS, [True, False], ["auto", "general"], ["likelihood-ratio"]),
        *itertools.product(["gaussian"], [True], ["auto", "general"], ["dice"]),
    ],
)
def test_the_whole_update_runs_on_the_meta_device(head: str, keep: bool, path: str, objective: str) -> None:
    """A tensor on the wrong device, or a value read back to the host, fails here."""
    device = torch.device("meta")
    policy = make_policy(head)
    parameters = {name: value.to(device) for name, value in double(policy.parameters()).items()}
    batches = []
    for seed in range(2):
        rollouts = make_rollouts(policy, seed=seed).to(device)
        features = policy.features(rollouts.observations)
        batches.append(to_samples(rollouts, features, gamma=0.9, gae_lambda=0.8, discounted=objective == "dice"))
    chosen = choose_path(policy, device, path=path, objective=OBJECTIVES[objective], keep=keep)
    chain = Chain(policy, chosen, parameters)
    chain.adapt(batches[0], STEP_SIZE)
    curvature = Curvature(chain, batches[1], 0.5)
    solution, residual = conjugate_gradient(curvature.product, curvature.gradient, 10)
    step = full_step(solution, residual, curvature.gradient, 0.01)
    gain, kl = curvature.evaluate(curvature.parameters + step)
    for tensor in (*chain.parameters[1].values(), curvature.gain, curvature.gradient, step, gain, kl):
        assert tensor.device == device
        assert tensor.dtype == torch.float64
    assert curvature.gradients.shape == (3, len(step))


@pytest.mark.parametrize("path", ["auto", "general"])
@pytest.mark.parametrize("adapts", ["all", "1", "context"])
def test_steps_along_the_meta_gradient_run_on_the_meta_device(adapts: str, path: str) -> None:
    """With terms and several epochs; see above."""
    device = torch.device("meta")
    policy = context_policy("gaussian", "tanh", (5, 4)) if adapts == "context" else make_policy()
    rollouts = make_rollouts(policy).to(device)
    samples = to_samples(rollouts, policy.features(rollouts.observations), gamma=0.9, gae_lambda=0.8)
    parameters = {name: value.to(device) for name, value in double(policy.parameters()).items()}
    chain = Chain(policy, choose_path(policy, device, path=path, adapts=part(policy, adapts)), parameters)
    chain.adapt(samples, STEP_SIZE)
    credits = torch.ones(3, device=device)
    for term in (
        None,
        KLPenalty(chain, torch.ones((), device=device)),
        SamplingCredit([credits[part] for part in chain.parts]),
    ):
        state = first_moments("adam", chain.vector)
        vector, state, gradients = gradient_steps(chain, samples, Clipped(epochs=2), state, term)
        for tensor in (vector, *state.values(), gradients.norms, gradients.faulty, adapted_kl(chain, vector, samples)):
            assert tensor.device == device
        assert vector.shape == chain.vector.shape
        assert gradients.norms.shape == gradients.faulty.shape == (2,)
