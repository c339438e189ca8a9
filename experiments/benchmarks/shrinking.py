"""What pruning, compression and distillation cost and save, of trained learners.

``python -m metarl.experiments.benchmarks.shrinking RUN [RUN ...] [--amount 0.5] [--by channels] [--hidden 32]``

The runs are of one configuration with several seeds. Of each, the learner is pruned, compressed, both, and distilled;
then each adapts to the same test tasks, and plays with the policies that it hands out, packed ones where it is
compressed. Returns are means over tasks and runs after 0 and 1 adaptation steps, with bootstrap intervals over runs and
tasks; differences to the full learner are those on the same tasks. Sizes are of the saved learner; memory is that of
the tensors of an adapted policy; times are processor time of one thread: of ``predict`` for one observation, the
median, and of ``adapt`` with its episodes, the mean.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy

import metarl
from metarl import Compress, Prune, distill, make_vec, sample_tasks
from metarl.envs import tasks as task_tools
from metarl.experiments.benchmarks.problems import threads
from metarl.learners.registry import load_learner
from metarl.statistics import bootstrap_interval


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of one learner.

    Attributes:
        returns: ``[step, task]``, before and after adaptation.
        kilobytes: of the saved file.
        memory: of an adapted policy, in kilobytes.
        acting: microseconds of a step.
        adapting: milliseconds for one task.
    """

    returns: NDArray[np.float64]
    kilobytes: float
    memory: float
    acting: float
    adapting: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a checkpoint")
    parser.add_argument("--amount", type=float, default=0.5, help="the share that is pruned")
    parser.add_argument("--by", choices=("neurons", "channels"), default="neurons")
    parser.add_argument("--hidden", type=int, nargs="+", default=[32], help="hidden layers of the distilled learner")
    parser.add_argument("--policy", help="the distilled learner's policy by name")
    parser.add_argument("--rounds", type=int, default=5, help="of distillation")
    parser.add_argument("--epochs", type=int, default=10, help="of distillation, in each round")
    parser.add_argument("--tasks", type=int, default=20, help="for tests, of each run")
    parser.add_argument("--episodes", type=int, default=10, help="for each adaptation step, and for each test")
    options = parser.parse_args(arguments)
    ways: dict[str, Callable[[Any], Any]] = {
        "full": lambda learner: learner,
        "pruned": lambda learner: Prune(learner, options.amount, by=options.by),
        "int8": Compress,
        "4 bits, shared": lambda learner: Compress(learner, "shared", bits=4),
        "pruned, int8": lambda learner: Compress(Prune(learner, options.amount, by=options.by)),
        "distilled": lambda learner: distill(
            learner, options.hidden, policy=options.policy, rounds=options.rounds, epochs=options.epochs
        ),
    }
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    with threads(1):
        for run in options.runs:
            learner = load_learner(run)
            for name, way in ways.items():
                found[name].append(measured(way(learner), learner, options.tasks, options.episodes))
                print(f"{run}: {name} done", file=sys.stderr)
    print(table(found))
    return 0


def measured(model: Any, full: Any, count: int, episodes: int) -> Measured:
    """Measure a learner, or a compressed one, on test tasks of a family.

    Args:
        model: the learner.
        full: from which it was made, whose family and seed are taken.
        count: of test tasks.
        episodes: for each adaptation step, and for each test.
    """
    family, kwargs, seed = full.settings.family, full.settings.family_kwargs, full.settings.seed
    tasks = sample_tasks(family, n=count, seed=seed, split="test", **kwargs)
    returns, adapting = [], []
    for number, task in enumerate(tasks):
        began = time.process_time()
        adapted = model.adapt(task, steps=1, episodes=episodes, seed=number)
        adapting.append(time.process_time() - began)
        env = make_vec(family, episodes, **kwargs)
        policies = (model.policy, adapted)
        returns.append([played(policy, env, task, episodes, number) for policy in policies])
        env.close()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "saved.zip"
        model.save(file)
        size = file.stat().st_size / 1e3
    held = sum(part.numel() * part.element_size() for part in tensors_of(adapted)) / 1e3
    one = np.asarray(metarl.make(family, task=tasks[0], **kwargs).reset(seed=0)[0])
    return Measured(np.array(returns).T, size, held, 1e6 * seconds_of(adapted, one), 1e3 * float(np.mean(adapting)))


def tensors_of(policy: ActorCriticPolicy) -> list[torch.Tensor]:
    """Return a policy's parameters and buffers, each once."""
    return [*policy.parameters(), *policy.buffers()]


def played(policy: ActorCriticPolicy, env: Any, task: Any, episodes: int, seed: int) -> float:
    """Return the mean return of a policy's first episode in each of some environments with a task."""
    torch.manual_seed(seed)
    batch = task_tools.stack_tasks(task_tools.task_space(env), [task] * episodes)
    observations, _ = env.reset(seed=list(range(episodes)), options={"tasks": batch})
    returns, running = np.zeros(episodes), np.ones(episodes, bool)
    while running.any():
        actions, _ = policy.predict(observations, deterministic=False)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        returns += np.where(running, rewards, 0.0)
        running &= ~(terminated | truncated)
    return float(returns.mean())


def seconds_of(policy: ActorCriticPolicy, observation: NDArray[Any]) -> float:
    """Return the median processor time of choosing an action."""
    times = []
    for _ in range(300):
        began = time.process_time()
        policy.predict(observation, deterministic=True)
        times.append(time.process_time() - began)
    return float(np.median(times))


def table(found: dict[str, list[Measured]]) -> str:
    """Return a table of all learners, in Markdown."""
    full = np.stack([one.returns for one in found["full"]], axis=1)
    lines = [
        "| | return before | after | difference to full | file, kB | memory, kB | a step, µs | adapting, ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, every in found.items():
        returns = np.stack([one.returns for one in every], axis=1)
        apart = "" if name == "full" else in_words(returns[1] - full[1])
        parts = ("kilobytes", "memory", "acting", "adapting")
        shown = " | ".join(f"{np.mean([getattr(one, part) for one in every]):.0f}" for part in parts)
        lines.append(f"| {name} | {in_words(returns[0])} | {in_words(returns[1])} | {apart} | {shown} |")
    return "\n".join(lines)


def in_words(values: NDArray[np.float64]) -> str:
    """Return a mean over ``[run, task]`` with its interval."""
    low, high = bootstrap_interval(values)
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
