"""How long a whole meta-iteration takes, rollouts included, beside the sum of its parts.

``python -m metarl.experiments.benchmark_iteration [--hidden 100] [--threads 2]``

Setting A of ``benchmark_update``: 2-D navigation, 40 tasks x 20 episodes x 100 steps before and after one inner step.
Wall-clock seconds; nothing should run beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from stable_baselines3.common.logger import Logger

from metarl import MAML
from metarl.experiments.benchmark_update import EPISODES, measure, measure_rollout
from metarl.experiments.update_problems import medians, settings, threads

PARTS = {"inner update, kept for products": 1, "meta-gradient": 1, "line-search evaluation": 1, "rollout": 2}


def iteration(hidden: int, tasks: int, count: int, repeats: int, fisher_fraction: float) -> float:
    """Return the median seconds of a meta-iteration."""
    model = MAML(
        learning={"tasks": tasks, "episodes": EPISODES},
        policy_kwargs={"hidden_sizes": (hidden, hidden)},
        outer={"fisher_fraction": fisher_fraction},
    )
    model.set_logger(Logger(None, []))
    numbers = iter(range(1, repeats + 2))
    with threads(count):
        seconds = medians({"ours": lambda: model._meta_iteration(next(numbers))}, repeats, time.perf_counter)
    model.close()
    return seconds["ours"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print what it found."""
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
    for fraction in (1.0, 0.2):
        counts = {**PARTS, "Fisher-vector product": 10 * fraction}
        parts = sum(rows[name].seconds * count for name, count in counts.items())
        floor = sum((rows[name].floor or 0.0) * count for name, count in counts.items())
        for count in sorted({1, options.threads}):
            taken = iteration(options.hidden, options.tasks, count, options.repeats, fraction)
            print(
                f"fisher_fraction = {fraction}, {count} thread(s): {taken:.3f} s an iteration, "
                f"{taken / parts:.2f} x the sum of its parts, {taken / floor:.2f} x that of their floors (one thread)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
