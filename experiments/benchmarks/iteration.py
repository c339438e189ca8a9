"""The time of a whole meta-iteration with rollouts, compared with the sum of its parts and with autograd.

``python -m metarl.experiments.benchmarks.iteration [--hidden 100] [--threads 2]``

It is setting A of ``metarl.experiments.benchmarks.update``: 2-D navigation, 40 tasks x 20 episodes x 100 steps before
and after one inner step. The rival is the same iteration with metarl's rollouts, a loop of autograd over tasks for the
inner update, and double backward with kept graphs for the ten products. Times are wall-clock seconds, so nothing else
should run at the same time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch
from stable_baselines3.common.logger import Logger

from metarl import MAML
from metarl.experiments.benchmarks.problems import (
    DoubleBackward,
    Problem,
    autograd_evaluation,
    autograd_gradient,
    autograd_inner_update,
    medians,
    settings,
    threads,
)
from metarl.experiments.benchmarks.update import EPISODES, measure, measure_rollout
from metarl.gradients.trust_region import conjugate_gradient, full_step, line_search

PARTS = {"inner update, kept for products": 1, "meta-gradient": 1, "line-search evaluation": 1, "rollout": 2}


def make_model(hidden: int, tasks: int, fisher_fraction: float = 1.0) -> MAML:
    """Return a learner of navigation."""
    model = MAML(
        learning={"tasks": tasks, "episodes": EPISODES},
        policy_kwargs={"hidden_sizes": (hidden, hidden)},
        outer={"fisher_fraction": fisher_fraction},
    )
    model.set_logger(Logger(None, []))
    return model


def iteration(hidden: int, tasks: int, count: int, repeats: int, fisher_fraction: float) -> float:
    """Return the median seconds of a meta-iteration."""
    model = make_model(hidden, tasks, fisher_fraction)
    numbers = iter(range(1, repeats + 2))
    with threads(count):
        seconds = medians(
            {"ours": lambda: model.meta_iteration(model.state, next(numbers))}, repeats, time.perf_counter
        )
    model.close()
    return seconds["ours"]


def rival_iteration(hidden: int, tasks: int, count: int, repeats: int) -> float:
    """Return the median seconds of the rival's meta-iteration, with a number of torch threads."""
    model = make_model(hidden, tasks)
    numbers = iter(range(1, repeats + 2))
    outer = model.settings.outer

    def work() -> None:
        number = next(numbers)
        state, drawn = model.state, model.training_tasks(number)
        streams = [model.training_streams(drawn, number, step) for step in (0, 1)]
        support = model.samples(state, model.collect(state, state.parameters, drawn, streams[0]))
        policy, parameters = model.functional_policy, state.parameters
        adapted = autograd_inner_update(Problem(policy, parameters, support, support))
        stacked = {name: torch.stack([own[i] for own in adapted]) for i, name in enumerate(parameters)}
        query = model.samples(state, model.collect(state, stacked, drawn, streams[1]))
        problem = Problem(policy, parameters, support, query)
        double = DoubleBackward(problem)
        gain, gradient = autograd_gradient(problem)
        solution, residual = conjugate_gradient(
            lambda vector: double.product(vector) + outer.damping * vector, gradient, outer.cg_iterations
        )
        line_search(
            lambda vector: autograd_evaluation(problem, double.old, vector).unbind(),
            double.vector,
            full_step(solution, residual, gradient, outer.max_kl),
            gain=gain,
            max_kls=(outer.max_kl,),
            steps=outer.line_search_steps,
            ratio=outer.line_search_ratio,
        )

    with threads(count):
        seconds = medians({"rival": work}, repeats, time.perf_counter)
    model.close()
    return seconds["rival"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    (setting,) = (part for part in settings((options.hidden,), options.tasks) if part.name == "A")
    rows = {row.part: row for row in measure(setting, options.repeats)}
    rows["rollout"] = measure_rollout(options.hidden, options.tasks, options.repeats)
    print(setting.title())
    rival = min(rival_iteration(options.hidden, options.tasks, count, 3) for count in {1, options.threads})
    print(f"the rival, with as many threads as it is fastest with: {rival:.3f} s an iteration")
    for fraction in (1.0, 0.2, 0.125):
        counts = {**PARTS, "Fisher-vector product": 10 * fraction}
        parts = sum(rows[name].seconds * count for name, count in counts.items())
        floor = sum((rows[name].floor or 0.0) * count for name, count in counts.items())
        for count in sorted({1, options.threads}):
            taken = iteration(options.hidden, options.tasks, count, options.repeats, fraction)
            beside = f", rival ÷ ours {rival / taken:.2f}" if fraction == 1.0 else ""  # the rival uses all samples
            print(
                f"fisher_fraction = {fraction}, {count} thread(s): {taken:.3f} s an iteration, "
                f"{taken / parts:.2f} x the sum of its parts, {taken / floor:.2f} x that of their floors (one thread)"
                f"{beside}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
