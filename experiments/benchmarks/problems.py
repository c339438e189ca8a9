"""The common parts of benchmarks of the meta-update: problems of several sizes, rivals, the floor, and timing."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from metarl.agents import (
    Distribution,
    Gaussian,
    Parameters,
    Policy,
    Samples,
    build_policy,
    likelihood_ratio_gain,
    mean_kl,
    policy_gradient_loss,
)
from metarl.agents.observations import Observations, parts
from metarl.agents.policies import ContextPolicy
from metarl.gradients.adaptation import Adaptation, choose_backend
from metarl.gradients.backend import Backend
from metarl.gradients.flat import flatten, named
from metarl.gradients.perceptron_backend import PerceptronBackend

STEP_SIZE = 0.1


@dataclass(frozen=True)
class Setting:
    """The size of a problem: ``rows`` steps for each of ``tasks``, before and after one inner step."""

    name: str
    tasks: int
    rows: int
    observation: int
    action: int
    hidden: int

    def title(self) -> str:
        """Return the setting in words."""
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


@dataclass(frozen=True)
class Problem:
    """A policy, and random samples before and after one inner step."""

    policy: Policy
    parameters: Parameters
    support: Samples
    query: Samples

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return self.support.weights.shape[0]

    def adaptation(self, backend: Backend) -> Adaptation:
        """Return the adaptation after its inner update."""
        adaptation = Adaptation(self.policy, backend, flatten(self.parameters.values()))
        adaptation.adapt(self.support, STEP_SIZE)
        return adaptation

    def with_context(self, size: int) -> Problem:
        """Return the same problem for the policy with a context."""
        assert self.policy.layers is not None
        policy = ContextPolicy(self.policy, size, 1)
        parameters = {name: value.to(self.support.weights.device) for name, value in policy.parameters().items()}
        return Problem(policy, parameters, self.support, self.query)


def perceptron_problem(setting: Setting, device: torch.device) -> Problem:
    """Return a setting's problem for a perceptron."""
    observations = partial(torch.randn, setting.tasks, setting.rows, setting.observation)
    return make_problem(make_policy(setting), lambda generator: observations(generator=generator), device)


def image_problem(tasks: int, rows: int) -> Problem:
    """Return a problem for stable-baselines3's convolutional policy: images of 36 x 36 pixels, four actions."""
    space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    policy = make_policy_for(space, spaces.Discrete(4), "CnnPolicy", (64,))

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randint(0, 256, (tasks, rows, 1, 36, 36), generator=generator, dtype=torch.uint8)

    return make_problem(policy, draw, torch.device("cpu"))


def dict_problem(tasks: int, rows: int) -> Problem:
    """Return a problem for a multi-input policy: a vector of 17 numbers and a one-hot of 10; a box of six actions."""
    parts: dict[str, spaces.Space[Any]] = {
        "vector": spaces.Box(-np.inf, np.inf, (17,), np.float32),
        "place": spaces.Discrete(10),
    }
    space = spaces.Dict(parts)
    policy = make_policy_for(space, spaces.Box(-1.0, 1.0, (6,), np.float32), "MultiInputPolicy", (64, 64))

    def draw(generator: torch.Generator) -> dict[str, Tensor]:
        return {
            "vector": torch.randn(tasks, rows, 17, generator=generator),
            "place": torch.randint(0, 10, (tasks, rows), generator=generator),
        }

    return make_problem(policy, draw, torch.device("cpu"))


class Trunk(BaseFeaturesExtractor):
    """A layer that actor and critic share."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 64)
        self.layer = nn.Linear(observation_space.shape[0], 64)

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features."""
        return torch.tanh(self.layer(observations))


def trunk_problem(tasks: int, rows: int) -> Problem:
    """Return a problem for a policy with a custom features extractor: 17 numbers, a box of six actions."""
    space = spaces.Box(-np.inf, np.inf, (17,), np.float32)
    actions = spaces.Box(-1.0, 1.0, (6,), np.float32)
    policy = make_policy_for(space, actions, "MlpPolicy", (64,), features_extractor_class=Trunk)
    draw = partial(torch.randn, tasks, rows, 17)
    return make_problem(policy, lambda generator: draw(generator=generator), torch.device("cpu"))


def make_problem(policy: Policy, draw: Callable[[torch.Generator], Observations], device: torch.device) -> Problem:
    """Return a problem with random observations ``[task, row, *obs]``, and actions sampled from the policy."""

    def samples(seed: int) -> Samples:
        generator = torch.Generator().manual_seed(seed)
        observations = draw(generator)
        tasks, rows = parts(observations)[0].shape[:2]
        drawn = Samples(
            observations=observations,
            actions=torch.zeros(tasks, rows),
            log_probs=torch.zeros(tasks, rows),
            advantages=torch.randn(tasks, rows, generator=generator),
            weights=torch.full((tasks, rows), 1.0 / rows),
            episode_rows=rows,
        )
        with torch.no_grad():
            distribution = policy.distribution(policy.parameters(), drawn.joined())
            first = distribution.parameters[0]
            if isinstance(distribution, Gaussian):
                noise = torch.randn(first.shape, generator=generator)
                actions = first + distribution.log_std.exp() * noise
            else:
                actions = torch.multinomial(first.softmax(dim=-1), 1, generator=generator)[:, 0]
            log_probs = distribution.log_prob(actions)
        acted = replace(
            drawn, actions=actions.reshape(tasks, rows, *actions.shape[1:]), log_probs=log_probs.reshape(tasks, rows)
        )
        return acted.map(lambda part: part.to(device))

    parameters = {name: value.to(device) for name, value in policy.parameters().items()}
    return Problem(policy, parameters, samples(0), samples(1))


def make_policy(setting: Setting) -> Policy:
    """Return a policy with two tanh layers."""
    space = spaces.Box(-np.inf, np.inf, (setting.observation,), np.float32)
    actions = spaces.Box(-1.0, 1.0, (setting.action,), np.float32)
    return make_policy_for(space, actions, "MlpPolicy", (setting.hidden, setting.hidden))


def make_policy_for(
    observations: spaces.Space[Any], actions: spaces.Space[Any], name: str, hidden: tuple[int, ...], **arguments: Any
) -> Policy:
    """Return a policy for spaces, with tanh layers."""
    return build_policy(
        observations,
        actions,
        name=name,
        seed=1,
        hidden_sizes=hidden,
        activation="tanh",
        output_gain=1.0,
        log_std_init=0.0,
        log_std_min=-1.6,
        **arguments,
    )


# ---------------------------------------------------------------------- rivals


def _adapted_in_graph(problem: Problem, task: int) -> tuple[list[Tensor], Distribution, Samples]:
    """Return leaves, a task's adapted policy's action distribution as a graph from them, and its samples."""
    own = {name: value.clone().requires_grad_() for name, value in problem.parameters.items()}
    leaves = list(own.values())
    support, query = problem.support.task(task), problem.query.task(task)
    loss = policy_gradient_loss(problem.policy.distribution(own, support), support)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    moved = {name: own[name] - STEP_SIZE * gradient for name, gradient in zip(own, gradients, strict=True)}
    return leaves, problem.policy.distribution(moved, query), query


class DoubleBackward:
    """Fisher-vector products by double backward through the inner update, task by task; graphs are kept."""

    def __init__(self, problem: Problem) -> None:
        self._gradients: list[tuple[list[Tensor], Tensor]] = []
        self.vector = flatten(problem.parameters.values())
        self.old: list[Distribution] = []  # of the adapted policies, task by task
        for task in range(problem.tasks):
            leaves, new, query = _adapted_in_graph(problem, task)
            self.old.append(new.detach())
            kl = mean_kl(self.old[-1], new, query)
            self._gradients.append((leaves, flatten(torch.autograd.grad(kl, leaves, create_graph=True))))

    def product(self, vector: Tensor) -> Tensor:
        """Return the mean product over tasks."""
        total = torch.zeros_like(vector)
        for leaves, gradient in self._gradients:
            total += flatten(torch.autograd.grad(gradient @ vector, leaves, retain_graph=True))
        return total / len(self._gradients)


def autograd_gradient(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the surrogate and the meta-gradient, by autograd through the inner update in a loop over tasks."""
    total = torch.zeros_like(flatten(problem.parameters.values()))
    gains = []
    for task in range(problem.tasks):
        leaves, new, query = _adapted_in_graph(problem, task)
        gain = likelihood_ratio_gain(new, query)
        gains.append(gain.detach())
        total += flatten(torch.autograd.grad(gain, leaves))
    return torch.stack(gains).mean(), total / problem.tasks


def autograd_inner_update(problem: Problem, vector: Tensor | None = None) -> list[tuple[Tensor, ...]]:
    """Return the inner update in a plain loop over tasks, optionally from other shared parameters."""
    adapted = []
    shared = problem.parameters if vector is None else named(problem.policy.shapes, vector)
    for task in range(problem.tasks):
        own = {name: value.detach().requires_grad_() for name, value in shared.items()}
        samples = problem.support.task(task)
        loss = policy_gradient_loss(problem.policy.distribution(own, samples), samples)
        gradients = torch.autograd.grad(loss, list(own.values()))
        adapted.append(
            tuple(
                value.detach() - STEP_SIZE * gradient for value, gradient in zip(own.values(), gradients, strict=True)
            )
        )
    return adapted


def autograd_evaluation(problem: Problem, old: list[Distribution], vector: Tensor | None = None) -> Tensor:
    """Return a line-search evaluation in a plain loop over tasks."""
    totals = []
    for task, adapted in enumerate(autograd_inner_update(problem, vector)):
        query = problem.query.task(task)
        with torch.no_grad():
            new = problem.policy.distribution(dict(zip(problem.parameters, adapted, strict=True)), query)
            totals.append(torch.stack([likelihood_ratio_gain(new, query), mean_kl(old[task], new, query)]))
    return torch.stack(totals).mean(dim=0)


class Floor:
    """The H x H matrix products of all tasks' rows: as many forward, backward and outer products as a part needs."""

    def __init__(self, problem: Problem, width: int) -> None:
        backend = choose_backend(problem.policy, torch.device("cpu"))
        assert isinstance(backend, PerceptronBackend)
        self._blocks = [len(block.weights) for block in backend.rows(problem.support.task(0))] * problem.tasks
        rows = max(self._blocks)
        self._left, self._right = torch.randn(rows, width), torch.randn(rows, width)
        self._out = torch.empty(rows, width)
        self._square, self._weight = torch.empty(width, width), torch.randn(width, width)

    def run(self, layer_products: int, outer_products: int) -> None:
        """Compute so many products ``[row, H] x [H, H]`` and ``[H, row] x [row, H]`` for each block of rows."""
        for rows in self._blocks:
            left, right, out = self._left[:rows], self._right[:rows], self._out[:rows]
            for _ in range(layer_products):
                torch.mm(left, self._weight.t(), out=out)
            for _ in range(outer_products):
                torch.mm(left.t(), right, out=self._square)


# ---------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Row:
    """A line of the table.

    ``ratio`` is seconds over floor; ``against`` the rivals' seconds over metarl's; ``rates`` those of a GPU.
    """

    setting: str
    part: str
    seconds: float
    floor: float | None
    ratio: float | None
    against: dict[str, float]
    rates: dict[str, float] = field(default_factory=dict)


def medians(
    works: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the median seconds of each piece of work, measured alternately after one round of warm-up.

    The default is processor time, which for one thread is right even if other programs run.
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
    """Let torch use a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
