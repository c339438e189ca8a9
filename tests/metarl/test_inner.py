"""The inner update: equal to per-task autograd, with the step size that was asked for."""

from __future__ import annotations

import pytest
import torch
from samples import double, make_policy, make_samples

from metarl.agents import Parameters, policy_gradient_loss
from metarl.gradients.inner import inner_update


def stack(parts: list[Parameters]) -> Parameters:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("head", ["gaussian", "categorical", "multi-categorical"])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_step_equals_per_task_autograd(head: str, stacked: bool) -> None:
    policy = make_policy(head)
    samples = make_samples(policy)
    shared = double(policy.parameters())
    starts = [{name: value + 0.01 * task * stacked for name, value in shared.items()} for task in range(3)]
    adapted = inner_update(policy, stack(starts) if stacked else shared, samples, 0.25)
    for task, start in enumerate(starts):
        own = {name: value.clone().requires_grad_() for name, value in start.items()}
        rows = samples.task(task)
        distribution = policy.distribution(own, rows.observations)
        (-policy_gradient_loss(distribution, rows)).backward()
        for name, value in adapted.items():
            # Exactly alpha times the gradient: an unused step size or a forgotten sign shows.
            torch.testing.assert_close(value[task] - start[name], 0.25 * own[name].grad)


def test_the_shared_parameters_are_untouched() -> None:
    policy = make_policy()
    shared = double(policy.parameters())
    before = {name: value.clone() for name, value in shared.items()}
    inner_update(policy, shared, make_samples(policy), 0.25)
    assert all(torch.equal(shared[name], before[name]) for name in shared)
    assert not any(value.requires_grad for value in shared.values())
