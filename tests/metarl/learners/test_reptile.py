"""Reptile: where it moves."""

from __future__ import annotations

import torch
from small import played, small

from metarl.gradients.adaptation import choose_backend
from metarl.gradients.flat import flatten


def test_with_one_step_it_moves_along_the_policy_gradient() -> None:
    model = small("reptile", inner={"step_size": 0.2}, outer={"learning_rate": 0.5})
    samples = model.samples(model.state, played(model, model.training_tasks(1)))
    backend = choose_backend(model.functional_policy, torch.device("cpu"))
    start = flatten(model.parameters.values())
    gradients = torch.stack([backend.inner_gradient(start, samples.task(task)) for task in range(3)])
    model.learn(iterations=1)
    torch.testing.assert_close(flatten(model.parameters.values()), start - 0.5 * 0.2 * gradients.mean(dim=0))
