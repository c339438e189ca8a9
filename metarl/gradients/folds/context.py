"""A perceptron with a context, additional inputs that are parameters and the only ones that adapt, as a plain one.

Inputs that are the same for all rows shift the first layer's biases. So the policy equals a perceptron without a
context, with parameters f, whose first biases are ``f_b = b + C phi``: phi is the context, and C are its weights. Let
beta be the gradient of the inner loss L with respect to f_b, H the Hessian of L with respect to f, and R x the
derivative of x along a direction of all parameters::

    grad_phi L = C^T beta        R grad_phi L = (R C)^T beta + C^T (H R f)_b        R f_b = R b + (R C) phi + C R phi

So the gradient with respect to the context needs no gradient with respect to a weight, and its derivative follows from
Hessian-vector products of the perceptron, of which only the rows of the biases are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.policies.context import CONTEXT_WEIGHTS, ContextPolicy


class ContextFold:
    """The map from all parameters, the context last, to those of the equivalent perceptron; see ``Fold``.

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

    def push_adapting(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along the context's part of a direction."""
        plain, _, context = self._split(vector)
        return self._shifted(torch.zeros_like(plain), _apply(self._weights, context))

    def pull_adapting(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push_adapting``: the context's part of the gradient, zero elsewhere."""
        return self._alone(_apply(self._weights.mT, self._biases(vector)))

    def bend_push(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the derivative of ``pull_adapting`` of a fixed gradient along a direction of all parameters."""
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
