"""The speed of batched locomotion families, compared with MuJoCo alone and Gymnasium's own vector environments.

``python -m metarl.experiments.benchmarks.locomotion`` prints a table, ``--json FILE`` writes it as well, ``--quick``
takes seconds. Every sub-environment has its own physics: in Walker2DParams and HopperParams those of its task, in the
other families, whose tasks share their physics, masses that are varied here.

The control steps per second of ``--envs`` sub-environments are compared with

- those of a bare loop over ``mj_step`` on that model in one thread, times the number of cores;
- those of Gymnasium's ``SyncVectorEnv`` of its own environment of the body;
- those of its ``AsyncVectorEnv``, with fewer sub-environments, since each is a process.

All take the same actions and are measured one after another in each repetition; only ratios within one run are
meaningful. Memory is the growth of the process by 800 half cheetahs with 40 different physics.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode

import metarl
from metarl.envs.families import simulations
from metarl.envs.processes import available_cores

# Family, and Gymnasium's environment of the same body.
BODIES = {
    "metarl/HalfCheetahDir-v0": "HalfCheetah-v5",
    "metarl/Walker2DParams-v0": "Walker2d-v5",
    "metarl/HopperParams-v0": "Hopper-v5",
    "metarl/AntDir-v0": "Ant-v5",
}
TARGETS = {"bare": 0.65, "sync": 2.5, "async": 6.0}
ASYNC_ENVS = 20
ENDLESS = 10**9


class Batched:
    """A family in which each sub-environment has its own physics; episodes that ended restart at once."""

    def __init__(self, family: str, num_envs: int) -> None:
        self._env = metarl.make_vec(family, num_envs, max_episode_steps=ENDLESS)
        self._env.reset(seed=0, options={"tasks": metarl.sample_tasks(family, num_envs)})
        self.num_envs = num_envs
        self.model = self._env.unwrapped.model  # type: ignore[attr-defined]
        models, rng = self._env.unwrapped.simulations.models, np.random.default_rng(0)  # type: ignore[attr-defined]
        for row, model in enumerate(models):
            if model is self.model:
                models[row] = simulations.scale_model(model, {"body_mass": rng.uniform(0.8, 1.2, model.nbody)})
        self.frame_skip = int(self._env.unwrapped.frame_skip)  # type: ignore[attr-defined]

    def step(self, actions: Any) -> None:
        """Step all sub-environments."""
        _, _, terminated, _, _ = self._env.step(actions)
        if terminated.any():
            self._env.reset(options={"reset_mask": terminated})

    def close(self) -> None:
        """End the family's threads."""
        self._env.close()


class Bare:
    """One bare simulation, which restarts when a body would fall."""

    num_envs = 1

    def __init__(self, model: Any, frame_skip: int, horizon: int) -> None:
        self._model, self._skip, self._horizon = model, frame_skip, horizon
        self._data = mujoco.MjData(model)
        self._rng = np.random.default_rng(0)
        self._count = 0

    def step(self, actions: Any) -> None:
        """Step the simulation."""
        if self._count % self._horizon == 0:
            mujoco.mj_resetData(self._model, self._data)
            self._data.qpos[:] += self._rng.uniform(-0.005, 0.005, self._model.nq)
        self._count += 1
        self._data.ctrl[:] = actions[0]
        mujoco.mj_step(self._model, self._data, self._skip)


class Gymnasiums:
    """Gymnasium's vector environment of its own environment; episodes that ended restart at once."""

    def __init__(self, name: str, num_envs: int, mode: str) -> None:
        kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self._env = gymnasium.make_vec(
            name, num_envs, vectorization_mode=mode, vector_kwargs=kwargs, max_episode_steps=ENDLESS
        )
        self._env.reset(seed=0)
        self.num_envs = num_envs

    def step(self, actions: Any) -> None:
        """Step all sub-environments."""
        self._env.step(actions)

    def close(self) -> None:
        """End the vector environment's processes."""
        self._env.close()


def rate(runner: Any, actions: Any, seconds: float) -> float:
    """Return a runner's control steps per second, measured over some seconds."""
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        runner.step(actions[steps // runner.num_envs % len(actions)][: runner.num_envs])
        steps += runner.num_envs
    return steps / (time.perf_counter() - start)


def compare(family: str, num_envs: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Return the median rates of a family and its rivals, measured alternately, and the median ratios."""
    batched = Batched(family, num_envs)
    cores = available_cores()
    rivals: dict[str, Any] = {
        "bare": Bare(batched.model, batched.frame_skip, 50 if "Params" in family else ENDLESS),
        "sync": Gymnasiums(BODIES[family], num_envs, "sync"),
        "async": Gymnasiums(BODIES[family], min(ASYNC_ENVS, num_envs), "async"),
    }
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (50, num_envs, batched.model.nu)).astype(np.float32)
    rounds = []
    for _ in range(repeats):
        own = rate(batched, actions, seconds)
        others = {name: rate(rival, actions, seconds) for name, rival in rivals.items()}
        rounds.append({"own": own, **others})
    for runner in (batched, rivals["sync"], rivals["async"]):
        runner.close()
    unit = {"bare": cores, "sync": 1, "async": 1}
    return {
        "family": family,
        "num_envs": num_envs,
        "cores": cores,
        "steps_per_second": {name: statistics.median(entry[name] for entry in rounds) for name in ("own", *rivals)},
        "ratio": {
            name: statistics.median(entry["own"] / (entry[name] * unit[name]) for entry in rounds) for name in rivals
        },
        "target": TARGETS,
    }


def memory(envs: int = 800, physics: int = 40) -> float:
    """Return the growth of the process by half cheetahs that are stepped for a while, in MB."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    before, rng = resident(), np.random.default_rng(0)
    model = simulations.load_model("half_cheetah.xml")
    masses = [{"body_mass": rng.uniform(0.5, 2.0, model.nbody)} for _ in range(physics)]
    models = [simulations.scale_model(model, mass) for mass in masses]
    batch = simulations.Simulations([models[row % physics] for row in range(envs)], 5, {})
    for row in range(envs):
        batch.start(row, model.qpos0, 0.1 * rng.standard_normal(model.nv))
    for _ in range(20):
        batch.step(range(envs), rng.uniform(-1.0, 1.0, (envs, model.nu)))
    return resident() - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure how fast locomotion is stepped in batches.")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{', '.join(BODIES)}: all where none is given")
    parser.add_argument("--envs", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a look")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repeats, options.seconds = 1, 0.3
    mujoco.set_mju_user_warning(lambda message: None)  # Gymnasium's own model files cause warnings
    grown = memory()
    print(f"memory of 800 half cheetahs in 40 physics: {grown:.0f} MB (under 400)\n")
    print(f"{'family':28} {'steps/s':>9} {'/ (cores x bare)':>17} {'/ sync':>7} {'/ async':>8}")
    results = []
    for family in options.families or BODIES:
        result = compare(family, options.envs, options.repeats, options.seconds)
        results.append(result)
        ratio = result["ratio"]
        line = f"{family:28} {result['steps_per_second']['own']:9.0f} {ratio['bare']:17.2f}"
        print(f"{line} {ratio['sync']:7.1f} {ratio['async']:8.1f}")
    print(f"{'target':28} {'':9} {TARGETS['bare']:17.2f} {TARGETS['sync']:7.1f} {TARGETS['async']:8.1f}")
    if options.json is not None:
        versions = {"mujoco": mujoco.__version__, "gymnasium": gymnasium.__version__}
        text = {"versions": versions, "memory_mb": grown, "results": results}
        options.json.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
