"""The inner update: one gradient step for each task, ``theta' = theta - alpha * grad L(theta)``.

Source: Finn et al. 2017, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from metarl.agents import POLICY_GRADIENT, InnerObjective, Parameters, Policy, Samples
from metarl.gradients.context_backend import ContextPath, ContextPolicy
from metarl.gradients.perceptron_backend import FastPath
from metarl.gradients.autograd_backend import GeneralPath
from metarl.gradients.parallel import Result, map_tasks
from metarl.gradients.terms import Outputs, Slopes
from metarl.gradients.flat import flatten, flatten_tasks, named

StepSize = float | Tensor | Parameters
Parts = list[int] | list[slice]  # which tasks are taken at once; one by its number has no task axis


class InnerLoss(Protocol):
    """The inner loss at some parameters.

    ``gradient`` is that by what adapts, with 0 for the rest; ``outputs`` is what the policy says there.
    """

    gradient: Tensor
    outputs: Outputs

    def push(self, vector: Tensor) -> Tensor:
        """Return how the gradient changes along a vector."""

    def pull(self, vector: Tensor, slopes: Slopes | None = None) -> Tensor:
        """Return the transposed of ``push``, and with it the gradient of a function of ``outputs`` by its slopes."""


class AdaptedPolicy(Protocol):
    """The adapted policy on what was collected with it; ``gradient`` is that of the surrogate ``gain``."""

    gain: Tensor
    gradient: Tensor

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[..., 2]``."""


class Path(Protocol):
    """How derivatives are computed.

    Vectors ``[..., parameter]``, samples and results are those of one task; or, where ``parts`` has slices, those of
    several with a leading task axis.
    """

    name: str
    objective: InnerObjective

    def parts(self, samples: Samples) -> Parts:
        """Return which tasks are taken at once: one each, or slices of them."""

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss, ready for products."""

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone, with 0 for what does not adapt."""

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss by all parameters."""

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return what the policy says of samples."""

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy, ready for products."""


def choose_path(
    policy: Policy,
    device: torch.device,
    *,
    path: Literal["auto", "fast", "general"] = "auto",
    objective: InnerObjective = POLICY_GRADIENT,
    adapts: frozenset[str] | None = None,
    keep: bool = True,
) -> Path:
    """Return the fast path for perceptrons; else the general one.

    The fast path takes as many tasks at once as fill a block of rows, or, where the device is not the CPU, all.

    Args:
        policy: what is differentiated.
        device: where the update runs.
        path: ``fast`` or ``general`` to have that one.
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all. Of a policy with a context it is that.
        keep: keep intermediate results between products; else compute them again, in little memory.

    Raises:
        ValueError: ``fast`` is asked for and there is none.
    """
    at_once: Literal["block", "all"] = "block" if device.type == "cpu" else "all"
    if path != "general" and isinstance(policy, ContextPolicy):
        return ContextPath(policy, objective, keep=keep, device=device, at_once=at_once)
    if path == "fast" and policy.layers is None:
        raise ValueError(
            "outer.path is 'fast', but there is no fast path for this policy: it is for perceptrons (MlpPolicy with "
            "tanh or relu on a flat Box); use 'auto' or 'general'"
        )
    if policy.layers is not None and path != "general":
        return FastPath(policy, objective, adapts=adapts, keep=keep, device=device, at_once=at_once)
    return GeneralPath(policy, objective, adapts=adapts, keep=keep)


def scale(step_size: StepSize) -> float | Tensor:
    """Return a step size as what a flat vector is multiplied by."""
    return flatten(step_size.values()) if isinstance(step_size, dict) else step_size


def inner_update(
    policy: Policy,
    parameters: Parameters,
    samples: Samples,
    step_size: StepSize,
    adapts: frozenset[str] | None = None,
) -> Parameters:
    """Return stacked parameters after an inner step of every task.

    Args:
        policy: whose distribution is differentiated.
        parameters: shared (no task axis), or stacked in the order of the tasks.
        samples: ``[task, sample, ...]``.
        step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
        adapts: names of the parameters that change; None for all.
    """
    n_tasks = samples.weights.shape[0]
    device = samples.weights.device
    vectors = task_vectors(policy, parameters, n_tasks)
    # At the policy that acted, every inner objective has the gradient of this one.
    path = choose_path(policy, device, objective=POLICY_GRADIENT, adapts=adapts, keep=False)
    parts = path.parts(samples)
    slopes = for_parts(parts, vectors, samples, path.inner_gradient)
    return named(policy.shapes, vectors - scale(step_size) * join(parts, slopes))


def loss_gradients(path: Path, vectors: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
    """Return the gradient of an objective's loss by all parameters, for each task at its own: ``[task, parameter]``."""
    parts = path.parts(samples)
    return join(parts, for_parts(parts, vectors, samples, lambda vector, own: path.gradient(vector, own, objective)))


def for_parts(
    parts: Parts, vectors: Tensor, samples: Samples, work: Callable[[Tensor, Samples], Result]
) -> list[Result]:
    """Return the results of ``work(vector, samples)`` for each part of the tasks."""

    def work_on(part: int) -> Result:
        return work(vectors[parts[part]].clone(), samples.task(parts[part]))

    return map_tasks(work_on, len(parts), samples.weights.device)


def join(parts: Parts, results: list[Tensor]) -> Tensor:
    """Return results for each part of the tasks with a leading task axis."""
    if isinstance(parts[0], slice):
        return torch.cat(results)
    return torch.stack(results)


def task_vectors(policy: Policy, parameters: Parameters, n_tasks: int) -> Tensor:
    """Return parameters, shared or stacked, as detached vectors ``[task, parameter]``."""
    name, value = next(iter(parameters.items()))
    if value.shape == policy.shapes[name]:
        return flatten(parameters.values()).detach().expand(n_tasks, -1)
    return flatten_tasks(parameters).detach()
