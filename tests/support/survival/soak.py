"""Rounds of everything a program does with learners, for hours in one process, in which nothing may pile up.

``make soak MINUTES=120`` plays rounds so long. A round trains a learner, saves it, loads it, goes on with both, and
compares the bits; then it evaluates and adapts. No memory, threads, open files, child processes
or temporary files may pile up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import small
import torch

import metarl
from metarl.learners.registry import LEARNERS

MEMORY = 60e6  # bytes by which the later rounds may have more than the earlier ones: allocators keep some
WARM = 0.25  # the share of the rounds before memory is measured: libraries load and keep what they use
LEARNS = tuple(name for name in LEARNERS if name not in ("random", "scratch"))
# Batched families, environments stepped one by one, and in worker processes.
FAMILIES: tuple[dict[str, Any], ...] = (
    {"family": small.NAVIGATION, "family_kwargs": small.SHORT},
    {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"pulls": 5}},
    {"family": small.LENGTHS_DIFFER},
    {"family": small.SIGN, "learning": {"workers": 2}},
    {
        "family": "metarl/Parameterized-v0",
        "family_kwargs": {"env": "CartPole-v1", "parameters": {"gravity": [5, 15]}, "max_episode_steps": 8},
    },
)


@dataclass(frozen=True)
class Use:
    """What the process has after a round."""

    memory: int
    threads: int
    files: int
    children: int
    left: int


def play_round(number: int, folder: Path) -> None:
    """Train, save, load and go on, evaluate and adapt, with a learner and a family that the number chooses.

    Raises:
        AssertionError: the loaded learner does not go on to the same bits.
    """
    learner, family = LEARNS[number % len(LEARNS)], FAMILIES[number % len(FAMILIES)]
    model = small.small(learner, **family, seed=number % 2**31, device="cpu")
    loaded = None
    try:
        model.learn(iterations=2)
        model.save(folder / "model")
        loaded = type(model).load(folder / "model", allow=True)
        for one in (model, loaded):
            one.learn(iterations=1, reset_num_timesteps=False)
        for name, value in model.parameters.items():
            assert torch.equal(value, loaded.parameters[name]), f"round {number}, {learner}, {family}: {name} differs"
        evaluation = loaded.evaluate(n_tasks=2, episodes=2)
        assert np.isfinite(evaluation.returns).all(), f"round {number}, {learner}, {family}"
        loaded.adapt(metarl.sample_tasks(family["family"], 1, seed=number, **family.get("family_kwargs", {}))[0])
    finally:
        for one in filter(None, (model, loaded)):
            one.close()
        (folder / "model.zip").unlink(missing_ok=True)


def used(folder: Path) -> Use:
    """Return what this process has now."""
    process = psutil.Process()
    with process.oneshot():
        return Use(
            memory=process.memory_info().rss,
            threads=process.num_threads(),
            files=process.num_fds(),
            children=len(process.children(recursive=True)),
            left=len(list(folder.iterdir())),
        )


def faults(uses: list[Use]) -> list[str]:
    """Return a sentence for each thing that grew; ``uses`` are those after each round."""
    warm = uses[int(len(uses) * WARM) :]
    half = len(warm) // 2
    found = []
    before, after = (float(np.median([use.memory for use in part])) for part in (warm[:half], warm[half:]))
    if after - before > MEMORY:
        found.append(f"memory grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
    for name in ("threads", "files", "children", "left"):
        first, last = (max(getattr(use, name) for use in part) for part in (warm[:half], warm[half:]))
        if last > first:
            found.append(f"{name} grew from {first} to {last}")
    return found


def soak(minutes: float, rounds: int) -> list[str]:
    """Play rounds for so many minutes, and at least so many rounds; return what is at fault."""
    until, uses = time.monotonic() + 60 * minutes, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while len(uses) < rounds or time.monotonic() < until:
            play_round(len(uses), folder)
            uses.append(used(folder))
            if len(uses) % 100 == 0:
                print(f"round {len(uses)}: {uses[-1]}", flush=True)
    print(f"{len(uses)} rounds, first {uses[0]}, last {uses[-1]}")
    return faults(uses)


def main() -> int:
    """Soak for as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=60, help="the fewest rounds")
    options = parser.parse_args()
    found = soak(options.minutes, options.rounds)
    print("; ".join(found) or "nothing grew")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
