"""The general path: the derivatives of any policy's meta-update by autograd, task by task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import (
    POLICY_GRADIENT,
    Distribution,
    InnerObjective,
    Parameters,
    Policy,
    Samples,
    likelihood_ratio_gain,
    mean_kl,
)
from metarl.gradients.backend import OutputGradients, Outputs, TaskGroups
from metarl.gradients.flat import flatten, named

Tensors = tuple[Tensor, ...]


class AutogradBackend:
    """The general path of a policy; vectors are flat, in the order of the policy's parameters.

    Args:
        policy: whose distribution is differentiated.
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all.
        keep: keep graphs between products; else they are built again for each, in little memory.
    """

    name = "general"

    def __init__(
        self,
        policy: Policy,
        objective: InnerObjective = POLICY_GRADIENT,
        *,
        adapts: frozenset[str] | None = None,
        keep: bool = True,
    ) -> None:
        self.policy = policy
        self.objective = objective
        self.adapts = frozenset(policy.shapes) if adapts is None else adapts
        self.keep = keep

    def groups(self, samples: Samples) -> TaskGroups:
        """Return which tasks are taken at once: one each."""
        return list(range(samples.weights.shape[0]))

    def leaves(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters that require gradients."""
        return {name: part.requires_grad_() for name, part in named(self.policy.shapes, _copied(vector)).items()}

    def adapting(self, parts: Parameters) -> list[Tensor]:
        """Return those of the parameters that adapt."""
        return [part for name, part in parts.items() if name in self.adapts]

    def with_zeros(self, parts: Tensors, like: Parameters) -> Tensor:
        """Return what belongs to the parameters that adapt as a flat vector, with 0 for others."""
        given = iter(parts)
        return flatten(next(given) if name in self.adapts else torch.zeros_like(part) for name, part in like.items())

    def inner_loss(self, vector: Tensor, samples: Samples) -> AutogradInnerLoss:
        """Return the inner loss of one task at its parameters."""
        return AutogradInnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone, 0 for what does not adapt; nothing is kept."""
        own = named(self.policy.shapes, _copied(vector))
        # Nothing is recorded below the lowest layer that adapts.
        own = {name: part.requires_grad_() if name in self.adapts else part for name, part in own.items()}
        loss = self.objective.loss(self.policy.distribution(own, samples), samples)
        return self.with_zeros(_gradient(loss, self.adapting(own)), own)

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss by all parameters; nothing is kept."""
        own = self.leaves(vector)
        loss = objective.loss(self.policy.distribution(own, samples), samples)
        return flatten(_gradient(loss, list(own.values())))

    @torch.no_grad()
    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return what the policy says of samples."""
        return [(self.policy.distribution(named(self.policy.shapes, vector), samples), samples)]

    def adapted(self, vector: Tensor, query: Samples) -> AutogradAdaptedPolicy:
        """Return the adapted policy of one task on what was collected with it."""
        return AutogradAdaptedPolicy(self, vector, query)

    def graph(self, vector: Tensor, samples: Samples) -> Graph:
        """Return the graph of the inner loss's gradient by what adapts."""
        own = self.leaves(vector)
        distribution = self.policy.distribution(own, samples)
        loss = self.objective.loss(distribution, samples)
        gradient = _gradient(loss, self.adapting(own), create_graph=True)
        if len(gradient) == len(own):
            return Graph(own, distribution, gradient, None)
        return Graph(own, distribution, gradient, _transposed(gradient, list(own.values())))


@dataclass(frozen=True)
class Graph:
    """An inner loss's gradient as a graph.

    Attributes:
        own: the parameters.
        distribution: what the policy says.
        gradient: by what adapts.
        transposed: directions of ``gradient``, and its derivative times these, for all parameters; None where all
            adapt, since the Hessian is symmetric.
    """

    own: Parameters
    distribution: Distribution
    gradient: Tensors
    transposed: tuple[list[Tensor], Tensors] | None


class AutogradInnerLoss:
    """One task's inner loss at some parameters: its ``gradient`` by what adapts, and products with its derivative.

    ``outputs`` is what the policy says there.
    """

    def __init__(self, backend: AutogradBackend, vector: Tensor, samples: Samples) -> None:
        self._backend = backend
        self._at = (vector, samples)
        graph = backend.graph(vector, samples)
        self.gradient = backend.with_zeros(graph.gradient, graph.own).detach()
        self.outputs: Outputs = [(graph.distribution.detach(), samples)]
        self._kept = graph if backend.keep else None

    def push(self, vector: Tensor) -> Tensor:
        """Return how the gradient by what adapts changes along a vector: those rows of the Hessian times it."""
        graph = self._kept or self._backend.graph(*self._at)
        parts = list(named(self._backend.policy.shapes, vector).values())
        if graph.transposed is None:
            return flatten(_pull(graph.gradient, list(graph.own.values()), parts))
        directions, transposed = graph.transposed
        return self._backend.with_zeros(_pull(transposed, directions, parts), graph.own)

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transposed of ``push``: the Hessian times what of a vector adapts.

        Args:
            vector: ``[parameter]``.
            output_gradients: of another function of ``outputs``, whose gradient by all parameters is added.
        """
        graph = self._kept or self._backend.graph(*self._at)
        outputs = list(graph.gradient)
        cotangents = self._backend.adapting(named(self._backend.policy.shapes, vector))
        if output_gradients is not None:
            outputs += graph.distribution.parameters
            cotangents += output_gradients[0]
        return flatten(_pull(outputs, list(graph.own.values()), cotangents))


class AutogradAdaptedPolicy:
    """One task's adapted policy on its samples: ``gain``, its ``gradient``, and products with the Fisher matrix."""

    def __init__(self, backend: AutogradBackend, vector: Tensor, query: Samples) -> None:
        self._backend = backend
        self._query = query
        self._vector = vector
        own = backend.leaves(vector)
        distribution = backend.policy.distribution(own, query)
        gain = likelihood_ratio_gain(distribution, query)
        self.gradient = flatten(_gradient(gain, list(own.values()), retain_graph=True))
        self.gain = gain.detach()
        self._old = distribution.detach()
        self._kept = self._graph(own, distribution.parameters) if backend.keep else None

    def _graph(self, own: Parameters, outputs: Tensors) -> tuple[list[Tensor], Tensors, list[Tensor], Tensors]:
        leaves = list(own.values())
        return leaves, outputs, *_transposed(outputs, leaves)

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        if self._kept is None:
            own = self._backend.leaves(self._vector)
            graph = self._graph(own, self._backend.policy.distribution(own, self._query).parameters)
        else:
            graph = self._kept
        leaves, outputs, directions, backward = graph
        parts = list(named(self._backend.policy.shapes, vector).values())
        tangents = _pull(backward, directions, parts)
        weights = self._query.weights.unsqueeze(-1)
        return flatten(_pull(outputs, leaves, [part * weights for part in self._old.metric(tangents)]))

    @torch.no_grad()
    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[2]``."""
        parameters = named(self._backend.policy.shapes, vector)
        new = self._backend.policy.distribution(parameters, self._query)
        return torch.stack([likelihood_ratio_gain(new, self._query), mean_kl(self._old, new, self._query)])


def _transposed(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> tuple[list[Tensor], Tensors]:
    """Return directions of outputs, and the backward pass of these as a graph.

    It is linear in the directions, so differentiating it by them gives the forward derivative of the outputs.
    """
    directions = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    return directions, _pull(outputs, leaves, directions, create_graph=True)


def _copied(vector: Tensor) -> Tensor:
    """Return a copy outside of any graph: autograd refuses to go on from what a caller's ``inference_mode`` made."""
    return vector.detach().clone()


def _gradient(
    loss: Tensor, leaves: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> Tensors:
    return torch.autograd.grad(
        loss,
        leaves,
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def _pull(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool = False
) -> Tensors:
    return torch.autograd.grad(
        outputs,
        inputs,
        cotangents,
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
