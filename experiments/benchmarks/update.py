"""The time of a meta-update's parts, compared with their floors and their rivals on the same data.

``python -m metarl.experiments.benchmarks.update [--quick] [--growth] [--device cuda] [--json FILE]``

The floor of a part of the update is the time of its H x H matrix products alone on the same blocks of rows, with one
thread. The floor of an epoch of ProMP or E-MAML is an epoch of MAML with PPO's meta-update on the same data: repeated
inner updates and one meta-gradient, without a further term. The floor of a rollout is the time of its matrix products
and the environments; that of starting is ``import torch``. Only ratios within one run are meaningful, not seconds. All
lines except those about threads and starting are processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import metarl
from metarl import seeding
from metarl.agents import LIKELIHOOD_RATIO, Normalizer, clipped_objective
from metarl.agents.policies.context import CONTEXT
from metarl.envs import tasks as task_tools
from metarl.experiments.benchmarks.gpu import measure_gpu
from metarl.experiments.benchmarks.problems import (
    STEP_SIZE,
    DoubleBackward,
    Floor,
    Problem,
    Row,
    Setting,
    autograd_evaluation,
    autograd_inner_update,
    dict_problem,
    image_problem,
    make_policy,
    medians,
    perceptron_problem,
    settings,
    threads,
    trunk_problem,
)
from metarl.gradients.adaptation import Adaptation, choose_backend, inner_update
from metarl.gradients.backend import ObjectiveTerm
from metarl.gradients.curvature import Curvature, meta_gradients
from metarl.gradients.devices import pick_device
from metarl.gradients.meta_update import Clipped
from metarl.learners.e_maml import SamplingCredit
from metarl.learners.promp import KLPenalty, Penalty
from metarl.sampler import Sampler
from metarl.training.network import PolicyNetwork

FAMILY = "metarl/Navigation2D-v0"
EPISODES = 20
FEW_TASKS = 40  # with more tasks, a product is long enough to be measured once
CPU = torch.device("cpu")


@threads(1)
def measure(setting: Setting, repeats: int) -> list[Row]:
    """Measure all parts of a setting on the CPU."""
    problem = perceptron_problem(setting, CPU)
    floor = Floor(problem, setting.hidden)
    fast = choose_backend(problem.policy, CPU)
    adaptation, general = (
        problem.adaptation(fast),
        problem.adaptation(choose_backend(problem.policy, CPU, path="general")),
    )
    ours, theirs = Curvature(adaptation, problem.query), Curvature(general, problem.query)
    double = DoubleBackward(problem)
    vector = ours.gradient / ours.gradient.norm()
    found = {"ours": ours.product(vector), "general": theirs.product(vector), "double": double.product(vector)}
    for name, image in found.items():
        assert float((image - found["double"]).norm() / found["double"].norm()) < 1e-4, name
    rows: list[Row] = []

    def add(part: str, products: tuple[int, int] | None, works: dict[str, Callable[[], Any]]) -> None:
        if products is not None:
            works = {**works, "floor": lambda: floor.run(*products)}
        seconds = medians(works, repeats, time.process_time if "floor" in works else time.perf_counter)
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
    for name, (own, adapts, update_products, products) in _partly_adapting(problem).items():
        own_update = partial(inner_update, own.policy, own.parameters, own.support, STEP_SIZE, adapts)
        whole = partial(inner_update, problem.policy, problem.parameters, problem.support, STEP_SIZE)
        add(f"inner update, {name}", update_products, {"ours": own_update, "maml": whole})
        partly = Curvature(own.adaptation(choose_backend(own.policy, CPU, adapts=adapts)), own.query)
        works: dict[str, Callable[[], Any]] = {"ours": partial(partly.product, partly.gradient), "maml": product}
        add(f"Fisher-vector product, {name}", products, works)
    add("inner update, kept for products", (2, 1), {"ours": lambda: problem.adaptation(fast)})
    add("meta-gradient", (6, 3), {"ours": lambda: Curvature(adaptation, problem.query)})
    for name, works in _epochs(problem, adaptation).items():
        add(f"epoch of PPO, {name}", None, works)
    add(
        "line-search evaluation",
        (3, 1),
        {
            "ours": lambda: ours.evaluate(ours.vector),
            "autograd loop": lambda: autograd_evaluation(problem, double.old),
        },
    )
    return rows


def _partly_adapting(
    problem: Problem,
) -> dict[str, tuple[Problem, frozenset[str], tuple[int, int], tuple[int, int]]]:
    """Return learner -> problem, adapted parameters, and the H x H products of an inner update and a product."""
    assert problem.policy.layers is not None
    last = problem.policy.layers[-1]
    return {
        "anil": (problem, frozenset({last.weight, last.bias, "log_std"}), (1, 0), (6, 2)),
        "cavia": (problem.with_context(PolicyNetwork().context_size), frozenset({CONTEXT}), (2, 0), (9, 3)),
    }


def _epochs(problem: Problem, adaptation: Adaptation) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return learner -> an epoch of PPO's meta-update with the learner's term, and as the floor one without a term."""
    clipped = clipped_objective(Clipped().clip)
    ratio = problem.adaptation(choose_backend(problem.policy, CPU, objective=LIKELIHOOD_RATIO))
    moved = adaptation.vector + 1e-3 * torch.randn(adaptation.vector.shape, generator=torch.Generator().manual_seed(1))
    credits = torch.linspace(-1.0, 1.0, problem.tasks)
    terms: dict[str, tuple[Adaptation, ObjectiveTerm]] = {
        "promp": (ratio, KLPenalty(ratio, Penalty().kl_coefficient)),
        "e-maml": (adaptation, SamplingCredit([credits[group] for group in adaptation.groups])),
    }

    def epoch(start: Adaptation, term: ObjectiveTerm | None) -> Tensor:
        return meta_gradients(start.at(moved), problem.query, clipped, term)

    return {
        name: {"ours": partial(epoch, start, term), "floor": partial(epoch, adaptation, None)}
        for name, (start, term) in terms.items()
    }


@threads(1)
def measure_rollout(hidden: int, tasks: int, repeats: int) -> Row:
    """Measure rollouts of setting A: 20 episodes of 2-D navigation for each task, with stacked parameters."""
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


@threads(1)
def measure_others(problems: dict[str, Problem], repeats: int) -> list[Row]:
    """Measure Fisher-vector products of policies that are not perceptrons, and those by double backward."""
    rows = []
    for name, problem in problems.items():
        curvature = Curvature(problem.adaptation(choose_backend(problem.policy, CPU)), problem.query)
        double = DoubleBackward(problem)
        vector = curvature.gradient / curvature.gradient.norm()
        exact = double.product(vector)
        assert float((curvature.product(vector) - exact).norm() / exact.norm()) < 1e-3, name
        works: dict[str, Callable[[], Any]] = {
            "ours": partial(curvature.product, vector),
            "double backward": partial(double.product, vector),
        }
        seconds = medians(works, repeats)
        own = seconds.pop("ours")
        against = {rival: taken / own for rival, taken in seconds.items()}
        rows.append(Row(f"{name}, {problem.tasks} tasks", "Fisher-vector product", own, None, None, against))
    return rows


def measure_start(repeats: int) -> list[Row]:
    """Measure how long Python takes to start with metarl, and with torch, in new processes."""

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
    """Measure a Fisher-vector product, and the memory of the process (Linux), for growing numbers of tasks."""
    rows = []
    for memory in ("recompute", "keep"):  # in this order, since the process does not give memory back
        for tasks in counts:
            setting = Setting("A", tasks, 2000, 2, 2, hidden)
            problem = perceptron_problem(setting, CPU)
            floor = Floor(problem, hidden)
            backend = choose_backend(problem.policy, CPU, keep=memory == "keep")
            curvature = Curvature(problem.adaptation(backend), problem.query)
            product: Callable[[], Any] = partial(curvature.product, curvature.gradient)
            works: dict[str, Callable[[], Any]] = {"ours": product, "floor": partial(floor.run, 11, 5)}
            seconds = medians(works, repeats if tasks <= FEW_TASKS else 1)
            held = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
            own, lowest = seconds["ours"], seconds["floor"]
            rates = {"ms a task": own / tasks * 1e3, "MB in all": held}
            rows.append(Row(setting.title(), f"product, memory = {memory}", own, lowest, own / lowest, {}, rates))
            del curvature, backend
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and repeats: under a minute, noisier")
    parser.add_argument("--growth", action="store_true", help="instead: time and memory with 10 to 640 tasks")
    parser.add_argument("--device", default="cpu", help="cuda: instead, the parts on a GPU, and the rates it reaches")
    parser.add_argument("--json", type=pathlib.Path, help="write the table to a file")
    parser.add_argument("--only", default="", help="settings whose title contains this, as 'A:' or 'H=100'")
    options = parser.parse_args(arguments)
    tasks, repeats = (8, 3) if options.quick else (40, 7)
    rows: list[Row] = []
    try:
        device = pick_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    if device.type != "cpu":
        for setting in settings(tasks=tasks):
            if options.only in setting.title():
                rows += measure_gpu(setting, device, repeats)
    elif options.growth:
        rows += measure_growth((10, 40) if options.quick else (10, 40, 160, 640), 100, 3)
    else:
        for setting in settings(tasks=tasks):
            if options.only in setting.title():
                rows += measure(setting, repeats)
                if setting.name == "A":
                    rows.append(measure_rollout(setting.hidden, setting.tasks, repeats))
        size = (2, 50) if options.quick else (4, 200)
        others = {
            "CNN, images of 36 x 36": image_problem(*size),
            "multi-input": dict_problem(size[0], 10 * size[1]),
            "own extractor, a shared trunk": trunk_problem(size[0], 10 * size[1]),
        }
        rows += measure_others({name: part for name, part in others.items() if options.only in name}, repeats)
        rows += measure_start(repeats)
    table(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": [vars(row) for row in rows]}, indent=1))
    return 0


def machine() -> dict[str, Any]:
    """Return the versions and the machine on which the results depend."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def table(rows: list[Row]) -> None:
    """Print the table: part, seconds, floor, ratio, and the ratio of the rivals' seconds to metarl's."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    title = None
    for row in rows:
        if row.setting != title:
            title = row.setting
            print(f"\n{title}\n{'part':38} {'seconds':>9} {'floor':>9} {'ratio':>6}  rivals ÷ ours")
        floor = "" if row.floor is None else f"{row.floor:9.4f}"
        ratio = "" if row.ratio is None else f"{row.ratio:6.2f}"
        against = ", ".join(f"{name} {value:.2f}" for name, value in {**row.against, **row.rates}.items())
        print(f"{row.part:38} {row.seconds:9.4f} {floor:>9} {ratio:>6}  {against}")


if __name__ == "__main__":
    sys.exit(main())
