"""The meta-updates: what the shared parameters become, by a trust region or by steps along the meta-gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.agents import LIKELIHOOD_RATIO, Parameters, Samples, clipped_objective
from metarl.curvature import Chain, Curvature, Term, objective_gradients
from metarl.envs import tasks as task_tools
from metarl.inner import Path, choose_path, for_parts, task_vectors
from metarl.optimizers import ascend
from metarl.settings import Clipped, PlainGradient, TrustRegion
from metarl.trust_region import Step, conjugate_gradient, full_step, line_search

Where = tuple[int, Any]  # iteration and tasks, for messages
MAY_HELP = "a smaller inner.step_size or a higher policy.log_std_min may help"


def trust_region_step(
    chain: Chain,
    query: Samples,
    outer: TrustRegion,
    kl_before: Callable[[Tensor], Tensor],
    term: Term | None,
    where: Where,
) -> tuple[Step, float]:
    """Return the step within the trust region of the adapted policies, and the norm of the meta-gradient.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        outer: settings.
        kl_before: ``chain.vector`` changed -> the mean KL of the policy before adaptation.
        term: what is added to the surrogate.
        where: iteration and tasks.

    Raises:
        FloatingPointError: the meta-gradient is not finite.

    Source: Schulman et al. 2015, appendix C; Finn et al. 2017, section 4.2.
    """
    curvature = Curvature(chain, query, outer.fisher_fraction, term)
    solution, residual = conjugate_gradient(
        lambda vector: curvature.product(vector) + outer.damping * vector, curvature.gradient, outer.cg_iterations
    )
    step = line_search(
        lambda vector: (*curvature.evaluate(vector), kl_before(vector)),
        curvature.parameters,
        full_step(solution, residual, curvature.gradient, outer.max_kl),
        gain=curvature.gain,
        max_kls=(outer.max_kl, outer.max_kl_before),
        steps=outer.line_search_steps,
        ratio=outer.line_search_ratio,
    )
    # Read only now, so that a GPU is not waited for; nothing is accepted where the gradient is not finite.
    return step, _norm(curvature.gradient, curvature.gradients, where)


@dataclass(frozen=True)
class Ascent:
    """Where steps along the meta-gradient led.

    Attributes:
        vector: what ``chain.vector`` became.
        state: the optimiser's, after them.
        norm: of the first meta-gradient.
        adapted: the adapted parameters from there, on the same samples.
    """

    vector: Tensor
    state: dict[str, Tensor]
    norm: float
    adapted: Parameters


def gradient_steps(
    chain: Chain,
    query: Samples,
    outer: Clipped | PlainGradient,
    state: dict[str, Tensor],
    term: Term | None,
    where: Where,
) -> Ascent:
    """Take steps along the meta-gradient: PPO's epochs on the clipped surrogate, or one step.

    From the second epoch on the inner updates are taken again, from the new shared parameters on the same samples.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        outer: settings.
        state: of the optimiser.
        term: what is added to the surrogate.
        where: iteration and tasks.

    Raises:
        FloatingPointError: a meta-gradient is not finite.

    Source: Schulman et al. 2017 (PPO), algorithm 1, through the inner updates as in Rothfuss et al. 2019, algorithm 1.
    """
    objective = clipped_objective(outer.clip) if isinstance(outer, Clipped) else LIKELIHOOD_RATIO
    device = query.weights.device
    path = choose_path(chain.policy, device, path=outer.path, objective=objective, keep=False, together=False)
    vector, norms = chain.vector, []
    for epoch in range(outer.epochs if isinstance(outer, Clipped) else 1):
        here = chain if epoch == 0 else chain.at(vector)
        gradients = objective_gradients(here, _outer_gradients(here, query, path), term)
        gradient = gradients.mean(dim=0)
        norms.append(_norm(gradient, gradients, where))
        vector, state = ascend(vector, gradient, state, outer.learning_rate)
    return Ascent(vector, state, norms[0], chain.at(vector).parameters[-1])


def _outer_gradients(chain: Chain, query: Samples, path: Path) -> list[Tensor]:
    """Return, for each part, the gradient of what ``path`` has as its loss, upwards, at the adapted parameters."""
    vectors = task_vectors(chain.policy, chain.parameters[-1], query.weights.shape[0])
    return for_parts(chain.parts, vectors, query, lambda vector, samples: -path.inner_gradient(vector, samples))


def _norm(gradient: Tensor, gradients: Tensor, where: Where) -> float:
    """Return the norm of a meta-gradient, the mean of those of the tasks."""
    norm = float(gradient.norm())
    if not math.isfinite(norm):
        iteration, tasks = where
        named = first_not_finite(gradients, tasks)
        raise FloatingPointError(
            f"iteration {iteration}: the meta-gradient is not finite, first that of task {named}; {MAY_HELP}"
        )
    return norm


def first_not_finite(vectors: Tensor, tasks: Any) -> Any:
    """Return, in plain Python, the first task whose vector ``[task, parameter]`` is not finite."""
    faulty = int((~torch.isfinite(vectors)).any(dim=1).int().argmax())
    return task_tools.plain(task_tools.take_tasks(tasks, faulty))
