"""Fisher-vector products compared with JAX: the same mathematics, data and core, jitted, ten products in one call.

``pip install jax``, then ``python -m metarl.experiments.benchmarks.beside_jax [--hidden 100] [--only A]``

It is a development script; metarl itself does not need JAX. The process is pinned to one core, and JAX's first call,
which compiles, is not timed. In JAX, tasks are computed by ``vmap`` and one after another by ``lax.map``; the faster of
both is the one compared.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from metarl.envs.processes import core_numbers
from metarl.experiments.benchmarks.problems import STEP_SIZE, Problem, medians, perceptron_problem, settings, threads
from metarl.gradients.adaptation import choose_backend
from metarl.gradients.curvature import Curvature
from metarl.gradients.flat import flatten, named

PRODUCTS = 10
CPU = torch.device("cpu")


def jax_products(problem: Problem, *, together: bool) -> Callable[[Tensor], Any]:
    """Return a jitted function: vector -> the vector after several products, each divided by its norm."""
    jax = importlib.import_module("jax")
    np, flatten_util = importlib.import_module("jax.numpy"), importlib.import_module("jax.flatten_util")
    assert problem.policy.layers is not None
    names = [(layer.weight, layer.bias) for layer in problem.policy.layers]
    parameters = {name: np.asarray(value.numpy()) for name, value in problem.parameters.items()}
    start, unflatten = flatten_util.ravel_pytree(parameters)
    support, query = (
        {name: np.asarray(getattr(samples, name).numpy()) for name in ("observations", "actions", "advantages")}
        for samples in (problem.support, problem.query)
    )

    def distribution(vector: Any, observations: Any) -> tuple[Any, Any]:
        own = unflatten(vector)
        h = observations
        for weight, bias in names[:-1]:
            h = np.tanh(h @ own[weight].T + own[bias])
        return h @ own[names[-1][0]].T + own[names[-1][1]], own["log_std"]

    def loss(vector: Any, samples: Any) -> Any:
        mean, log_std = distribution(vector, samples["observations"])
        z = (samples["actions"] - mean) * np.exp(-log_std)
        log_probs = -(0.5 * z**2 + log_std).sum(axis=-1)
        return -(log_probs * samples["advantages"]).mean()

    def adapt(vector: Any, samples: Any) -> Any:
        return vector - STEP_SIZE * jax.grad(loss)(vector, samples)

    def kl(vector: Any, at: Any, before: Any, after: Any) -> Any:
        mean, log_std = distribution(adapt(vector, before), after["observations"])
        old_mean, old_log_std = distribution(at, after["observations"])
        distance = (old_mean - mean) ** 2 * np.exp(-2 * log_std) + np.exp(2 * (old_log_std - log_std))
        return (log_std - old_log_std + 0.5 * (distance - 1.0)).sum(axis=-1).mean()

    def one(vector: Any, point: Any, before: Any, after: Any) -> Any:
        at = jax.lax.stop_gradient(adapt(point, before))
        slope = jax.grad(functools.partial(kl, at=at, before=before, after=after))
        return jax.jvp(slope, (point,), (vector,))[1]

    def product(vector: Any, point: Any, before: Any, after: Any) -> Any:
        if together:
            return jax.vmap(one, (None, None, 0, 0))(vector, point, before, after).mean(axis=0)
        return jax.lax.map(lambda samples: one(vector, point, *samples), (before, after)).mean(axis=0)

    def repeated(vector: Any, *data: Any) -> Any:
        def again(_: Any, found: Any) -> Any:
            image = product(found, *data)
            return image / np.linalg.norm(image)

        return jax.lax.fori_loop(0, PRODUCTS, again, vector)

    jitted = jax.jit(repeated)

    def run(vector: Tensor) -> Tensor:
        # JAX orders parameters by name, metarl in the policy's order.
        parts = {name: np.asarray(part.numpy()) for name, part in named(problem.policy.shapes, vector).items()}
        found = unflatten(jitted(flatten_util.ravel_pytree(parts)[0], start, support, query).block_until_ready())
        return flatten(torch.from_numpy(numpy.array(found[name])) for name in problem.parameters)

    return run


@threads(1)
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, nargs="*", default=[64, 100])
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="settings whose title contains this, as 'A:'")
    options = parser.parse_args(arguments)
    if core_numbers():  # must precede the creation of JAX's threads
        os.sched_setaffinity(0, {max(core_numbers())})
    try:
        version = importlib.import_module("jax").__version__
    except ImportError:
        parser.error("jax is not installed; it is no dependency of metarl: pip install jax")
    print(f"torch {torch.__version__}, jax {version}, one core; seconds a product")
    for setting in settings(options.hidden, options.tasks):
        if options.only not in setting.title():
            continue
        problem = perceptron_problem(setting, CPU)
        curvature = Curvature(problem.adaptation(choose_backend(problem.policy, CPU)), problem.query)
        start = curvature.gradient / curvature.gradient.norm()

        def ours(curvature: Curvature = curvature, start: Tensor = start) -> Tensor:
            vector = start
            for _ in range(PRODUCTS):
                vector = curvature.product(vector)
                vector = vector / vector.norm()
            return vector

        rivals = {name: jax_products(problem, together=name == "vmap") for name in ("vmap", "lax.map")}
        for name, rival in rivals.items():
            assert float((rival(start) - ours()).norm()) < 1e-3, name
        works: dict[str, Callable[[], Any]] = {"ours": ours}
        works |= {name: functools.partial(rival, start) for name, rival in rivals.items()}
        seconds = {name: taken / PRODUCTS for name, taken in medians(works, options.repeats).items()}
        best = min(rivals, key=lambda name: seconds[name])
        print(
            f"{setting.title()}: "
            + ", ".join(f"{name} {taken:.4f}" for name, taken in seconds.items())
            + f"; JAX ÷ ours {seconds[best] / seconds['ours']:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
