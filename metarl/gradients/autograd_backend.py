"""The general path: the derivatives of the meta-update of any policy, by autograd, task by task."""

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
    """The backend of the general path; vectors are flat, in the order of the policy's parameters.

    Args:
        policy: whose distribution is differentiated.
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all.
        keep: keep graphs between products; else build them again for each product, which takes less memory.
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
        """Return the task groups: each a single task."""
        return list(range(samples.weights.shape[0]))

    def leaves(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters that require gradients."""
        return {name: part.requires_grad_() for name, part in named(self.policy.shapes, _copied(vector)).items()}

    def adapting(self, parts: Parameters) -> list[Tensor]:
        """Return the parameters that adapt."""
        return [part for name, part in parts.items() if name in self.adapts]

    def with_zeros(self, parts: Tensors, like: Parameters) -> Tensor:
        """Return the parts of the parameters that adapt as one flat vector, zero elsewhere."""
        given = iter(parts)
        return flatten(next(given) if name in self.adapts else torch.zeros_like(part) for name, part in like.items())

    def inner_loss(self, vector: Tensor, samples: Samples) -> AutogradInnerLoss:
        """Return the inner loss of one task at its parameters."""
        return AutogradInnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the adapted parameters, zero elsewhere."""
        own = named(self.policy.shapes, _copied(vector))
        # Only what adapts requires gradients, so that autograd records nothing below the lowest layer that adapts.
        own = {name: part.requires_grad_() if name in self.adapts else part for name, part in own.items()}
        loss = self.objective.loss(self.policy.distribution(own, samples), samples)
        return self.with_zeros(_gradient(loss, self.adapting(own)), own)

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters."""
        own = self.leaves(vector)
        loss = objective.loss(self.policy.distribution(own, samples), samples)
        return flatten(_gradient(loss, list(own.values())))

    @torch.no_grad()
    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's action distributions for the samples."""
        return [(self.policy.distribution(named(self.policy.shapes, vector), samples), samples)]

    def adapted(self, vector: Tensor, query: Samples) -> AutogradAdaptedPolicy:
        """Return the adapted policy of one task, on the samples collected with it."""
        return AutogradAdaptedPolicy(self, vector, query)

    def graph(self, vector: Tensor, samples: Samples) -> Graph:
        """Return the graph of the inner loss's gradient with respect to the adapted parameters."""
        own = self.leaves(vector)
        distribution = self.policy.distribution(own, samples)
        loss = self.objective.loss(distribution, samples)
        gradient = _gradient(loss, self.adapting(own), create_graph=True)
        if len(gradient) == len(own):
            return Graph(own, distribution, gradient, None)
        return Graph(own, distribution, gradient, _transposed(gradient, list(own.values())))


@dataclass(frozen=True)
class Graph:
    """The gradient of an inner loss, as an autograd graph.

    Attributes:
        own: the parameters.
        distribution: the policy's action distribution.
        gradient: with respect to the adapted parameters.
        transposed: directions of ``gradient``, and the transpose of its Jacobian (with respect to all parameters) times
            these; None if all parameters adapt, where the Hessian is symmetric.
    """

    own: Parameters
    distribution: Distribution
    gradient: Tensors
    transposed: tuple[list[Tensor], Tensors] | None


class AutogradInnerLoss:
    """One task's inner loss at given parameters, its ``gradient``, and Hessian-vector products; see ``InnerLoss``."""

    def __init__(self, backend: AutogradBackend, vector: Tensor, samples: Samples) -> None:
        self._backend = backend
        self._at = (vector, samples)
        graph = backend.graph(vector, samples)
        self.gradient = backend.with_zeros(graph.gradient, graph.own).detach()
        self.outputs: Outputs = [(graph.distribution.detach(), samples)]
        self._kept = graph if backend.keep else None

    def push(self, vector: Tensor) -> Tensor:
        """Return the adapted parameters' rows of the Hessian times a vector, zero elsewhere."""
        graph = self._kept or self._backend.graph(*self._at)
        parts = list(named(self._backend.policy.shapes, vector).values())
        if graph.transposed is None:
            return flatten(_pull(graph.gradient, list(graph.own.values()), parts))
        directions, transposed = graph.transposed
        return self._backend.with_zeros(_pull(transposed, directions, parts), graph.own)

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transpose of ``push``: the Hessian times the adapted part of a vector.

        Args:
            vector: ``[parameter]``.
            output_gradients: of another function of ``outputs``, whose gradient with respect to all parameters is
                added to the result.
        """
        graph = self._kept or self._backend.graph(*self._at)
        outputs = list(graph.gradient)
        cotangents = self._backend.adapting(named(self._backend.policy.shapes, vector))
        if output_gradients is not None:
            outputs += graph.distribution.parameters
            cotangents += output_gradients[0]
        return flatten(_pull(outputs, list(graph.own.values()), cotangents))


class AutogradAdaptedPolicy:
    """One task's adapted policy on its samples: ``gain``, its ``gradient``, and Fisher-vector products."""

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
        """Return the gain of other parameters on the same samples, and the mean KL from these to them: ``[2]``."""
        parameters = named(self._backend.policy.shapes, vector)
        new = self._backend.policy.distribution(parameters, self._query)
        return torch.stack([likelihood_ratio_gain(new, self._query), mean_kl(self._old, new, self._query)])


def _transposed(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> tuple[list[Tensor], Tensors]:
    """Return directions of the outputs, and the backward pass (J^T times the directions) as a graph.

    It is linear in the directions, so its derivative with respect to them is the forward derivative (J) of the outputs.
    """
    directions = [torch.zeros_like(output, requires_grad=True) for output in outputs]
    return directions, _pull(outputs, leaves, directions, create_graph=True)


def _copied(vector: Tensor) -> Tensor:
    """Return a copy outside of any graph: autograd refuses tensors that were made in a caller's ``inference_mode``."""
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
    # What depends on frozen parameters alone, as exploration noise that is frozen, adds nothing.
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    return torch.autograd.grad(
        [output for output, _ in pairs],
        inputs,
        [cotangent for _, cotangent in pairs],
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
