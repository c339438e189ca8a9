"""Time and memory of a meta-iteration on images: ``CnnPolicy``, 20 tasks x 10 episodes x 50 steps of 64 x 64 pixels.

``python -m metarl.experiments.benchmarks.images [--tasks 20] [--episodes 10] [--memory keep] [--freeze extractor]``

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

from metarl import FOMAML, MAML

FAMILY = "metarl.experiments.benchmarks.slow_families:bench/Spot-v0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one meta-iteration and print its time and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--cg-iterations", type=int, default=10, help="they change the time, not the memory")
    parser.add_argument("--memory", choices=("keep", "recompute"), default="keep")
    parser.add_argument("--workers", type=int, default=2, help="processes that step the environments")
    parser.add_argument("--freeze", choices=("none", "extractor"), default="none", help="the convolutional network")
    parser.add_argument("--precision", choices=("single", "half"), default="single", help="of its kept features")
    parser.add_argument("--learner", choices=("maml", "fomaml"), default="maml")
    parser.add_argument("--fisher-fraction", type=float, default=1.0, help="of the steps in Fisher products")
    options = parser.parse_args(arguments)
    learner = MAML if options.learner == "maml" else FOMAML
    model = learner(
        "CnnPolicy",
        FAMILY,
        policy_kwargs={"freeze": options.freeze, "features_precision": options.precision},
        learning={"tasks": options.tasks, "episodes": options.episodes, "workers": options.workers},
        outer={
            "memory": options.memory,
            "cg_iterations": options.cg_iterations,
            "fisher_fraction": options.fisher_fraction,
        },
    )
    model.set_logger(Logger(None, []))
    began, busy = time.perf_counter(), time.process_time()
    outcome = model.meta_iteration(model.state, 1)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    model.close()
    observations = outcome.rollouts[0].observations
    assert isinstance(observations, torch.Tensor)
    own, child = (
        resource.getrusage(who).ru_maxrss * 1024 / 1e9 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    held = own + (child * options.workers if options.workers > 1 else 0.0)
    print(
        f"{options.tasks} tasks x {options.episodes} episodes of images {tuple(observations.shape[2:])} "
        f"{observations.dtype}, {options.learner}, freeze = {options.freeze}, memory = {options.memory}: "
        f"{seconds:.1f} s an iteration ({model.sampler.seconds:.1f} s of it rollouts; {busy:.1f} s of processors), "
        f"{held:.2f} GB at most"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
