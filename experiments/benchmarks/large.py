"""Time and memory of adapting a policy of ten million parameters by low-rank updates.

``python -m metarl.experiments.benchmarks.large [--tasks 40] [--rank 8] [--full]``

An inner update of all tasks is compared with a pass forwards and backwards of the plain network on the same samples, in
processor seconds of one thread; then one whole meta-iteration runs. Memory is the process's peak. ``--full`` lets all
parameters adapt instead, and needs far more.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch
from stable_baselines3.common.logger import Logger

from metarl import MAML
from metarl.agents import Samples
from metarl.experiments.benchmarks.problems import medians, threads
from metarl.gradients.adaptation import inner_update

HIDDEN = (2048, 2048, 2816)  # ten million parameters


def peak() -> float:
    """Return the most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--full", action="store_true", help="all parameters adapt")
    options = parser.parse_args(arguments)
    model = MAML(
        "MlpPolicy",
        "metarl/Navigation2D-v0",
        family_kwargs={"max_episode_steps": options.steps},
        policy_kwargs={"hidden_sizes": HIDDEN, "lora_rank": 0 if options.full else options.rank},
        learning={"tasks": options.tasks, "episodes": options.episodes},
        inner={"adapts": "all" if options.full else "lora"},
        outer={"path": "general", "cg_iterations": 5},
    )
    model.set_logger(Logger(None, []))
    own = sum(shape.numel() for shape in model.functional_policy.shapes.values())
    numbers = own + sum(part.numel() for part in model.functional_policy.buffers().values())
    with threads(1):
        times = medians(ways(model), 3, time.process_time)
        ratio = times["inner update"] / times["forwards and backwards"]
        print(
            f"an actor of {numbers:,} parameters, of which each of {options.tasks} tasks has {own:,}: an inner update "
            f"{times['inner update']:.2f} s, a pass forwards and backwards {times['forwards and backwards']:.2f} s: "
            f"{ratio:.2f} x; {peak():.2f} GB at most"
        )
        began = time.process_time()
        model.meta_iteration(model.state, 1)
        print(f"a meta-iteration: {time.process_time() - began:.1f} s, {peak():.2f} GB at most")
    model.close()
    return 0


def ways(model: MAML) -> dict[str, Callable[[], object]]:
    """Return an inner update of all tasks, and a pass of the plain network on the same samples."""
    generator = torch.Generator().manual_seed(0)
    learning = model.settings.learning
    rows = learning.episodes * int(model.settings.family_kwargs["max_episode_steps"])
    shape = (learning.tasks, rows)
    samples = Samples(
        observations=torch.randn(*shape, 2, generator=generator),
        actions=torch.randn(*shape, 2, generator=generator),
        log_probs=torch.zeros(shape),
        advantages=torch.randn(shape, generator=generator),
        weights=torch.full(shape, 1.0 / rows),
        episode_rows=rows,
    )
    module = model.as_policy(model.parameters, model.state).requires_grad_()
    flat = samples.observations.flatten(0, 1)
    assert isinstance(flat, torch.Tensor)

    def plain() -> object:
        _, log_probs, _ = module.evaluate_actions(flat, samples.actions.flatten(0, 1))
        return torch.autograd.grad(log_probs.sum(), list(module.parameters()), allow_unused=True)

    policy, adapts = model.functional_policy, model.adapts
    return {
        "inner update": lambda: inner_update(policy, model.parameters, samples, 0.1, adapts),
        "forwards and backwards": plain,
    }


if __name__ == "__main__":
    sys.exit(main())
