"""The fast path: the meta-update of perceptrons, by the derivatives of ``metarl.gradients.perceptron``.

On the CPU, rows are processed in blocks that fit the cache, with buffers that each thread reuses. If a task has fewer
rows than fill a block, several tasks are computed at once. The blocks depend on the number of rows alone, so results
depend neither on threads nor on the other tasks. If the inner objective couples the steps of an episode, blocks end
where episodes do. On other devices, all tasks and rows are computed at once.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.agents import (
    POLICY_GRADIENT,
    Distribution,
    InnerObjective,
    Policy,
    Samples,
    likelihood_ratio_gain,
    likelihood_ratio_parts,
    mean_kl,
)
from metarl.gradients.alignment import aligned
from metarl.gradients.backend import OutputGradients, Outputs, TaskGroups
from metarl.gradients.perceptron import (
    Allocator,
    FirstLayers,
    Head,
    Trace,
    Weights,
    add_fisher,
    add_hessian,
    forward,
    keep_output_derivatives,
    over_rows,
    pull,
)
from metarl.gradients.perceptron_memory import Slots, Store, new_tensors, scratch_of_thread

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of blocks of rows, and what is computed once for all products; None chooses what saves time.

    Attributes:
        block_numbers: at most this many numbers of a layer in a block of rows. Larger blocks do not fit the cache;
            smaller ones keep threads waiting for each other.
        spread_numbers: how many numbers ``FirstLayers`` gathers from at once.
        gathers: whether ``FirstLayers`` is used, if the policy has a hidden layer.
        keeps_output_derivatives: whether the outputs' derivatives with respect to the first layer are kept, if the
            policy has two hidden layers or more.
    """

    block_numbers: int = 2**19
    spread_numbers: int | None = None
    gathers: bool | None = None
    keeps_output_derivatives: bool | None = None


@dataclass(frozen=True)
class Block:
    """A block of rows: its samples, with the intermediate results and distributions at given parameters."""

    samples: Samples
    trace: Trace
    distribution: Distribution


class PerceptronBackend:
    """The backend of the fast path; vectors are flat, in the order of the policy's parameters.

    Attributes:
        store: the memory of tensors that are kept between products.

    Args:
        policy: a perceptron (its ``layers`` are not None).
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all.
        keep: keep activations between products; else compute them again for each product, which takes less memory.
        device: where the vectors and samples are.
        at_once: the tasks of a task group: one, as many as fill a block of rows, or all.
        plan: the size of blocks of rows, and what is computed once for all products.
    """

    name = "fast"

    def __init__(
        self,
        policy: Policy,
        objective: InnerObjective = POLICY_GRADIENT,
        *,
        adapts: frozenset[str] | None = None,
        keep: bool = True,
        device: torch.device = _CPU,
        at_once: Literal["one", "block", "all"] = "one",
        plan: Plan | None = None,
    ) -> None:
        assert policy.layers is not None
        self.plan = plan or Plan()
        self.policy = policy
        self.objective = objective
        self.adapts = adapts
        self.keep = keep
        self._at_once = at_once
        self.head = Head(policy)
        self.store = Store()
        self._slots = Slots()
        self._layers = policy.layers
        self._inputs = policy.shapes[policy.layers[0].weight][1] + 1
        self._outputs = policy.shapes[policy.layers[-1].weight][0]
        self._activations = [layer.activation for layer in policy.layers[:-1]]
        self._width = max(shape[0] for shape in policy.shapes.values())
        self._marks = None if adapts is None else _marks(policy, adapts, device)

    def groups(self, samples: Samples) -> TaskGroups:
        """Return the task groups: single tasks, or slices of several."""
        n_tasks, rows = samples.weights.shape
        if self._at_once == "all":
            return [slice(None)]
        size = self.plan.block_numbers // (rows * self._width) if self._at_once == "block" else 1
        if size < 2:
            return list(range(n_tasks))
        groups = 2 * math.ceil(n_tasks / size / 2)  # an even number, so that two threads have the same work
        size = math.ceil(n_tasks / groups)
        return [slice(start, min(start + size, n_tasks)) for start in range(0, n_tasks, size)]

    def inner_loss(self, vector: Tensor, samples: Samples) -> PerceptronInnerLoss:
        """Return the inner loss of a task group at its parameters."""
        return PerceptronInnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the adapted parameters, zero elsewhere."""
        return self._gradient(vector, samples, self.objective, self.adapts)

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters."""
        return self._gradient(vector, samples, objective, None)

    def _gradient(
        self, vector: Tensor, samples: Samples, objective: InnerObjective, names: frozenset[str] | None
    ) -> Tensor:
        weights, out = self.filled("weights", vector, vector), self.slot("gradient", vector, names)
        out.flat.zero_()
        allocate = self.scratch(vector)
        for rows in self.inner_rows(samples):
            block = self.block(weights, rows, allocate)
            first, _ = objective.derivatives(block.distribution, rows)
            self.pull_scores(weights, block, first, out, allocate, lowest=out.lowest)
        return out.flat.clone()

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's action distributions, in the same blocks as an inner loss's ``outputs``."""
        weights, allocate = Weights(self.policy, aligned(vector).copy_(vector)), self.scratch(vector)
        return [(self.block(weights, rows, allocate).distribution, rows) for rows in self.inner_rows(samples)]

    def adapted(self, vector: Tensor, query: Samples) -> PerceptronAdaptedPolicy:
        """Return the adapted policy of a task group, on the samples collected with it."""
        return PerceptronAdaptedPolicy(self, vector, query)

    def slot(self, tag: str, like: Tensor, names: frozenset[str] | None = None) -> Weights:
        """Return weights to write into, with a vector's shape and type; this thread gets the same ones each time."""
        if self._at_once == "all":
            return Weights(self.policy, aligned(like), names)
        key = tag, names, like.shape, like.dtype
        if key not in self._slots.held:
            self._slots.held[key] = Weights(self.policy, aligned(like), names)
        return self._slots.held[key]

    def filled(self, tag: str, vector: Tensor, like: Tensor, names: frozenset[str] | None = None) -> Weights:
        """Return weights from ``slot`` that hold a copy of a vector, broadcast over the tasks of a task group."""
        weights = self.slot(tag, like, names)
        weights.flat.copy_(vector)
        return weights

    def spread_adapting(self, vector: Tensor, like: Tensor) -> Weights:
        """Return the adapted part of a direction, broadcast over the tasks of a task group."""
        direction = self.filled("direction", vector, like, self.adapts)
        if self._marks is not None:
            direction.flat.mul_(self._marks)
        return direction

    def zeros(self, like: Tensor, names: frozenset[str] | None = None) -> Weights:
        """Return weights of zeros, to which a product can be added."""
        product = self.slot("product", like, names)
        product.flat.zero_()
        return product

    def scratch(self, vector: Tensor) -> Allocator:
        """Return an allocator of tensors with a vector's type that may be overwritten by the next block."""
        return new_tensors(vector) if self._at_once == "all" else scratch_of_thread(vector.dtype)

    def storage(self, vector: Tensor, owned: list[Tensor]) -> Allocator:
        """Return an allocator of tensors with a vector's type that are kept until they are passed to ``give_back``."""
        return new_tensors(vector) if self._at_once == "all" else self.store.allocate(vector.dtype, owned)

    def give_back(self, owned: list[Tensor]) -> None:
        """Release tensors that were kept, so that their memory can be reused."""
        self.store.give_back(owned)

    def rows(self, samples: Samples, unit: int = 1) -> Iterator[Samples]:
        """Yield the samples in blocks of nearly equal size, a multiple of ``unit``; in one block if all tasks are."""
        total = samples.weights.shape[-1]
        blocks = 1 if self._at_once == "all" else math.ceil(total * self._width / self.plan.block_numbers)
        if blocks == 1:
            yield samples
            return
        size = unit * math.ceil(total / unit / blocks)
        tasks = (slice(None),) * (samples.weights.dim() - 1)
        for start in range(0, total, size):
            yield samples.map(operator.itemgetter((*tasks, slice(start, start + size))))

    def gathers(self, samples: Samples) -> bool:
        """Return whether ``FirstLayers`` saves time in ten products, and takes no more memory than it frees.

        Gathering takes as long as half a product with three inputs, and longer than one product with twenty. T and Q
        are read in every product, however few the rows are. Gathering frees two numbers for each row and hidden unit.
        """
        if len(self._layers) < 2 or self.plan.gathers is not None:
            return len(self._layers) > 1 and bool(self.plan.gathers)
        rows = samples.weights.shape[-1]
        return self._inputs <= min(24, rows / 80, 2 * rows / self._width)

    def keeps_output_derivatives(self) -> bool:
        """Return whether S saves time: it has a number for each row, unit and output, read once for each input."""
        possible = len(self._layers) > 2 and self.keep
        if self.plan.keeps_output_derivatives is not None:
            return possible and self.plan.keeps_output_derivatives
        return possible and self._outputs * (self._inputs + 4) <= 24

    def inner_rows(self, samples: Samples) -> Iterator[Samples]:
        """Yield the samples in blocks that the inner objective allows: of whole episodes if it couples their steps."""
        return self.rows(samples, samples.episode_rows if self.objective.coupled else 1)

    def block(self, weights: Weights, samples: Samples, allocate: Allocator) -> Block:
        """Return the forward pass of a block of rows."""
        assert isinstance(samples.observations, Tensor)
        observations = samples.observations.reshape(*samples.weights.shape, -1).to(weights.biases[0].dtype)
        trace = forward(weights, self._activations, observations, allocate)
        return Block(samples, trace, self.head.distribution(weights, trace.output))

    def pull_scores(
        self,
        weights: Weights,
        block: Block,
        first: Tensor,
        out: Weights | None,
        allocate: Allocator,
        keep: Allocator | None = None,
        lowest: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """Add to ``out`` the gradient of a function of log-probabilities with derivative ``first``; return scores."""
        score, log_std_score = self.head.score(weights, block.distribution, block.samples.actions)
        first = first.unsqueeze(-2)
        cotangents = score * first, None if log_std_score is None else over_rows(log_std_score, first)
        pull(weights, block.trace, cotangents, out, allocate, keep, lowest)
        return score, log_std_score


def _marks(policy: Policy, names: frozenset[str], device: torch.device) -> Tensor:
    """Return a flat vector that is 1 for the parameters with these names and 0 for others."""
    marks = [torch.full((shape.numel(),), float(name in names)) for name, shape in policy.shapes.items()]
    return torch.cat(marks).to(device)


class PerceptronInnerLoss:
    """The inner loss of a task group at given parameters, and Hessian-vector products; see ``InnerLoss``."""

    def __init__(self, backend: PerceptronBackend, vector: Tensor, samples: Samples) -> None:
        self._backend = backend
        self._owned: list[Tensor] = []
        self._samples = samples
        self._vector = vector
        self._weights = Weights(backend.policy, aligned(vector).copy_(vector))
        self.gradient = aligned(vector).zero_()
        self.outputs: Outputs = []
        out = Weights(backend.policy, self.gradient, backend.adapts)
        self._lowest = out.lowest
        self._kept: list[Trace] = []
        self._common: FirstLayers | None = None
        for block in self._blocks(out, backend.storage(vector, self._owned) if backend.keep else None):
            self.outputs.append((block.distribution, block.samples))
            if backend.keep:
                self._kept.append(block.trace)

    def __del__(self) -> None:
        self._backend.give_back(self._owned)

    def _blocks(self, out: Weights | None, keep: Allocator | None) -> Iterator[Block]:
        backend, weights = self._backend, self._weights
        allocate = backend.scratch(self._vector)
        for rows in backend.inner_rows(self._samples):
            block = backend.block(weights, rows, keep or allocate)
            derivatives = backend.objective.derivatives(block.distribution, rows)
            lowest = self._lowest if self._common is None else 1
            score = backend.pull_scores(weights, block, derivatives[0], out, allocate, keep or allocate, lowest)
            delta = block.trace.deltas[len(weights.weights) - 1].mT
            block.trace.bend = backend.head.loss_bend(weights, block.distribution, score, derivatives, delta)
            yield block

    def push(self, vector: Tensor) -> Tensor:
        """Return the adapted parameters' rows of the Hessian times a vector, zero elsewhere."""
        self._gather()
        direction = self._backend.filled("direction", vector, self.gradient)
        return self._add(direction, self._backend.zeros(self.gradient, self._backend.adapts))

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transpose of ``push``: the Hessian times the adapted part of a vector.

        Args:
            vector: ``[..., parameter]``.
            output_gradients: of another function of ``outputs``, whose gradient with respect to all parameters is
                added to the result.
        """
        direction = self._backend.spread_adapting(vector, self.gradient)
        return self._add(direction, self._backend.zeros(self.gradient), output_gradients)

    def _gather(self) -> None:
        """Gather what all products have in common, before the first product: it is followed by many."""
        backend = self._backend
        if self._common is not None or self._lowest > 1 or not backend.gathers(self._samples):
            return
        keep, allocate = backend.storage(self._vector, self._owned), backend.scratch(self._vector)
        common: FirstLayers | None = None
        for trace in self._traces():
            common = common or FirstLayers(trace, keep, backend.plan.spread_numbers)
            common.gather(trace, allocate)
        self._common = common
        spent = {trace.deltas.pop(1).data_ptr() for trace in self._kept}
        spent |= {trace.bends.pop(0).data_ptr() for trace in self._kept if 0 in trace.bends}
        owned = self._owned
        self._owned = [held for held in owned if held.data_ptr() not in spent]
        backend.give_back([held for held in owned if held.data_ptr() in spent])

    def _traces(self) -> Iterator[Trace]:
        if self._backend.keep:
            yield from self._kept
            return
        for block in self._blocks(None, None):
            if self._common is not None:
                del block.trace.deltas[1]
            yield block.trace

    def _add(self, direction: Weights, out: Weights, output_gradients: OutputGradients | None = None) -> Tensor:
        allocate = self._backend.scratch(self.gradient)
        for i, trace in enumerate(self._traces()):
            added = (
                None if output_gradients is None else self._backend.head.cotangents(self._weights, output_gradients[i])
            )
            add_hessian(self._weights, trace, direction, out, allocate, added)
        if self._common is not None:
            self._common.add(direction, out, allocate)
        return out.flat.clone()


class PerceptronAdaptedPolicy:
    """A task group's adapted policy on its samples: ``gain``, its ``gradient``, and Fisher-vector products."""

    def __init__(self, backend: PerceptronBackend, vector: Tensor, query: Samples) -> None:
        self._backend = backend
        self._owned: list[Tensor] = []
        self._query = query
        self._weights = Weights(backend.policy, aligned(vector).copy_(vector))
        self.gain = vector.new_zeros(vector.shape[:-1])
        self.gradient = aligned(vector).zero_()
        out = Weights(backend.policy, self.gradient)
        allocate = backend.scratch(vector)
        self._old: list[Distribution] = []
        self._kept: list[Trace] = []
        for block in self._blocks(backend.storage(vector, self._owned) if backend.keep else allocate):
            terms = likelihood_ratio_parts(block.distribution, block.samples)
            self.gain += terms.sum(dim=-1)
            backend.pull_scores(self._weights, block, terms, out, allocate)
            self._old.append(block.distribution)
            if backend.keep:
                self._kept.append(block.trace)

    def __del__(self) -> None:
        self._backend.give_back(self._owned)

    def _blocks(self, allocate: Allocator) -> Iterator[Block]:
        for rows in self._backend.rows(self._query):
            block = self._backend.block(self._weights, rows, allocate)
            block.trace.bend = self._backend.head.fisher_bend(self._weights, block.distribution, rows.weights)
            yield block

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        direction, out = self._backend.filled("direction", vector, self.gradient), self._backend.zeros(self.gradient)
        allocate = self._backend.scratch(self.gradient)
        if self._backend.keeps_output_derivatives():
            for trace in self._kept:
                if trace.output_derivatives is None:
                    keep_output_derivatives(self._weights, trace, self._backend.storage(vector, self._owned), allocate)
        for trace in self._kept if self._backend.keep else (block.trace for block in self._blocks(allocate)):
            add_fisher(self._weights, trace, direction, out, allocate)
        return out.flat.clone()

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and the mean KL from these to them: ``[..., 2]``."""
        total = vector.new_zeros(*vector.shape[:-1], 2)
        weights = self._backend.filled("weights", vector, vector)
        allocate = self._backend.scratch(vector)
        for rows, old in zip(self._backend.rows(self._query), self._old, strict=True):
            new = self._backend.block(weights, rows, allocate).distribution
            total += torch.stack([likelihood_ratio_gain(new, rows), mean_kl(old, new, rows)], dim=-1)
        return total
