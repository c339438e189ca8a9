"""Environment steps per second of batched families, as a ratio to Gymnasium's own vector environment.

``python -m metarl.experiments.benchmarks.families`` prints a table, ``--json FILE`` writes it as well, ``--quick``
takes seconds.

Each family is compared with ``gymnasium.make_vec(..., vectorization_mode="sync")`` of the same environment: Gymnasium's
own if there is one, else the family's single environment. Both play whole episodes of the same task with the same
actions and are reset with new seeds; only steps of running episodes count. Only ratios within one run are meaningful.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

import metarl
from metarl.envs import list_families
from metarl.version import __version__

NUM_ENVS = 400
TARGET = 30.0  # times the steps of Gymnasium's SyncVectorEnv
MUJOCO_TARGET = 2.5  # the same for locomotion, where both spend most time in MuJoCo; see locomotion.py

Act = Callable[[Any], Any]  # observations to actions

# Gymnasium's own environment for a family's default task.
MUJOCO = {
    "metarl/HalfCheetahDir-v0": "HalfCheetah-v5",
    "metarl/HalfCheetahVel-v0": "HalfCheetah-v5",
    "metarl/AntDir-v0": "Ant-v5",
    "metarl/AntVel-v0": "Ant-v5",
    "metarl/AntGoal-v0": "Ant-v5",
    "metarl/Walker2DParams-v0": "Walker2d-v5",
    "metarl/HopperParams-v0": "Hopper-v5",
    "metarl/HumanoidDir-v0": "Humanoid-v5",
}
ORIGINALS = {
    **MUJOCO,
    "metarl/CartPoleParams-v0": "CartPole-v1",
    "metarl/PendulumParams-v0": "Pendulum-v1",
    "metarl/MountainCarContinuousParams-v0": "MountainCarContinuous-v0",
    "metarl/AcrobotParams-v0": "Acrobot-v1",
}


def balance(observations: Any) -> Any:
    """Return actions that balance the pole; with random actions, nearly all episodes would end after a few steps."""
    position, velocity, angle, angular = observations.T
    return (angle + 0.5 * angular + 0.05 * position + 0.1 * velocity > 0).astype(np.int64)


CONTROLLERS: dict[str, Act] = {"metarl/CartPoleParams-v0": balance}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Environment steps per second of a family, and their ratio to those of the reference."""

    family: str
    num_envs: int
    steps_per_second: float
    reference: str
    reference_steps_per_second: float
    ratio: float
    target: float


class Meter:
    """Counts the steps of a vector environment and measures their time."""

    def __init__(self, env: VectorEnv[Any, Any, Any], act: Act | None) -> None:
        self._env = env
        self._act = act
        self._seed = 0
        env.action_space.seed(0)
        self._random = [env.action_space.sample() for _ in range(50)]

    def rate(self, seconds: float) -> float:
        """Play whole episodes, the last one until the time is over; return environment steps per second."""
        steps, spent = 0, 0.0
        while spent < seconds:
            self._seed += self._env.num_envs
            seeds = list(range(self._seed, self._seed + self._env.num_envs))
            start = time.perf_counter()
            observations, _ = self._env.reset(seed=seeds)  # type: ignore[arg-type]
            spent += time.perf_counter() - start
            running = np.ones(self._env.num_envs, dtype=np.bool_)
            count = 0
            while running.any() and spent < seconds:
                actions = self._act(observations) if self._act else self._random[count % len(self._random)]
                start = time.perf_counter()
                observations, _, terminated, truncated, _ = self._env.step(actions)
                spent += time.perf_counter() - start
                steps += int(running.sum())
                running &= ~(terminated | truncated)
                count += 1
        return steps / spent


def compare(family: str, num_envs: int, repeats: int, seconds: float) -> Speed:
    """Measure a family and its reference alternately; return the medians."""
    reference = ORIGINALS.get(family, family)
    env = metarl.make_vec(family, num_envs)
    other = gymnasium.make_vec(reference, num_envs, vectorization_mode="sync")
    act = CONTROLLERS.get(family)
    meters = [Meter(env, act), Meter(other, act)]
    rates = [[meter.rate(seconds) for meter in meters] for _ in range(repeats + 1)][1:]  # the first one warms up
    env.close()
    other.close()
    own, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    return Speed(
        family=family,
        num_envs=num_envs,
        steps_per_second=own,
        reference=f"SyncVectorEnv of {reference}",
        reference_steps_per_second=theirs,
        ratio=statistics.median(own / theirs for own, theirs in rates),
        target=MUJOCO_TARGET if family in MUJOCO else TARGET,
    )


def table(speeds: Sequence[Speed]) -> str:
    """Return the results as a table for the terminal."""
    lines = [f"{'family':<40}{'steps/s':>12}{'reference steps/s':>20}{'ratio':>8}{'target':>8}"]
    for speed in speeds:
        lines.append(
            f"{speed.family:<40}{speed.steps_per_second:>12,.0f}{speed.reference_steps_per_second:>20,.0f}"
            f"{speed.ratio:>8.1f}{speed.target:>8.1f}"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Return the versions and the machine of the measurement."""
    versions = {"metarl": __version__, "gymnasium": gymnasium.__version__, "numpy": np.__version__}
    return {"cores": os.cpu_count(), "processor": platform.processor(), "python": platform.python_version(), **versions}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    batched = [listing.id for listing in list_families() if listing.source == "metarl" and listing.batched]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="ids; all batched families of metarl where none is given")
    parser.add_argument("--quick", action="store_true", help="one short measurement each")
    parser.add_argument("--num-envs", type=int, default=NUM_ENVS)
    parser.add_argument("--json", type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    repeats, seconds = (1, 0.1) if options.quick else (5, 0.5)
    speeds = []
    for family in options.families or batched:
        speeds.append(compare(family, options.num_envs, repeats, seconds))
        print(table(speeds[-1:]).splitlines()[1])
    print()
    print(table(speeds))
    if options.json:
        results = {"schema": "metarl-envs-1", "machine": machine(), "speeds": [asdict(speed) for speed in speeds]}
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
