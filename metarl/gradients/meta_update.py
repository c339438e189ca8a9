"""The meta-updates (TRPO, PPO, plain gradient), each a frozen dataclass of its settings with a method ``apply``.

``META_UPDATES`` lists those that variants of MAML offer; the setting ``outer.update`` chooses one by its field
``update``.

From a GPU, only the values that the line search decides on are read back to the host. So it is the caller who notices,
on reading the metrics, that a meta-gradient was not finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import LIKELIHOOD_RATIO, InnerObjective, Samples, clipped_objective
from metarl.fields import FORBID, Count, Inside, NotNegative, Positive, Share, setting
from metarl.gradients import task_axis
from metarl.gradients.adaptation import Adaptation
from metarl.gradients.backend import ObjectiveTerm
from metarl.gradients.curvature import Curvature, adapted_kl, meta_gradients
from metarl.gradients.optimizers import ascend, first_moments
from metarl.gradients.trust_region import conjugate_gradient, full_step, line_search

Moments = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The inputs of a meta-update.

    Attributes:
        adaptation: the inner updates.
        query: the samples collected with the adapted parameters.
        kl_before: another meta-vector, and samples collected before adaptation -> the mean KL, old to new, of the
            policy before adaptation.
        term: a further term of the meta-objective.
    """

    adaptation: Adaptation
    query: Samples
    kl_before: Callable[[Tensor, Samples], Tensor]
    term: ObjectiveTerm | None


@dataclass(frozen=True, kw_only=True)
class MetaStep:
    """The result of a meta-update.

    Attributes:
        vector: the new meta-vector.
        moments: the optimiser's new state.
        gradient_norms: ``[gradient]``, the norm of each meta-gradient that was used.
        faulty_tasks: ``[gradient]``, for each meta-gradient the number of the first task whose own gradient is not
            finite, else -1.
        metrics: by name; tensors may still be on the device.
        accepted: whether the line search accepted a step; None for a meta-update without a line search.
    """

    vector: Tensor
    moments: Moments
    gradient_norms: Tensor
    faulty_tasks: Tensor
    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    accepted: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Derivatives:
    """The settings that all meta-updates share: how derivatives are computed."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    path: Literal["auto", "fast", "general"] = setting(
        "auto", "how derivatives are computed: fast by hand, for perceptrons; general by autograd; auto: what fits"
    )
    memory: Literal["keep", "recompute"] = setting(
        "keep", "whether activations are kept; recompute is slower and needs little memory"
    )

    def first_moments(self, vector: Tensor) -> Moments:
        """Return the optimiser's state before its first step on a meta-vector."""
        return {}

    def apply(self, problem: Problem, moments: Moments) -> MetaStep:
        """Return the result of the meta-update.

        Args:
            problem: its inputs.
            moments: the optimiser's state.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrustRegion(Derivatives):
    """A meta-update by a trust-region step (TRPO)."""

    update: Literal["trpo"] = setting("trpo", "meta-update: a trust-region step")
    max_kl: Positive = setting(0.01, "bound on the mean KL of the adapted policies, old to new", "nats")
    max_kl_before: Positive = setting(
        0.01, "bound on the mean KL of the policy before adaptation, which can collapse without", "nats"
    )
    cg_iterations: Count = setting(10, "conjugate gradient steps for the direction of the meta-update")
    damping: NotNegative = setting(1e-5, "added to the diagonal of the Fisher matrix")
    line_search_steps: Count = setting(15, "shorter and shorter meta-updates that are tried before none is made")
    line_search_ratio: Inside = setting(0.8, "length of a tried meta-update, of the one before", "factor")
    fisher_fraction: Share = setting(
        1.0, "samples in Fisher-vector products: fewer are faster; the gradient uses all", "share of the samples"
    )

    def apply(self, problem: Problem, moments: Moments) -> MetaStep:
        """Return the largest tried step within the trust region that improves the gain, if there is one.

        No step is accepted along a direction that is not finite.

        Source: Schulman et al. 2015, appendix C; Finn et al. 2017, section 4.2.
        """
        curvature = Curvature(problem.adaptation, problem.query, self.fisher_fraction, problem.term)
        solution, residual = conjugate_gradient(
            lambda vector: curvature.product(vector) + self.damping * vector, curvature.gradient, self.cg_iterations
        )
        before = problem.adaptation.supports[0].subsample(self.fisher_fraction)
        step = line_search(
            lambda vector: (*curvature.evaluate(vector), problem.kl_before(vector, before)),
            curvature.vector,
            full_step(solution, residual, curvature.gradient, self.max_kl),
            gain=curvature.gain,
            max_kls=(self.max_kl, self.max_kl_before),
            steps=self.line_search_steps,
            ratio=self.line_search_ratio,
        )
        metrics: dict[str, Tensor | float] = {}
        if step.accepted is not None:
            metrics = dict(zip(("train/kl", "train/kl_before"), step.kls, strict=True))
            assert step.improvement is not None
            metrics["train/surrogate_improvement"] = step.improvement
            metrics["train/line_search_step"] = self.line_search_ratio**step.accepted
        return MetaStep(
            vector=step.parameters,
            moments={},
            gradient_norms=curvature.gradient.norm()[None],
            faulty_tasks=task_axis.first_not_finite(curvature.gradients)[None],
            metrics=metrics,
            accepted=step.accepted is not None,
        )


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """The settings of several Adam steps on the clipped surrogate (PPO), all on the same rollouts."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    epochs: Count = setting(5, "Adam steps on the same rollouts")
    learning_rate: Positive = setting(1e-3, "Adam's step size")
    clip: Inside = setting(0.3, "how far a probability ratio counts from 1, as in PPO")


@dataclass(frozen=True, kw_only=True)
class Clipped(Epochs, Derivatives):
    """A meta-update by several Adam steps on the clipped surrogate (PPO)."""

    update: Literal["ppo"] = setting("ppo", "meta-update: Adam steps on the clipped surrogate")

    def first_moments(self, vector: Tensor) -> Moments:
        """Return Adam's state before its first step."""
        return first_moments("adam", vector)

    def apply(self, problem: Problem, moments: Moments) -> MetaStep:
        """Return the result of Adam's steps, repeating the inner updates before each step but the first.

        Source: Schulman et al. 2017 (PPO), algorithm 1, through the inner updates as in Rothfuss et al. 2019,
        algorithm 1.
        """
        return _along_gradients(problem, moments, clipped_objective(self.clip), self.epochs, self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class PlainGradient(Derivatives):
    """A meta-update by one step along the meta-gradient (vanilla policy gradient)."""

    update: Literal["vpg"] = setting("vpg", "meta-update: one step along the meta-gradient")
    optimizer: Literal["adam", "sgd"] = setting("adam", "what makes a step of the meta-gradient")
    learning_rate: Positive = setting(1e-3, "the optimizer's step size")

    def first_moments(self, vector: Tensor) -> Moments:
        """Return the optimiser's state before its first step."""
        return first_moments(self.optimizer, vector)

    def apply(self, problem: Problem, moments: Moments) -> MetaStep:
        """Return the result of one step along the meta-gradient."""
        return _along_gradients(problem, moments, LIKELIHOOD_RATIO, 1, self.learning_rate)


META_UPDATES: tuple[type[Any], ...] = (TrustRegion, Clipped, PlainGradient)


def _along_gradients(
    problem: Problem, moments: Moments, objective: InnerObjective, epochs: int, learning_rate: float
) -> MetaStep:
    """Take steps along the meta-gradient, repeating the inner updates on the same samples before each but the first."""
    adaptation, query = problem.adaptation, problem.query
    norms, faulty = [], []

    def gradient(vector: Tensor, epoch: int) -> Tensor:
        here = adaptation if epoch == 0 else adaptation.at(vector)
        gradients = meta_gradients(here, query, objective, problem.term)
        found = task_axis.mean(gradients)
        norms.append(found.norm())
        faulty.append(task_axis.first_not_finite(gradients))
        return found

    vector, moments = ascend_epochs(adaptation.vector, moments, gradient, epochs, learning_rate)
    return MetaStep(
        vector=vector,
        moments=moments,
        gradient_norms=torch.stack(norms),
        faulty_tasks=torch.stack(faulty),
        metrics={
            "train/kl": adapted_kl(adaptation, vector, query),
            "train/kl_before": problem.kl_before(vector, adaptation.supports[0]),
        },
    )


def ascend_epochs(
    vector: Tensor,
    moments: Moments,
    gradient: Callable[[Tensor, int], Tensor],
    epochs: int,
    learning_rate: float,
) -> tuple[Tensor, Moments]:
    """Return a vector after several steps of an optimiser, and the optimiser's state.

    Args:
        vector: ``[..., parameter]``.
        moments: the optimiser's state.
        gradient: vector and number of the step, from 0 -> the gradient to ascend, shaped as the vector.
        epochs: number of steps.
        learning_rate: of each.
    """
    for epoch in range(epochs):
        vector, moments = ascend(vector, gradient(vector, epoch), moments, learning_rate)
    return vector, moments
