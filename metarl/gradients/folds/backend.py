"""The fast backend of a policy that equals a perceptron whose parameters f are a function of the policy's, theta.

With L the inner loss, g its gradient with respect to f, H its Hessian, J the Jacobian of f(theta), and P the projection
on the parameters that adapt, the chain rule gives the inner gradient and its derivative along a direction v::

    grad L = P J^T g        R grad L = P J^T H J v + P (R J)^T g

The second term is linear in v too, since f is of second degree in theta: ``Fold.bend_push``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from metarl.agents import InnerObjective, Policy, Samples
from metarl.gradients.backend import OutputGradients, Outputs, TaskGroups
from metarl.gradients.perceptron_backend import PerceptronAdaptedPolicy, PerceptronBackend, Plan


class Fold(Protocol):
    """The map from a policy's parameters to those of the perceptron that it equals, and its derivatives.

    Attributes:
        vector: the perceptron's parameters.
    """

    vector: Tensor

    def push(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along a direction of all parameters."""

    def pull(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push``: turn a gradient for the perceptron's parameters into one for all."""

    def push_adapting(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along the adapted part of a direction."""

    def pull_adapting(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push_adapting``: the adapted part of the gradient, zero elsewhere."""

    def bend_push(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the derivative of ``pull_adapting`` of a fixed gradient along a direction of all parameters."""

    def bend_pull(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the transpose of ``bend_push``, for the same fixed gradient."""


class FoldedBackend:
    """The fast backend of a policy that equals a perceptron; vectors are flat.

    Args:
        plain: the perceptron.
        fold: the map from the policy's parameters to the perceptron's, at given ones.
        adapts: names of the perceptron's parameters that change when the policy adapts; None for all.
        objective: of the inner update.
        keep: see ``PerceptronBackend``, as for ``device``, ``at_once`` and ``plan``.
    """

    name = "fast"

    def __init__(
        self,
        plain: Policy,
        fold: Callable[[Tensor], Fold],
        adapts: frozenset[str] | None,
        objective: InnerObjective,
        *,
        keep: bool,
        device: torch.device,
        at_once: Literal["one", "block", "all"],
        plan: Plan | None = None,
    ) -> None:
        self.fold = fold
        self.objective = objective
        self.plain = PerceptronBackend(
            plain, objective, adapts=adapts, keep=keep, device=device, at_once=at_once, plan=plan
        )

    def groups(self, samples: Samples) -> TaskGroups:
        """Return the task groups: single tasks, or slices of several."""
        return self.plain.groups(samples)

    def inner_loss(self, vector: Tensor, samples: Samples) -> FoldedInnerLoss:
        """Return the inner loss at given parameters."""
        return FoldedInnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the adapted parameters, zero elsewhere."""
        fold = self.fold(vector)
        return fold.pull_adapting(self.plain.inner_gradient(fold.vector, samples))

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters."""
        fold = self.fold(vector)
        return fold.pull(self.plain.gradient(fold.vector, samples, objective))

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's action distributions for the samples."""
        return self.plain.outputs(self.fold(vector).vector, samples)

    def adapted(self, vector: Tensor, query: Samples) -> FoldedAdaptedPolicy:
        """Return the adapted policy on the samples collected with it."""
        return FoldedAdaptedPolicy(self, vector, query)


class FoldedInnerLoss:
    """The inner loss at given parameters, its ``gradient``, and Hessian-vector products; see ``InnerLoss``."""

    def __init__(self, backend: FoldedBackend, vector: Tensor, samples: Samples) -> None:
        self._fold = backend.fold(vector)
        self._plain = backend.plain.inner_loss(self._fold.vector, samples)
        self.gradient = self._fold.pull_adapting(self._plain.gradient)
        self.outputs = self._plain.outputs

    def push(self, vector: Tensor) -> Tensor:
        """Return the adapted rows of the Hessian times a vector, zero elsewhere."""
        vector = vector.expand_as(self.gradient)
        moved = self._plain.push(self._fold.push(vector))
        return self._fold.pull_adapting(moved) + self._fold.bend_push(vector, self._plain.gradient)

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transpose of ``push``; see ``InnerLoss``."""
        vector = vector.expand_as(self.gradient)
        moved = self._plain.pull(self._fold.push_adapting(vector), output_gradients)
        return self._fold.pull(moved) + self._fold.bend_pull(vector, self._plain.gradient)


class FoldedAdaptedPolicy:
    """The adapted policy on its samples: ``gain``, its ``gradient``, and Fisher-vector products."""

    def __init__(self, backend: FoldedBackend, vector: Tensor, query: Samples) -> None:
        self._backend = backend
        self._fold = backend.fold(vector)
        self._plain: PerceptronAdaptedPolicy = backend.plain.adapted(self._fold.vector, query)
        self.gain = self._plain.gain
        self.gradient = self._fold.pull(self._plain.gradient)

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        return self._fold.pull(self._plain.fisher(self._fold.push(vector.expand_as(self.gradient))))

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and the mean KL from these to them: ``[..., 2]``."""
        return self._plain.compare(self._backend.fold(vector).vector)
