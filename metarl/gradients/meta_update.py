"""The meta-updates: what the shared parameters become, by a trust region or by steps along the meta-gradient.

On a GPU they read nothing back, but what the line search decides on; so it is the caller who finds out, when it reads
the metrics, whether a meta-gradient was not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.agents import LIKELIHOOD_RATIO, InnerObjective, Samples, clipped_objective
from metarl.gradients.curvature import Chain, Curvature, mean_over_tasks, objective_gradients
from metarl.envs import tasks as task_tools
from metarl.gradients.inner import for_parts, task_vectors
from metarl.gradients.optimizers import ascend
from metarl.settings import Clipped, PlainGradient, TrustRegion
from metarl.gradients.terms import Term
from metarl.gradients.trust_region import Step, conjugate_gradient, full_step, line_search

MAY_HELP = "a smaller inner.step_size or a higher policy.log_std_min may help"


@dataclass(frozen=True)
class MetaGradients:
    """The meta-gradients that an update went along, as far as metrics and messages tell of them.

    Attributes:
        norms: ``[gradient]``.
        faulty: ``[gradient]``, the number of the first task whose part of a gradient is not finite, where one is not.
    """

    norms: Tensor
    faulty: Tensor


def trust_region_step(
    chain: Chain,
    query: Samples,
    outer: TrustRegion,
    kl_before: Callable[[Tensor], Tensor],
    term: Term | None,
) -> tuple[Step, MetaGradients]:
    """Return the step within the trust region of the adapted policies; nothing is accepted along what is not finite.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        outer: settings.
        kl_before: ``chain.vector`` changed -> the mean KL of the policy before adaptation.
        term: what is added to the surrogate.

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
    return step, MetaGradients(curvature.gradient.norm()[None], first_not_finite(curvature.gradients)[None])


def gradient_steps(
    chain: Chain,
    query: Samples,
    outer: Clipped | PlainGradient,
    state: dict[str, Tensor],
    term: Term | None,
) -> tuple[Tensor, dict[str, Tensor], MetaGradients]:
    """Take steps along the meta-gradient: PPO's epochs on the clipped surrogate, or one step.

    From the second epoch on the inner updates are taken again, from the new shared parameters on the same samples.
    Return what ``chain.vector`` became, the optimiser's state, and the meta-gradients.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        outer: settings.
        state: of the optimiser.
        term: what is added to the surrogate.

    Source: Schulman et al. 2017 (PPO), algorithm 1, through the inner updates as in Rothfuss et al. 2019, algorithm 1.
    """
    objective = clipped_objective(outer.clip) if isinstance(outer, Clipped) else LIKELIHOOD_RATIO
    vector, norms, faulty = chain.vector, [], []
    for epoch in range(outer.epochs if isinstance(outer, Clipped) else 1):
        here = chain if epoch == 0 else chain.at(vector)
        gradients = meta_gradients(here, query, objective, term)
        gradient = mean_over_tasks(gradients)
        norms.append(gradient.norm())
        faulty.append(first_not_finite(gradients))
        vector, state = ascend(vector, gradient, state, outer.learning_rate)
    return vector, state, MetaGradients(torch.stack(norms), torch.stack(faulty))


def meta_gradients(chain: Chain, query: Samples, objective: InnerObjective, term: Term | None = None) -> Tensor:
    """Return the gradient by ``chain.vector`` of minus an objective's loss after adaptation, ``[task, parameter]``.

    Args:
        chain: the inner updates.
        query: the samples that the objective is of.
        objective: after adaptation.
        term: what is added.
    """
    vectors = task_vectors(chain.policy, chain.parameters[-1], query.weights.shape[0])

    def upwards(vector: Tensor, samples: Samples) -> Tensor:
        return -chain.path.gradient(vector, samples, objective)

    gradients = for_parts(chain.parts, vectors, query, upwards)
    return objective_gradients(chain, gradients, term)


def first_not_finite(vectors: Tensor) -> Tensor:
    """Return the number of the first task whose vector ``[task, parameter]`` is not finite; 0 where all are."""
    return (~torch.isfinite(vectors)).any(dim=1).int().argmax()


def refuse_not_finite(norms: Sequence[float], faulty: Sequence[float], iteration: int, tasks: Any) -> None:
    """Refuse meta-gradients of which one is not finite.

    Args:
        norms: of each.
        faulty: the number of the first task whose part of it is not finite.
        iteration: for the message.
        tasks: the batch of them.

    Raises:
        FloatingPointError: a norm is not finite.
    """
    for norm, number in zip(norms, faulty, strict=True):
        if not math.isfinite(norm):
            task = task_tools.plain(task_tools.take_tasks(tasks, int(number)))
            raise FloatingPointError(
                f"iteration {iteration}: the meta-gradient is not finite, first that of task {task}; {MAY_HELP}"
            )


def check_finite(gradients: Tensor, iteration: int, tasks: Any) -> None:
    """Refuse policy gradients ``[task, parameter]`` that are not finite.

    Raises:
        FloatingPointError: the message names the iteration and the first task.
    """
    if not bool(torch.isfinite(gradients).all()):
        task = task_tools.plain(task_tools.take_tasks(tasks, int(first_not_finite(gradients))))
        raise FloatingPointError(
            f"iteration {iteration}: the policy gradient of task {task} is not finite; a smaller "
            "outer.learning_rate or a higher policy.log_std_min may help"
        )
