"""The inner update: one vanilla policy-gradient step for each task, ``theta' = theta - alpha * grad L(theta)``.

Source: Finn et al. 2017, equation 1.
"""

from __future__ import annotations

import torch

from metarl.agents import Parameters, Policy, Samples, policy_gradient_loss
from metarl.parallel import map_tasks


def inner_gradient(
    policy: Policy, parameters: Parameters, samples: Samples, *, create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """Return the gradient of one task's inner loss, in the order of the parameters.

    Args:
        policy: whose distribution is differentiated.
        parameters: of one task, leaves that require gradients.
        samples: of the task, ``[sample, ...]``.
        create_graph: keep the graph, so that the gradient can be differentiated again.
    """
    loss = policy_gradient_loss(policy.distribution(parameters, samples.observations), samples)
    return torch.autograd.grad(
        loss, list(parameters.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def leaves(parameters: Parameters) -> Parameters:
    """Return detached copies that require gradients.

    Copies, since products of matrices can differ in the last bit with the address at which a view begins.
    """
    return {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}


def inner_step(policy: Policy, parameters: Parameters, samples: Samples, step_size: float) -> Parameters:
    """Return one task's parameters after an inner step, detached."""
    own = leaves(parameters)
    gradient = inner_gradient(policy, own, samples)
    with torch.no_grad():
        return {
            name: value.detach() - step_size * slope for (name, value), slope in zip(own.items(), gradient, strict=True)
        }


def inner_update(policy: Policy, parameters: Parameters, samples: Samples, step_size: float) -> Parameters:
    """Return stacked parameters after an inner step of every task.

    Args:
        policy: whose distribution is differentiated.
        parameters: shared (no task axis), or stacked in the order of the tasks.
        samples: ``[task, sample, ...]``.
        step_size: the step size alpha.
    """
    n_tasks = samples.weights.shape[0]
    shared = is_shared(policy, parameters)

    def work(task: int) -> Parameters:
        own = parameters if shared else task_parameters(parameters, task)
        return inner_step(policy, own, samples.task(task), step_size)

    return stack_parameters(map_tasks(work, n_tasks, samples.weights.device))


def is_shared(policy: Policy, parameters: Parameters) -> bool:
    """Whether parameters have no task axis."""
    name, value = next(iter(parameters.items()))
    return value.shape == policy.shapes[name]


def task_parameters(parameters: Parameters, task: int) -> Parameters:
    """Return one task's parameters from stacked ones."""
    return {name: value[task] for name, value in parameters.items()}


def stack_parameters(parts: list[Parameters]) -> Parameters:
    """Stack the parameters of several tasks along a new first axis."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
