"""The fast path: the meta-update of perceptrons, by the derivatives of ``metarl.perceptron``.

On the CPU it goes task by task. Rows are taken in blocks that stay in the cache, with buffers that each thread uses
again. Blocks depend on the number of rows alone, so results depend neither on threads nor on the other tasks. On other
devices it takes all tasks and rows at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

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
from metarl.perceptron import Head, Take, Trace, Weights, add_fisher, add_hessian, forward, pull

BLOCK_NUMBERS = 2**17  # at most this many numbers of a layer in a block


class _Buffers(threading.local):
    """Tensors of this thread by tag, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int, torch.dtype], Tensor] = {}

    def take(self, dtype: torch.dtype) -> Take:
        def take(tag: str, shape: Sequence[int]) -> Tensor:
            rows, columns = shape
            held = self._held.get((tag, columns, dtype))
            if held is None or held.shape[0] < rows:
                held = self._held[tag, columns, dtype] = torch.empty(rows, columns, dtype=dtype)
            return held if held.shape[0] == rows else held[:rows]

        return take


_BUFFERS = _Buffers()
_CPU = torch.device("cpu")


class _Store:
    """Tensors that are kept from product to product, and used again in the next iteration.

    New memory costs more than what is computed into it: the system hands it out page by page.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, dtype: torch.dtype, owned: list[Tensor]) -> Take:
        def take(tag: str, shape: Sequence[int]) -> Tensor:
            size = math.prod(shape)
            try:
                held = self._free.pop()
            except IndexError:
                held = torch.empty(0, dtype=dtype)
            if held.dtype != dtype or len(held) < size:
                held = torch.empty(max(size, BLOCK_NUMBERS), dtype=dtype)
            owned.append(held)
            return held[:size].view(*shape)

        return take

    def give_back(self, owned: list[Tensor]) -> None:
        self._free.extend(owned)


def _new(vector: Tensor) -> Take:
    """Return what makes new tensors of a vector's type: a GPU's memory is handed out without delay."""
    return lambda tag, shape: vector.new_empty(shape)


@dataclass(frozen=True)
class Block:
    """A block of rows: its samples, and what they leave at some parameters."""

    samples: Samples
    trace: Trace
    distribution: Distribution


class FastPath:
    """The fast path of a policy that is a perceptron; vectors are flat, in the order of the policy's parameters.

    Args:
        policy: with ``layers``.
        objective: of the inner update.
        keep: keep activations between products; else they are computed again for each, in little memory.
        device: where the vectors and samples are.
        together: vectors and samples are those of all tasks, with a leading task axis, and not those of one.
    """

    name = "fast"

    def __init__(
        self,
        policy: Policy,
        objective: InnerObjective = POLICY_GRADIENT,
        *,
        keep: bool = True,
        device: torch.device = _CPU,
        together: bool = False,
    ) -> None:
        assert policy.layers is not None
        self.policy = policy
        self.objective = objective
        self.keep = keep
        self.together = together
        self.head = Head(policy, device)
        self._store = _Store()
        self._activations = [layer.activation for layer in policy.layers[:-1]]
        self._width = max(shape[0] for shape in policy.shapes.values())

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss of one task at its parameters."""
        return InnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone; nothing is kept."""
        gradient = torch.zeros_like(vector)
        weights, out = Weights(self.policy, vector), Weights(self.policy, gradient)
        take = self.scratch(vector)
        for rows in self.rows(samples):
            block = self.block(weights, rows, take)
            first, _ = self.objective.derivatives(block.distribution, rows)
            self.pull_scores(weights, block, first, out, take)
        return gradient

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy of one task on what was collected with it."""
        return AdaptedPolicy(self, vector, query)

    def scratch(self, vector: Tensor) -> Take:
        """Return what gives tensors, of a vector's type, that are needed until the next block."""
        return _new(vector) if self.together else _BUFFERS.take(vector.dtype)

    def storage(self, vector: Tensor, owned: list[Tensor]) -> Take:
        """Return what gives tensors, of a vector's type, to be kept and at last handed to ``give_back``."""
        return _new(vector) if self.together else self._store.take(vector.dtype, owned)

    def give_back(self, owned: list[Tensor]) -> None:
        """Take back tensors that were kept, to be used again."""
        self._store.give_back(owned)

    def rows(self, samples: Samples) -> Iterator[Samples]:
        """Yield the samples in blocks of nearly equal size; all at once where tasks are taken together."""
        if self.together:
            yield samples
            return
        total = samples.weights.shape[0]
        size = math.ceil(total / math.ceil(total * self._width / BLOCK_NUMBERS))
        for start in range(0, total, size):
            rows = slice(start, start + size)
            yield Samples(**{field.name: getattr(samples, field.name)[rows] for field in fields(samples)})

    def block(self, weights: Weights, samples: Samples, take: Take) -> Block:
        """Return the forward pass of a block of rows."""
        assert isinstance(samples.observations, Tensor)
        observations = samples.observations.flatten(samples.weights.dim()).to(weights.biases[0].dtype)
        trace = forward(weights, self._activations, observations, take)
        return Block(samples, trace, self.head.distribution(weights, trace.output))

    def pull_scores(
        self, weights: Weights, block: Block, first: Tensor, out: Weights | None, take: Take, keep: Take | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of a function of log-probabilities with derivative ``first`` to ``out``; return scores."""
        score, log_std_score = self.head.score(weights, block.distribution, block.samples.actions)
        first = first.unsqueeze(-2)
        cotangents = score * first, None if log_std_score is None else log_std_score @ first.mT
        pull(weights, block.trace, cotangents, out, take, keep)
        return score, log_std_score


class InnerLoss:
    """One task's inner loss at some parameters: ``gradient``, and products with its Hessian."""

    def __init__(self, path: FastPath, vector: Tensor, samples: Samples) -> None:
        self._path = path
        self._owned: list[Tensor] = []
        self._samples = samples
        self._vector = vector
        self._weights = Weights(path.policy, vector)
        self.gradient = torch.zeros_like(vector)
        keep = path.storage(vector, self._owned) if path.keep else None
        self._kept: list[Trace] = []
        for trace in self._traces(Weights(path.policy, self.gradient), keep):
            if path.keep:
                self._kept.append(trace)

    def __del__(self) -> None:
        self._path.give_back(self._owned)

    def _traces(self, out: Weights | None, keep: Take | None) -> Iterator[Trace]:
        path, weights = self._path, self._weights
        take = path.scratch(self._vector)
        for rows in path.rows(self._samples):
            block = path.block(weights, rows, keep or take)
            derivatives = path.objective.derivatives(block.distribution, rows)
            score = path.pull_scores(weights, block, derivatives[0], out, take, keep or take)
            block.trace.bend = path.head.loss_bend(
                weights, block.distribution, score, derivatives, block.trace.deltas[-1].mT
            )
            yield block.trace

    def hessian(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the loss times a vector."""
        product = torch.zeros_like(self.gradient)
        direction = Weights(self._path.policy, vector.expand_as(product))
        out = Weights(self._path.policy, product)
        take = self._path.scratch(product)
        for trace in self._kept if self._path.keep else self._traces(None, None):
            add_hessian(self._weights, trace, direction, out, take)
        return product


class AdaptedPolicy:
    """One task's adapted policy on its samples: ``gain``, its ``gradient``, and products with the Fisher matrix."""

    def __init__(self, path: FastPath, vector: Tensor, query: Samples) -> None:
        self._path = path
        self._owned: list[Tensor] = []
        self._query = query
        self._weights = Weights(path.policy, vector)
        self.gain = vector.new_zeros(vector.shape[:-1])
        self.gradient = torch.zeros_like(vector)
        out = Weights(path.policy, self.gradient)
        take = path.scratch(vector)
        self._old: list[Distribution] = []
        self._kept: list[Trace] = []
        for block in self._blocks(path.storage(vector, self._owned) if path.keep else take):
            terms = likelihood_ratio_parts(block.distribution, block.samples)
            self.gain += terms.sum(dim=-1)
            path.pull_scores(self._weights, block, terms, out, take)
            self._old.append(block.distribution)
            if path.keep:
                self._kept.append(block.trace)

    def __del__(self) -> None:
        self._path.give_back(self._owned)

    def _blocks(self, take: Take) -> Iterator[Block]:
        for rows in self._path.rows(self._query):
            block = self._path.block(self._weights, rows, take)
            block.trace.bend = self._path.head.fisher_bend(self._weights, block.distribution, rows.weights)
            yield block

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        product = torch.zeros_like(self.gradient)
        direction = Weights(self._path.policy, vector.expand_as(product))
        out = Weights(self._path.policy, product)
        take = self._path.scratch(product)
        for trace in self._kept if self._path.keep else (block.trace for block in self._blocks(take)):
            add_fisher(self._weights, trace, direction, out, take)
        return product

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[..., 2]``."""
        total = vector.new_zeros(*vector.shape[:-1], 2)
        weights = Weights(self._path.policy, vector)
        take = self._path.scratch(vector)
        for rows, old in zip(self._path.rows(self._query), self._old, strict=True):
            new = self._path.block(weights, rows, take).distribution
            total += torch.stack([likelihood_ratio_gain(new, rows), mean_kl(old, new, rows)], dim=-1)
        return total
