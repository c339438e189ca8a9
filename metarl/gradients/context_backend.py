"""The fast path of a perceptron with a context: additional inputs that are parameters, the only ones that adapt.

Inputs that are the same for all rows shift the first layer's biases. So the policy equals a perceptron without a
context, with parameters f, whose first biases are ``f_b = b + C phi``: phi is the context, and C are its weights. Let
beta be the gradient of the inner loss L with respect to f_b, H the Hessian of L with respect to f, and R x the
derivative of x along a direction of all parameters::

    grad_phi L = C^T beta        R grad_phi L = (R C)^T beta + C^T (H R f)_b        R f_b = R b + (R C) phi + C R phi

So the gradient with respect to the context needs no gradient with respect to a weight, and its derivative follows from
Hessian-vector products of the perceptron, of which only the rows of the biases are needed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from metarl.agents import InnerObjective, Samples
from metarl.agents.policies.context import CONTEXT_WEIGHTS, ContextPolicy
from metarl.gradients.backend import OutputGradients, Outputs, TaskGroups
from metarl.gradients.perceptron_backend import PerceptronAdaptedPolicy, PerceptronBackend, Plan


class ContextBackend:
    """The fast backend of a policy of which only the context adapts; vectors are flat, the context last.

    Args:
        policy: a perceptron with a context.
        objective: of the inner update.
        keep: see ``PerceptronBackend``, as for ``device``, ``at_once`` and ``plan``.
    """

    name = "fast"

    def __init__(
        self,
        policy: ContextPolicy,
        objective: InnerObjective,
        *,
        keep: bool,
        device: torch.device,
        at_once: Literal["one", "block", "all"],
        plan: Plan | None = None,
    ) -> None:
        self.policy = policy
        self.objective = objective
        adapts = frozenset({policy.first_bias})
        self.plain = PerceptronBackend(
            policy.plain, objective, adapts=adapts, keep=keep, device=device, at_once=at_once, plan=plan
        )

    def groups(self, samples: Samples) -> TaskGroups:
        """Return the task groups: single tasks, or slices of several."""
        return self.plain.groups(samples)

    def inner_loss(self, vector: Tensor, samples: Samples) -> ContextInnerLoss:
        """Return the inner loss at given parameters."""
        return ContextInnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the context, zero elsewhere."""
        fold = Fold(self.policy, vector)
        return fold.pull_context(self.plain.inner_gradient(fold.vector, samples))

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters."""
        fold = Fold(self.policy, vector)
        return fold.pull(self.plain.gradient(fold.vector, samples, objective))

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's action distributions for the samples."""
        return self.plain.outputs(Fold(self.policy, vector).vector, samples)

    def adapted(self, vector: Tensor, query: Samples) -> ContextAdaptedPolicy:
        """Return the adapted policy on the samples collected with it."""
        return ContextAdaptedPolicy(self, vector, query)


class Fold:
    """The map from all parameters to those of the equivalent perceptron without a context, and its derivatives.

    Attributes:
        vector: the perceptron's parameters.
    """

    def __init__(self, policy: ContextPolicy, vector: Tensor) -> None:
        self._policy = policy
        plain, self._weights, self._context = self._split(vector)
        self.vector = self._shifted(plain, _apply(self._weights, self._context))

    def push(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along a direction of all parameters."""
        plain, weights, context = self._split(vector)
        return self._shifted(plain, _apply(weights, self._context) + _apply(self._weights, context))

    def pull(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push``: turn a gradient for the perceptron's parameters into one for all."""
        biases = self._biases(vector)
        return self._joined(vector, biases * self._context.mT, _apply(self._weights.mT, biases))

    def push_context(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along the context's part of a direction."""
        plain, _, context = self._split(vector)
        return self._shifted(torch.zeros_like(plain), _apply(self._weights, context))

    def pull_context(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push_context``: the context's part of the gradient, zero elsewhere."""
        return self._alone(_apply(self._weights.mT, self._biases(vector)))

    def bend_push(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the derivative of ``pull_context`` of a fixed gradient along a direction of all parameters."""
        _, weights, _ = self._split(vector)
        return self._alone(_apply(weights.mT, self._biases(gradient)))

    def bend_pull(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the transpose of ``bend_push``, for the same fixed gradient."""
        plain, _, context = self._split(vector)
        return self._joined(torch.zeros_like(plain), self._biases(gradient) * context.mT, torch.zeros_like(context))

    def _biases(self, vector: Tensor) -> Tensor:
        return vector[..., self._policy.bias_places].unsqueeze(-1)

    def _shifted(self, plain: Tensor, shift: Tensor) -> Tensor:
        moved = plain.clone()
        moved[..., self._policy.bias_places] += shift.squeeze(-1)
        return moved

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        plain, weights, context = torch.split(vector, self._policy.sizes, dim=-1)
        shape = self._policy.shapes[CONTEXT_WEIGHTS]
        return plain, weights.reshape(*weights.shape[:-1], *shape), context.unsqueeze(-1)

    def _alone(self, context: Tensor) -> Tensor:
        vector = context.new_zeros(*context.shape[:-2], sum(self._policy.sizes))
        vector[..., -context.shape[-2] :] = context.squeeze(-1)
        return vector

    def _joined(self, plain: Tensor, weights: Tensor, context: Tensor) -> Tensor:
        return torch.cat([plain, weights.flatten(-2), context.squeeze(-1)], dim=-1)


def _apply(matrix: Tensor, column: Tensor) -> Tensor:
    """Return a matrix times a column, bit for bit the same for a single task as for several at once."""
    return (matrix * column.mT).sum(dim=-1, keepdim=True)


class ContextInnerLoss:
    """The inner loss at given parameters, its ``gradient``, and Hessian-vector products; see ``InnerLoss``."""

    def __init__(self, backend: ContextBackend, vector: Tensor, samples: Samples) -> None:
        self._fold = Fold(backend.policy, vector)
        self._plain = backend.plain.inner_loss(self._fold.vector, samples)
        self.gradient = self._fold.pull_context(self._plain.gradient)
        self.outputs = self._plain.outputs

    def push(self, vector: Tensor) -> Tensor:
        """Return the context's rows of the Hessian times a vector, zero elsewhere."""
        vector = vector.expand_as(self.gradient)
        moved = self._plain.push(self._fold.push(vector))
        return self._fold.pull_context(moved) + self._fold.bend_push(vector, self._plain.gradient)

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transpose of ``push``; see ``InnerLoss``."""
        vector = vector.expand_as(self.gradient)
        moved = self._plain.pull(self._fold.push_context(vector), output_gradients)
        return self._fold.pull(moved) + self._fold.bend_pull(vector, self._plain.gradient)


class ContextAdaptedPolicy:
    """The adapted policy on its samples: ``gain``, its ``gradient``, and Fisher-vector products."""

    def __init__(self, backend: ContextBackend, vector: Tensor, query: Samples) -> None:
        self._policy = backend.policy
        self._fold = Fold(backend.policy, vector)
        self._plain: PerceptronAdaptedPolicy = backend.plain.adapted(self._fold.vector, query)
        self.gain = self._plain.gain
        self.gradient = self._fold.pull(self._plain.gradient)

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        return self._fold.pull(self._plain.fisher(self._fold.push(vector.expand_as(self.gradient))))

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and the mean KL from these to them: ``[..., 2]``."""
        return self._plain.compare(Fold(self._policy, vector).vector)
