"""The update on a GPU: what the host reads, and the same numbers as on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import methodcaller
from typing import Any

import pytest
import torch
from adaptations import start
from samples import make_policy, make_samples
from small import small
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.agents import DICE, POLICY_GRADIENT, InnerObjective
from metarl.gradients.adaptation import Adaptation, choose_backend
from metarl.gradients.curvature import Curvature
from metarl.gradients.flat import flatten
from metarl.gradients.folds import FoldedBackend, how_to_fold
from metarl.gradients.perceptron_backend import PerceptronBackend

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
READS = ("item", "tolist", "cpu", "__float__", "__int__", "__bool__", "__index__")


class Reads(TorchDispatchMode):
    """Counts what the host reads of tensors while it is on: in Python, and what PyTorch itself reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: list[str] = []
        self.on = True
        for name in READS:
            monkeypatch.setattr(torch.Tensor, name, self._counting(name, getattr(torch.Tensor, name)))

    def _counting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.on:
                self.found.append(name)
            on, self.on = self.on, False
            try:
                return original(tensor, *args, **kwargs)
            finally:
                self.on = on

        return read

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.on and func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def all_at_once(model: Any) -> Any:
    """Return a learner of which the fast path takes all tasks at once, as on a GPU."""
    policy, given = model.functional_policy, model.backend
    if (folding := how_to_fold(policy, model.adapts, model.device)) is not None:
        model.backend = FoldedBackend(*folding, given.objective, keep=True, device=model.device, at_once="all")
    else:
        model.backend = PerceptronBackend(policy, given.objective, adapts=model.adapts, at_once="all")
    return model


def two_steps(name: str, **changes: Any) -> Any:
    return small(name, inner={"steps": 2}, policy_kwargs={"hidden_sizes": (5, 5)}, family_kwargs={}, **changes)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What other threads read is not counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reads_of_an_iteration(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the host reads in the second iteration of a learner that has made one, but for playing."""
    reads = Reads(monkeypatch)
    collect = model.collect

    def collect_unwatched(*args: Any, **kwargs: Any) -> Any:
        reads.on = False
        try:
            return collect(*args, **kwargs)
        finally:
            reads.on = True

    monkeypatch.setattr(model, "collect", collect_unwatched)
    with reads:
        model.meta_iteration(model.state, 2)
    return reads.found


@pytest.mark.parametrize("normalize", [False, True])
def test_the_host_reads_what_the_line_search_decides_on_and_the_metrics_once(
    normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_steps(
        "maml",
        learning={"episodes": 3, "normalize_observations": normalize, "normalize_rewards": normalize},
        outer={"fisher_fraction": 0.5, "line_search_ratio": 0.5},
    )
    all_at_once(model).learn(iterations=1)
    tried: list[int] = []
    evaluate = Curvature.evaluate
    monkeypatch.setattr(Curvature, "evaluate", lambda self, vector: (tried.append(1), evaluate(self, vector))[1])
    found = reads_of_an_iteration(model, monkeypatch)
    assert len(tried) >= 1
    # One for each candidate; then, when all is decided, the gradient's norm and the metrics.
    assert found == ["tolist"] * (len(tried) + 1)


UPDATES = [
    ("maml", {"update": "ppo"}),
    ("maml", {"update": "vpg"}),
    ("fomaml", {"update": "ppo"}),
    ("e-maml", {"update": "ppo"}),
    ("promp", {"adaptive": True}),
    ("meta-sgd", {"update": "ppo", "per_step": True}),
    ("anil", {"update": "ppo"}),
    ("cavia", {"update": "ppo"}),
]


@pytest.mark.parametrize(("name", "outer"), UPDATES)
def test_steps_along_the_meta_gradient_are_read_once_when_all_is_decided(
    name: str, outer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = all_at_once(two_steps(name, outer=outer, learning={"episodes": 3})).learn(iterations=1)
    assert reads_of_an_iteration(model, monkeypatch) == ["tolist"]


# With so few samples the trust region's system of equations is nearly singular: damped, rounding errors stay small.
DAMPED = [(name, {"damping": 0.1}) for name in ("e-maml", "meta-sgd", "anil", "cavia")]


@pytest.mark.filterwarnings("ignore:.*nothing is learned")
@pytest.mark.parametrize(("name", "outer"), [*UPDATES, *DAMPED])
def test_all_tasks_at_once_learn_what_they_learn_in_parts(name: str, outer: dict[str, Any]) -> None:
    untrained, in_parts, at_once = (two_steps(name, outer=outer, learning={"episodes": 3}) for _ in range(3))
    in_parts.learn(iterations=1)
    all_at_once(at_once).learn(iterations=1)
    before, one, other = (flatten(model.parameters.values()) for model in (untrained, in_parts, at_once))
    assert float((other - one).norm()) < 0.01 * float((one - before).norm())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("objective", [POLICY_GRADIENT, DICE], ids=["policy-gradient", "dice"])
@pytest.mark.parametrize("head", ["gaussian", "categorical", "multi-categorical"])
def test_a_gpu_gives_the_numbers_of_the_cpu(head: str, objective: InnerObjective) -> None:
    policy = make_policy(head)
    found = []
    for name in ("cpu", "cuda"):
        device = torch.device(name)
        move = methodcaller("to", device)
        adaptation = Adaptation(policy, choose_backend(policy, device, objective=objective), move(start(policy)))
        adaptation.adapt(make_samples(policy).map(move), 0.3)
        curvature = Curvature(adaptation, make_samples(policy, seed=1).map(move))
        product = curvature.product(curvature.gradient)
        found.append([curvature.gradient, product, *curvature.evaluate(curvature.vector + 0.01 * product)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-11)
