"""Time and memory of a meta-iteration on images: ``CnnPolicy``, 20 tasks x 10 episodes x 50 steps of 64 x 64 pixels.

``python -m metarl.experiments.benchmarks.images [--tasks 20] [--episodes 10] [--memory keep]``

Memory is the process's peak, plus the peak of the largest worker process times the number of workers.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence

import torch
from stable_baselines3.common.logger import Logger

from metarl import MAML

FAMILY = "metarl.experiments.benchmarks.slow_families:bench/Spot-v0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one meta-iteration and print its time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--cg-iterations", type=int, default=10, help="they change the time, not the memory")
    parser.add_argument("--memory", choices=("keep", "recompute"), default="keep")
    parser.add_argument("--workers", type=int, default=2, help="processes that step the environments")
    options = parser.parse_args(arguments)
    model = MAML(
        "CnnPolicy",
        FAMILY,
        learning={"tasks": options.tasks, "episodes": options.episodes, "workers": options.workers},
        outer={"memory": options.memory, "cg_iterations": options.cg_iterations},
    )
    model.set_logger(Logger(None, []))
    began = time.perf_counter()
    outcome = model.meta_iteration(model.state, 1)
    seconds = time.perf_counter() - began
    model.close()
    observations = outcome.rollouts[0].observations
    assert isinstance(observations, torch.Tensor)
    own, child = (
        resource.getrusage(who).ru_maxrss * 1024 / 1e9 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    held = own + (child * options.workers if options.workers > 1 else 0.0)
    print(
        f"{options.tasks} tasks x {options.episodes} episodes of images {tuple(observations.shape[2:])} "
        f"{observations.dtype}, memory = {options.memory}: {seconds:.1f} s an iteration "
        f"({model.sampler.seconds:.1f} s of it rollouts), {held:.2f} GB at most"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
