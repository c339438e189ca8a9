"""The inner update: one gradient step for each task, ``theta' = theta - alpha * grad L(theta)``.

Source: Finn et al. 2017, equation 1.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from metarl.agents import POLICY_GRADIENT, InnerObjective, Parameters, Policy, Samples
from metarl.fast_path import FastPath
from metarl.general_path import GeneralPath
from metarl.parallel import map_tasks
from metarl.vectors import flatten, flatten_tasks, named

StepSize = float | Tensor | Parameters


class InnerLoss(Protocol):
    """One task's inner loss at some parameters."""

    gradient: Tensor

    def hessian(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the loss times a vector."""


class AdaptedPolicy(Protocol):
    """One task's adapted policy on what was collected with it; ``gradient`` is that of the surrogate ``gain``."""

    gain: Tensor
    gradient: Tensor

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[2]``."""


class Path(Protocol):
    """How derivatives are computed; vectors are flat, samples and parameters those of one task."""

    name: str

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss, ready for products."""

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone."""

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy, ready for products."""


def choose_path(
    policy: Policy,
    device: torch.device,
    *,
    path: Literal["auto", "fast", "general"] = "auto",
    objective: InnerObjective = POLICY_GRADIENT,
    keep: bool = True,
) -> Path:
    """Return the fast path for perceptrons on the CPU, the general path for the rest.

    Args:
        policy: what is differentiated.
        device: where the update runs.
        path: ``fast`` or ``general`` to have that one.
        objective: of the inner update.
        keep: keep intermediate results between products; else compute them again, in little memory.

    Raises:
        ValueError: ``fast`` is asked for and there is none.
    """
    fits = policy.layers is not None and device.type == "cpu"
    if path == "fast" and not fits:
        what = f"on device {device.type!r}" if policy.layers is not None else "for this policy"
        raise ValueError(
            f"outer.path is 'fast', but there is no fast path {what}: it is for perceptrons (MlpPolicy with tanh or "
            "relu on a flat Box) on the CPU; use 'auto' or 'general'"
        )
    if fits and path != "general":
        return FastPath(policy, objective, keep=keep)
    return GeneralPath(policy, objective, keep=keep)


def scale(step_size: StepSize) -> float | Tensor:
    """Return a step size as what a flat vector is multiplied by."""
    return flatten(step_size.values()) if isinstance(step_size, dict) else step_size


def inner_update(policy: Policy, parameters: Parameters, samples: Samples, step_size: StepSize) -> Parameters:
    """Return stacked parameters after an inner step of every task.

    Args:
        policy: whose distribution is differentiated.
        parameters: shared (no task axis), or stacked in the order of the tasks.
        samples: ``[task, sample, ...]``.
        step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
    """
    n_tasks = samples.weights.shape[0]
    device = samples.weights.device
    vectors = task_vectors(policy, parameters, n_tasks)
    path = choose_path(policy, device, keep=False)
    slopes = map_tasks(lambda task: path.inner_gradient(vectors[task].clone(), samples.task(task)), n_tasks, device)
    return named(policy.shapes, vectors - scale(step_size) * torch.stack(slopes))


def task_vectors(policy: Policy, parameters: Parameters, n_tasks: int) -> Tensor:
    """Return parameters, shared or stacked, as detached vectors ``[task, parameter]``."""
    name, value = next(iter(parameters.items()))
    if value.shape == policy.shapes[name]:
        return flatten(parameters.values()).detach().expand(n_tasks, -1)
    return flatten_tasks(parameters).detach()
