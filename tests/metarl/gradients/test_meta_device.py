"""The whole update on the meta device, where a tensor elsewhere, or a value read back to the host, fails."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from adaptations import HEADS, OBJECTIVES, STEP_SIZE, adapting, make_policy_for, start
from samples import make_policy, make_rollouts
from torch import Tensor

from metarl.agents import Policy, Samples, to_samples
from metarl.gradients.adaptation import Adaptation, choose_backend
from metarl.gradients.curvature import Curvature
from metarl.gradients.meta_update import Clipped, Problem
from metarl.gradients.trust_region import conjugate_gradient, full_step
from metarl.learners.e_maml import SamplingCredit
from metarl.learners.maml import shared_kl
from metarl.learners.promp import KLPenalty

META = torch.device("meta")


def samples_of(policy: Policy, seed: int = 0, **options: Any) -> Samples:
    rollouts = make_rollouts(policy, seed=seed).to(META)
    return to_samples(rollouts, policy.features(rollouts.observations), gamma=0.9, gae_lambda=0.8, **options)


@pytest.mark.parametrize(
    ("head", "keep", "path", "objective"),
    [
        *itertools.product(HEADS, [True, False], ["auto", "general"], ["likelihood-ratio"]),
        *itertools.product(["gaussian"], [True], ["auto", "general"], ["dice"]),
    ],
)
def test_a_trust_region_step(head: str, keep: bool, path: Any, objective: str) -> None:
    policy = make_policy(head)
    support, query = (samples_of(policy, seed, discounted=objective == "dice") for seed in range(2))
    backend = choose_backend(policy, META, path=path, objective=OBJECTIVES[objective], keep=keep)
    adaptation = Adaptation(policy, backend, start(policy).to(META))
    adaptation.adapt(support, STEP_SIZE)
    curvature = Curvature(adaptation, query, 0.5)
    solution, residual = conjugate_gradient(curvature.product, curvature.gradient, 10)
    step = full_step(solution, residual, curvature.gradient, 0.01)
    gain, kl = curvature.evaluate(curvature.vector + step)
    for tensor in (*adaptation.parameters[1].values(), curvature.gain, curvature.gradient, step, gain, kl):
        assert tensor.device == META
        assert tensor.dtype == torch.float64
    assert curvature.gradients.shape == (3, len(step))


@pytest.mark.parametrize("path", ["auto", "general"])
@pytest.mark.parametrize("adapts", ["all", "1", "context"])
def test_several_epochs_along_the_meta_gradient_with_and_without_terms(adapts: str, path: Any) -> None:
    policy = make_policy_for(adapts)
    samples = samples_of(policy)
    backend = choose_backend(policy, META, path=path, adapts=adapting(policy, adapts))
    adaptation = Adaptation(policy, backend, start(policy).to(META))
    adaptation.adapt(samples, STEP_SIZE)
    credits = torch.ones(3, device=META)
    update = Clipped(epochs=2)

    def kl_before(vector: Tensor, own: Samples) -> Tensor:
        return shared_kl(policy, adaptation.parameters[0], adaptation.shared(vector), own)

    for term in (
        None,
        KLPenalty(adaptation, torch.ones((), device=META)),
        SamplingCredit([credits[group] for group in adaptation.groups]),
    ):
        problem = Problem(adaptation=adaptation, query=samples, kl_before=kl_before, term=term)
        step = update.apply(problem, update.first_moments(adaptation.vector))
        figures = [step.metrics["train/kl"], step.metrics["train/kl_before"]]
        for tensor in (step.vector, *step.moments.values(), step.gradient_norms, step.faulty_tasks, *figures):
            assert isinstance(tensor, Tensor)
            assert tensor.device == META
        assert step.vector.shape == adaptation.vector.shape
        assert step.gradient_norms.shape == step.faulty_tasks.shape == (2,)
