"""The time of a meta-update's parts on a GPU: ``python -m metarl.experiments.benchmarks.update --device cuda``.

The floor of a part is the time of its matrix products at the rate that the same card reaches with products of large
square float32 matrices (TF32 off, as in training), so a ratio of 2 means half of that rate. The Fisher-vector product
is also measured as a captured CUDA graph, which takes the host one call instead of some hundred.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarl.agents import Policy
from metarl.experiments.benchmarks.problems import Row, Setting, medians, perceptron_problem
from metarl.gradients.adaptation import choose_backend
from metarl.gradients.curvature import Curvature

PEAK_SIZE = 8192


def operations(policy: Policy, first: int, others: int) -> int:
    """Return the floating-point operations for each row, from the numbers of matrix products with each layer."""
    assert policy.layers is not None
    sizes = [policy.shapes[layer.weight].numel() for layer in policy.layers]
    return 2 * (first * sizes[0] + others * sum(sizes[1:]))


def measure_gpu(setting: Setting, device: torch.device, repeats: int) -> list[Row]:
    """Measure the parts of a setting on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    peak = _peak(device, repeats)
    problem = perceptron_problem(setting, device)
    backend = choose_backend(problem.policy, device)
    adaptation = problem.adaptation(backend)
    curvature = Curvature(adaptation, problem.query)
    vector = curvature.gradient / curvature.gradient.norm()
    product = partial(curvature.product, vector)
    replay, captured = capture(product)
    replay()
    exact = product()
    assert float((captured - exact).norm() / exact.norm()) < 1e-5
    # The numbers of matrix products for each row, with the first layer and with each other layer: a gradient has 2 and
    # 3, a Hessian-vector product 2 and 6, a Fisher-vector product 2 and 4, a forward pass 1 and 1.
    parts: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
        "Fisher-vector product": (product, (6, 16)),
        "Fisher-vector product, CUDA graph": (replay, (6, 16)),
        "inner update, kept for products": (lambda: problem.adaptation(backend), (2, 3)),
        "meta-gradient": (lambda: Curvature(adaptation, problem.query), (4, 9)),
        "line-search evaluation": (lambda: curvature.evaluate(curvature.vector), (3, 4)),
    }
    seconds = medians({name: work for name, (work, _) in parts.items()}, repeats, partial(_clock, device))
    title = f"{setting.title()}, {torch.cuda.get_device_name(device)}"
    rows = []
    for name, (_, counts) in parts.items():
        done = operations(problem.policy, *counts) * setting.tasks * setting.rows
        rates = {"TFLOP/s": done / seconds[name] / 1e12, "share of peak": done / seconds[name] / peak}
        floor = done / peak
        rows.append(Row(title, name, seconds[name], floor, seconds[name] / floor, {}, rates))
    return rows


def capture(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Return a call that repeats the work as one CUDA graph, and the tensor with its result."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a warm-up, since initialisation at first use must not be captured
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


def _peak(device: torch.device, repeats: int) -> float:
    """Return the operations per second of large matrix products."""
    left, right = torch.randn(2, PEAK_SIZE, PEAK_SIZE, device=device)
    out = torch.empty_like(left)
    works = {"peak": lambda: torch.mm(left, right, out=out)}
    seconds = medians(works, repeats, partial(_clock, device))
    return float(2 * PEAK_SIZE**3 / seconds["peak"])


def _clock(device: torch.device) -> float:
    torch.cuda.synchronize(device)
    return time.perf_counter()
