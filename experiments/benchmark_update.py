"""How long the parts of a meta-update take, beside their floors and their rivals on the same data.

``python -m metarl.experiments.benchmark_update [--quick] [--growth] [--json FILE]``

The floor of an update's part is what its H x H matrix products alone take on the same blocks of rows, with one thread;
that of a rollout is its matrix products and the environments; that of starting is ``import torch``. Read ratios, not
seconds, and only within one run. All but the lines about threads and starting are processor time of one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

import metarl
from metarl import seeding
from metarl.agents import (
    Normalizer,
    Policy,
    Samples,
    build_policy,
    likelihood_ratio_gain,
    mean_kl,
    policy_gradient_loss,
)
from metarl.curvature import Chain, Curvature
from metarl.envs import tasks as task_tools
from metarl.fast_path import FastPath
from metarl.inner import Path, choose_path, inner_update
from metarl.sampler import Sampler
from metarl.vectors import flatten

STEP_SIZE = 0.1
FAMILY = "metarl/Navigation2D-v0"
EPISODES = 20


@dataclass(frozen=True)
class Setting:
    """How much there is to learn from: ``rows`` steps for each of ``tasks``, before and after one inner step."""

    name: str
    tasks: int
    rows: int
    observation: int
    action: int
    hidden: int

    def title(self) -> str:
        """Return it in words."""
        return (
            f"{self.name}: {self.tasks} tasks x {self.rows} steps, {self.observation} -> {self.action}, H={self.hidden}"
        )


def settings(hidden: Sequence[int] = (64, 100), tasks: int = 40) -> list[Setting]:
    """Return settings A (20 episodes of 100 steps, navigation's spaces) and B (locomotion's)."""
    return [
        Setting(name, tasks, rows, observation, action, width)
        for name, rows, observation, action in (("A", 2000, 2, 2), ("B", 4000, 20, 6))
        for width in hidden
    ]


class Problem:
    """Random samples of a setting, and the objects under test on them."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting = setting
        self.device = device
        self.policy = make_policy(setting)
        self.parameters = {name: value.to(device) for name, value in self.policy.parameters().items()}
        self.support = self._samples(0)
        self.query = self._samples(1)

    def _samples(self, seed: int) -> Samples:
        setting = self.setting
        generator = torch.Generator().manual_seed(seed)
        shape = (setting.tasks, setting.rows)
        observations = torch.randn(*shape, setting.observation, generator=generator)
        noise = torch.randn(*shape, setting.action, generator=generator)
        with torch.no_grad():
            host = self.policy.parameters()
            distribution = self.policy.distribution(host, observations.flatten(0, 1))
            mean, log_std = (part.reshape(*shape, -1) for part in distribution.parameters)
            actions = mean + log_std.exp() * noise
            log_probs = distribution.log_prob(actions.flatten(0, 1)).reshape(shape)
        samples = Samples(
            observations=observations,
            actions=actions,
            log_probs=log_probs,
            advantages=torch.randn(*shape, generator=generator),
            weights=torch.full(shape, 1.0 / setting.rows),
        )
        parts = {name: value.to(self.device) for name, value in vars(samples).items()}
        return Samples(**parts)

    def chain(self, path: Path) -> Chain:
        """Return the inner update, taken."""
        chain = Chain(self.policy, path, self.parameters)
        chain.adapt(self.support, STEP_SIZE)
        return chain


def make_policy(setting: Setting) -> Policy:
    """Return a policy with two tanh layers."""
    return build_policy(
        spaces.Box(-np.inf, np.inf, (setting.observation,), np.float32),
        spaces.Box(-1.0, 1.0, (setting.action,), np.float32),
        name="MlpPolicy",
        seed=1,
        hidden_sizes=(setting.hidden, setting.hidden),
        activation="tanh",
        output_gain=1.0,
        log_std_init=0.0,
        log_std_min=-1.6,
    )


# ---------------------------------------------------------------------- rivals


class DoubleBackward:
    """Fisher-vector products by differentiating twice through the inner update; graphs are kept, task by task."""

    def __init__(self, problem: Problem) -> None:
        self._slopes: list[tuple[list[Tensor], Tensor]] = []
        for task in range(problem.setting.tasks):
            own = {name: value.clone().requires_grad_() for name, value in problem.parameters.items()}
            leaves = list(own.values())
            support, query = problem.support.task(task), problem.query.task(task)
            loss = policy_gradient_loss(problem.policy.distribution(own, support.observations), support)
            slopes = torch.autograd.grad(loss, leaves, create_graph=True)
            moved = {name: own[name] - STEP_SIZE * slope for name, slope in zip(own, slopes, strict=True)}
            new = problem.policy.distribution(moved, query.observations)
            kl = mean_kl(new.detach(), new, query)
            self._slopes.append((leaves, flatten(torch.autograd.grad(kl, leaves, create_graph=True))))

    def product(self, vector: Tensor) -> Tensor:
        """Return the mean product over tasks."""
        total = torch.zeros_like(vector)
        for leaves, slope in self._slopes:
            total += flatten(torch.autograd.grad(slope @ vector, leaves, retain_graph=True))
        return total / len(self._slopes)


def autograd_inner_update(problem: Problem) -> list[tuple[Tensor, ...]]:
    """The inner update as a plain loop over tasks."""
    adapted = []
    for task in range(problem.setting.tasks):
        own = {name: value.detach().requires_grad_() for name, value in problem.parameters.items()}
        samples = problem.support.task(task)
        loss = policy_gradient_loss(problem.policy.distribution(own, samples.observations), samples)
        slopes = torch.autograd.grad(loss, list(own.values()))
        adapted.append(
            tuple(value.detach() - STEP_SIZE * slope for value, slope in zip(own.values(), slopes, strict=True))
        )
    return adapted


def autograd_evaluation(problem: Problem, old: list[Any]) -> Tensor:
    """A line-search evaluation as a plain loop over tasks."""
    totals = []
    for task, adapted in enumerate(autograd_inner_update(problem)):
        query = problem.query.task(task)
        with torch.no_grad():
            new = problem.policy.distribution(dict(zip(problem.parameters, adapted, strict=True)), query.observations)
            totals.append(torch.stack([likelihood_ratio_gain(new, query), mean_kl(old[task], new, query)]))
    return torch.stack(totals).mean(dim=0)


class Floor:
    """The H x H matrix products of all tasks' rows, as many forward, backward and outer ones as a part needs."""

    def __init__(self, problem: Problem) -> None:
        setting = problem.setting
        path = choose_path(problem.policy, torch.device("cpu"))
        assert isinstance(path, FastPath)
        self._blocks = [len(block.weights) for block in path.rows(problem.support.task(0))] * setting.tasks
        rows, width = max(self._blocks), setting.hidden
        self._left, self._right = torch.randn(rows, width), torch.randn(rows, width)
        self._out = torch.empty(rows, width)
        self._square, self._weight = torch.empty(width, width), torch.randn(width, width)

    def run(self, layer_products: int, outer_products: int) -> None:
        """Do that many products ``[row, H] x [H, H]`` and ``[H, row] x [row, H]`` for each block of rows."""
        for rows in self._blocks:
            left, right, out = self._left[:rows], self._right[:rows], self._out[:rows]
            for _ in range(layer_products):
                torch.mm(left, self._weight.t(), out=out)
            for _ in range(outer_products):
                torch.mm(left.t(), right, out=self._square)


# ---------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Row:
    """A line of the table: ``ratio`` is seconds over floor; ``against`` the rivals' seconds over ours."""

    setting: str
    part: str
    seconds: float
    floor: float | None
    ratio: float | None
    against: dict[str, float]


def medians(
    works: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the median seconds of each piece of work, taken in turns after one round of warm-up.

    Processor time by default, right for one thread even where something else runs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            began = clock()
            work()
            if repeat > 0:
                seconds[name].append(clock() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@threads(1)
def measure(setting: Setting, repeats: int) -> list[Row]:
    """Measure all parts of a setting on the CPU."""
    problem = Problem(setting, torch.device("cpu"))
    floor = Floor(problem)
    fast = choose_path(problem.policy, problem.device)
    chain, general = problem.chain(fast), problem.chain(choose_path(problem.policy, problem.device, path="general"))
    ours, theirs = Curvature(chain, problem.query), Curvature(general, problem.query)
    double = DoubleBackward(problem)
    vector = ours.gradient / ours.gradient.norm()
    found = {"ours": ours.product(vector), "general": theirs.product(vector), "double": double.product(vector)}
    for name, image in found.items():
        assert float((image - found["double"]).norm() / found["double"].norm()) < 1e-4, name
    rows: list[Row] = []

    def add(part: str, products: tuple[int, int] | None, works: dict[str, Callable[[], Any]]) -> None:
        if products is not None:
            works = {**works, "floor": lambda: floor.run(*products)}
        seconds = medians(works, repeats, time.process_time if products is not None else time.perf_counter)
        own, lowest = seconds.pop("ours"), seconds.pop("floor", None)
        ratio = None if lowest is None else own / lowest
        against = {name: other / own for name, other in seconds.items()}
        rows.append(Row(setting.title(), part, own, lowest, ratio, against))

    def product() -> Tensor:
        return ours.product(vector)

    @threads(2)
    def product_on_two_threads() -> Tensor:
        return ours.product(vector)

    add(
        "Fisher-vector product",
        (11, 5),
        {"ours": product, "double backward": lambda: double.product(vector)},
    )
    add(
        "Fisher-vector product, general path",
        (11, 5),
        {"ours": lambda: theirs.product(vector), "double backward": lambda: double.product(vector)},
    )
    add("Fisher-vector product, two threads", None, {"ours": product_on_two_threads, "one thread": product})
    add(
        "inner update",
        (2, 1),
        {
            "ours": lambda: inner_update(problem.policy, problem.parameters, problem.support, STEP_SIZE),
            "autograd loop": lambda: autograd_inner_update(problem),
        },
    )
    add("inner update, kept for products", (2, 1), {"ours": lambda: problem.chain(fast)})
    add("meta-gradient", (6, 3), {"ours": lambda: Curvature(chain, problem.query)})
    old = [
        problem.policy.distribution(
            {name: value[task] for name, value in chain.parameters[1].items()}, problem.query.task(task).observations
        )
        for task in range(setting.tasks)
    ]
    add(
        "line-search evaluation",
        (3, 1),
        {"ours": lambda: ours.evaluate(ours.parameters), "autograd loop": lambda: autograd_evaluation(problem, old)},
    )
    return rows


@threads(1)
def measure_rollout(hidden: int, tasks: int, repeats: int) -> Row:
    """Measure rollouts of setting A: 20 episodes of 2-D navigation a task, parameters of their own."""
    setting = Setting("A", tasks, 2000, 2, 2, hidden)
    policy = make_policy(setting)
    parameters = {name: torch.stack([value] * tasks) for name, value in policy.parameters().items()}
    drawn = metarl.sample_tasks(FAMILY, tasks, seed=0)
    sampler = Sampler(FAMILY, {})
    streams = seeding.streams(1, seeding.TRAINING, 0, 0, tasks=range(tasks))
    rollouts = sampler.collect(policy, parameters, Normalizer(), drawn, EPISODES, streams)
    assert policy.layers is not None
    weights = [np.ascontiguousarray(parameters[layer.weight].numpy().swapaxes(-1, -2)) for layer in policy.layers]
    into = [np.empty((tasks, EPISODES, weight.shape[-1]), np.float32) for weight in weights]
    assert isinstance(rollouts.observations, Tensor)
    observations = rollouts.observations.numpy()
    actions = rollouts.actions.numpy()
    vector = sampler.vector(tasks * EPISODES)

    def floor() -> None:
        vector.reset(seed=0, options={"tasks": task_tools.repeat_tasks(drawn, EPISODES)})
        for step in range(actions.shape[2]):
            h = observations[:, :, step]
            for weight, out in zip(weights, into, strict=True):
                h = np.matmul(h, weight, out=out)
            vector.step(actions[:, :, step].reshape(tasks * EPISODES, -1))

    seconds = medians(
        {"ours": lambda: sampler.collect(policy, parameters, Normalizer(), drawn, EPISODES, streams), "floor": floor},
        repeats,
    )
    sampler.close()
    ratio = seconds["ours"] / seconds["floor"]
    return Row(setting.title(), "rollout", seconds["ours"], seconds["floor"], ratio, {})


def measure_start(repeats: int) -> list[Row]:
    """Measure how long Python takes to start with metarl, and with torch, in processes of their own."""

    def start(*arguments: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    works = {
        "import metarl": start("-c", "import metarl"),
        "metarl --help": start("-c", "from metarl.experiments.command import main; main(['--help'])"),
        "floor": start("-c", "import torch"),
    }
    seconds = medians(works, repeats, time.perf_counter)
    floor = seconds.pop("floor")
    return [Row("start", part, taken, floor, taken / floor, {}) for part, taken in seconds.items()]


@threads(1)
def measure_growth(counts: Sequence[int], hidden: int, repeats: int) -> list[Row]:
    """Measure a Fisher-vector product a task, and the memory of the process (Linux), as tasks become more."""
    rows = []
    for tasks in counts:
        for memory in ("keep", "recompute"):
            problem = Problem(Setting("A", tasks, 2000, 2, 2, hidden), torch.device("cpu"))
            floor = Floor(problem)
            path = choose_path(problem.policy, problem.device, keep=memory == "keep")
            curvature = Curvature(problem.chain(path), problem.query)
            product: Callable[[], Any] = partial(curvature.product, curvature.gradient)
            seconds = medians({"ours": product, "floor": partial(floor.run, 11, 5)}, repeats)
            held = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
            title = f"{problem.setting.title()}, {held:.0f} MB in all"
            ratio = seconds["ours"] / seconds["floor"]
            rows.append(Row(title, f"product, memory = {memory}", seconds["ours"], seconds["floor"], ratio, {}))
            del curvature, path
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and repeats: under a minute, noisier")
    parser.add_argument("--growth", action="store_true", help="instead: time and memory with 10 to 640 tasks")
    parser.add_argument("--json", type=pathlib.Path, help="write the table to a file")
    parser.add_argument("--only", default="", help="settings whose title contains this, as 'A:' or 'H=100'")
    options = parser.parse_args(arguments)
    tasks, repeats = (8, 3) if options.quick else (40, 7)
    rows: list[Row] = []
    if options.growth:
        rows += measure_growth((10, 40) if options.quick else (10, 40, 160, 640), 100, 3)
    else:
        for setting in settings(tasks=tasks):
            if options.only in setting.title():
                rows += measure(setting, repeats)
                if setting.name == "A":
                    rows.append(measure_rollout(setting.hidden, setting.tasks, repeats))
        rows += measure_start(repeats)
    table(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": [vars(row) for row in rows]}, indent=1))
    return 0


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def table(rows: list[Row]) -> None:
    """Print the table: part, seconds, floor, ratio, and how many times as long the rivals take."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    title = None
    for row in rows:
        if row.setting != title:
            title = row.setting
            print(f"\n{title}\n{'part':38} {'seconds':>9} {'floor':>9} {'ratio':>6}  rivals ÷ ours")
        floor = "" if row.floor is None else f"{row.floor:9.4f}"
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f}"
        against = ", ".join(f"{name} {value:.2f}" for name, value in row.against.items())
        print(f"{row.part:38} {row.seconds:9.4f} {floor:>9} {ratio:>6}  {against}")


if __name__ == "__main__":
    sys.exit(main())
