"""Joint training (the learner ``pretrained``) with a batch of environments, beside single ones.

``python -m metarl.experiments.benchmarks.joint [--iterations 10] [--seeds 3] [--quick]``

All train with the same samples and epochs by stable-baselines3's PPO: 8 single environments, one after the other, an
episode of each before an update, with four minibatches; 8 in one batch, with the same numbers; and the learner's
defaults: as many environments as MAML has in an iteration, a few steps of each before an update, without minibatches.
The runs take turns. Times are processor seconds of one thread, since other programs may use the machine too; returns
are those of test tasks, before adaptation and after one inner step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from metarl import Pretrained, RandomTask, make
from metarl.experiments.benchmarks.problems import threads

FAMILY = "metarl/Navigation2D-v0"


class OneByOne(Pretrained):
    """The same learner with single environments."""

    def make_environments(self, count: int, seed: int) -> VecEnv:
        """Return stable-baselines3's vector environment of single environments."""
        env = DummyVecEnv([lambda: Monitor(RandomTask(make(FAMILY)))] * count)
        env.seed(seed)
        return env


EIGHT = {"environments": 8, "rollout_steps": 100, "minibatches": 4, "learning_rate": 3e-4}
WAYS: dict[str, tuple[type[Pretrained], dict[str, Any]]] = {
    "8 single": (OneByOne, EIGHT),
    "8 in a batch": (Pretrained, EIGHT),
    "the defaults": (Pretrained, {}),
}


def run(way: str, seed: int, iterations: int, tasks: int, test_tasks: int) -> tuple[float, float, float]:
    """Train; return the processor seconds of an iteration and the returns before and after one inner step."""
    kind, own = WAYS[way]
    model = kind(
        family=FAMILY,
        seed=seed,
        device="cpu",
        learning={"tasks": tasks, "episodes": 20, "check": False},
        outer=own,
        evaluation={"every": iterations, "tasks": 2, "episodes": 1, "steps": 1},
    )
    began = time.process_time()
    model.learn(iterations=iterations)
    seconds = (time.process_time() - began) / iterations
    means = model.evaluate(n_tasks=test_tasks, steps=1, episodes=20).returns.mean(axis=1)
    return seconds, float(means[0]), float(means[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each run, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one iteration of 2 tasks with one seed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.iterations, options.seeds, options.tasks = 1, 1, 2
    results: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with threads(1):
        for seed in range(1, options.seeds + 1):
            for way, rows in results.items():
                rows.append(run(way, seed, options.iterations, options.tasks, 4 if options.quick else 100))
                seconds, before, after = rows[-1]
                print(
                    f"seed {seed}, {way}: {seconds:.2f} s an iteration, return {before:.1f} and {after:.1f}", flush=True
                )
    means = {way: np.mean(rows, axis=0) for way, rows in results.items()}
    first = means["8 single"][0]
    for way, (seconds, before, after) in means.items():
        print(f"{way}: {first / seconds:.1f} x as fast as 8 single ones; mean returns {before:.2f} and {after:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
