"""The speed-up of slow environments by several processes, for a family whose step takes 100 microseconds.

``python -m metarl.experiments.benchmarks.workers [--num-envs 400] [--workers 2]``

For comparison, this process steps the same environments on one core, alternating with the workers. Results are medians
of wall-clock seconds, so nothing else should run at the same time.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

from gymnasium.vector import VectorEnv

from metarl.envs import WorkerFamilyVectorEnv, make_vec
from metarl.envs.processes import available_cores
from metarl.experiments.benchmarks.problems import medians
from metarl.experiments.benchmarks.slow_families import STEPS

FAMILY = "metarl.experiments.benchmarks.slow_families:bench/Busy-v0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="in each measurement")
    options = parser.parse_args(arguments)
    envs: dict[str, VectorEnv[Any, Any, Any]] = {
        "one core": make_vec(FAMILY, options.num_envs),
        "workers": WorkerFamilyVectorEnv(FAMILY, options.num_envs, workers=options.workers, step_timeout=60.0),
    }
    try:
        seconds = medians(
            {name: Steps(env, options.steps).play for name, env in envs.items()}, options.repeats, time.perf_counter
        )
    finally:
        for env in envs.values():
            env.close()
    for name, taken in seconds.items():
        print(f"{name:9} {taken / options.steps * 1e3:8.2f} ms a step of {options.num_envs} environments")
    print(f"{options.workers} workers are {seconds['one core'] / seconds['workers']:.2f} x one core")
    return 0


class Steps:
    """Steps a vector environment, with a reset after every ``STEPS`` steps, where episodes end."""

    def __init__(self, env: VectorEnv[Any, Any, Any], count: int) -> None:
        self._env = env
        self._count = count
        self._numbers = itertools.count()
        env.action_space.seed(0)
        self._actions = env.action_space.sample()

    def play(self) -> None:
        """Take some steps."""
        for _ in range(self._count):
            if next(self._numbers) % STEPS == 0:
                self._env.reset(seed=0)
            self._env.step(self._actions)


if __name__ == "__main__":
    sys.exit(main())
