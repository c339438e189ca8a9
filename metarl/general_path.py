"""The general path: the derivatives of any policy's meta-update by autograd, task by task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents import (
    POLICY_GRADIENT,
    InnerObjective,
    Parameters,
    Policy,
    Samples,
    likelihood_ratio_gain,
    mean_kl,
)
from metarl.vectors import flatten, named

Parts = tuple[Tensor, ...]


class GeneralPath:
    """The general path of a policy; vectors are flat, in the order of the policy's parameters.

    Args:
        policy: whose distribution is differentiated.
        objective: of the inner update.
        keep: keep graphs between products; else they are built again for each, in little memory.
    """

    name = "general"

    def __init__(self, policy: Policy, objective: InnerObjective = POLICY_GRADIENT, *, keep: bool = True) -> None:
        self.policy = policy
        self.objective = objective
        self.keep = keep

    def parts(self, samples: Samples) -> list[int] | list[slice]:
        """Return which tasks are taken at once: one each."""
        return list(range(samples.weights.shape[0]))

    def leaves(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters that require gradients."""
        return {name: part.detach().requires_grad_() for name, part in named(self.policy.shapes, vector).items()}

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss of one task at its parameters."""
        return InnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone; nothing is kept."""
        own = self.leaves(vector)
        return flatten(_gradient(self._loss(own, samples), own))

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy of one task on what was collected with it."""
        return AdaptedPolicy(self, vector, query)

    def _loss(self, own: Parameters, samples: Samples) -> Tensor:
        return self.objective.loss(self.policy.distribution(own, samples.observations), samples)

    def graph(self, vector: Tensor, samples: Samples) -> tuple[Parameters, Parts]:
        """Return leaves, and the gradient of the inner loss by them as a graph."""
        own = self.leaves(vector)
        return own, _gradient(self._loss(own, samples), own, create_graph=True)


class InnerLoss:
    """One task's inner loss at some parameters: ``gradient``, and products with its Hessian."""

    def __init__(self, path: GeneralPath, vector: Tensor, samples: Samples) -> None:
        self._path = path
        self._at = (vector, samples)
        graph = path.graph(vector, samples)
        self.gradient = flatten(graph[1]).detach()
        self._kept = graph if path.keep else None

    def hessian(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the loss times a vector."""
        own, gradient = self._kept or self._path.graph(*self._at)
        parts = named(self._path.policy.shapes, vector)
        return flatten(_pull(gradient, list(own.values()), list(parts.values())))


class AdaptedPolicy:
    """One task's adapted policy on its samples: ``gain``, its ``gradient``, and products with the Fisher matrix."""

    def __init__(self, path: GeneralPath, vector: Tensor, query: Samples) -> None:
        self._path = path
        self._query = query
        self._vector = vector
        own = path.leaves(vector)
        distribution = path.policy.distribution(own, query.observations)
        gain = likelihood_ratio_gain(distribution, query)
        self.gradient = flatten(_gradient(gain, own, retain_graph=True))
        self.gain = gain.detach()
        self._old = distribution.detach()
        self._kept = self._graph(own, distribution.parameters) if path.keep else None

    def _graph(self, own: Parameters, outputs: Parts) -> tuple[list[Tensor], Parts, list[Tensor], Parts]:
        # Reverse over reverse: the backward pass is linear in its direction, so differentiating it by that
        # direction gives the forward derivative.
        directions = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        leaves = list(own.values())
        return leaves, outputs, directions, _pull(outputs, leaves, directions, create_graph=True)

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        if self._kept is None:
            own = self._path.leaves(self._vector)
            graph = self._graph(own, self._path.policy.distribution(own, self._query.observations).parameters)
        else:
            graph = self._kept
        leaves, outputs, directions, backward = graph
        parts = list(named(self._path.policy.shapes, vector).values())
        tangents = _pull(backward, directions, parts)
        weights = self._query.weights.unsqueeze(-1)
        return flatten(_pull(outputs, leaves, [part * weights for part in self._old.metric(tangents)]))

    @torch.no_grad()
    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[2]``."""
        parameters = named(self._path.policy.shapes, vector)
        new = self._path.policy.distribution(parameters, self._query.observations)
        return torch.stack([likelihood_ratio_gain(new, self._query), mean_kl(self._old, new, self._query)])


def _gradient(loss: Tensor, own: Parameters, *, create_graph: bool = False, retain_graph: bool = False) -> Parts:
    return torch.autograd.grad(
        loss,
        list(own.values()),
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def _pull(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool = False
) -> Parts:
    return torch.autograd.grad(
        outputs,
        inputs,
        cotangents,
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
