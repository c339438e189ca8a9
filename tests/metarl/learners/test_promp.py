"""ProMP: its objective away from the parameters that acted, and its coefficient."""

from __future__ import annotations

import pytest
import torch
from adaptations import adapt_all, derivative, directions
from samples import make_policy, make_samples
from small import small
from torch import Tensor

from metarl.agents import DICE, LIKELIHOOD_RATIO, InnerObjective, clipped_objective
from metarl.gradients.flat import named
from metarl.gradients.meta_update import meta_gradients
from metarl.learners.promp import KLPenalty


@pytest.mark.parametrize(("steps", "objective"), [(1, LIKELIHOOD_RATIO), (2, LIKELIHOOD_RATIO), (2, DICE)])
def test_proximal_steps_follow_the_gradient_of_clipped_gain_and_penalty(steps: int, objective: InnerObjective) -> None:
    """Equation 14, away from the parameters that acted, where ratios are not 1 and the KL is not 0."""
    start = adapt_all(steps, objective)
    query = make_samples(make_policy(), seed=9)
    clipped = clipped_objective(0.3)
    term = KLPenalty(start, 0.5)

    def value(vector: Tensor) -> Tensor:
        total = []
        for task in range(3):
            vectors = start.retrace(vector, task)
            samples = query.task(task)
            new = start.policy.distribution(named(start.policy.shapes, vectors[-1]), samples)
            total.append(-clipped.loss(new, samples))
        for number, group in enumerate(start.groups):
            vectors = start.retrace(vector, group)
            for step, support in enumerate(start.supports):
                own = support.task(group)
                outputs = start.backend.outputs(vectors[step].expand(*own.weights.shape[:-1], -1), own)
                total.append(term.value(number, step, outputs).sum())
        return torch.stack(total).sum() / 3

    moved = start.vector + 0.1 * directions(len(start.vector), 4)[3]
    here = start.at(moved)
    gradients = meta_gradients(here, query, clipped, term)
    assert float(term.value(0, 0, here.outputs(0, 0)).sum()) < 0
    for direction in directions(len(moved)):
        found = derivative(value, moved, direction, 1e-6)
        assert float(gradients.mean(dim=0) @ direction) == pytest.approx(found, rel=1e-4, abs=1e-7)


def test_the_coefficient_adapts_to_the_kl() -> None:
    high = small("promp", outer={"adaptive": True, "learning_rate": 0.1}).learn(iterations=1)
    low = small("promp", outer={"adaptive": True, "learning_rate": 1e-6}).learn(iterations=1)
    fixed = small("promp", outer={"learning_rate": 0.1}).learn(iterations=1)
    assert [float(model.state.own_tensors["kl_coefficient"]) for model in (high, low, fixed)] == [1e-3, 2.5e-4, 5e-4]
