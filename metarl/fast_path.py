"""The fast path: the meta-update of perceptrons on the CPU, by the derivatives of ``metarl.perceptron``.

Rows are taken in blocks that stay in the cache, with buffers that each thread uses again. Blocks depend on the number
of rows alone, so results depend neither on threads nor on the other tasks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metarl.agents import (
    POLICY_GRADIENT,
    Distribution,
    InnerObjective,
    Policy,
    Samples,
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
        def take(tag: str, rows: int, columns: int) -> Tensor:
            held = self._held.get((tag, columns, dtype))
            if held is None or held.shape[0] < rows:
                held = self._held[tag, columns, dtype] = torch.empty(rows, columns, dtype=dtype)
            return held if held.shape[0] == rows else held[:rows]

        return take


_BUFFERS = _Buffers()


class _Store:
    """Tensors that are kept from product to product, and used again in the next iteration.

    New memory costs more than what is computed into it: the system hands it out page by page.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, dtype: torch.dtype, owned: list[Tensor]) -> Take:
        def take(tag: str, rows: int, columns: int) -> Tensor:
            size = rows * columns
            try:
                held = self._free.pop()
            except IndexError:
                held = torch.empty(0, dtype=dtype)
            if held.dtype != dtype or len(held) < size:
                held = torch.empty(max(size, BLOCK_NUMBERS), dtype=dtype)
            owned.append(held)
            return held[:size].view(rows, columns)

        return take

    def give_back(self, owned: list[Tensor]) -> None:
        self._free.extend(owned)


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
    """

    name = "fast"

    def __init__(self, policy: Policy, objective: InnerObjective = POLICY_GRADIENT, *, keep: bool = True) -> None:
        assert policy.layers is not None
        self.policy = policy
        self.objective = objective
        self.keep = keep
        self.head = Head(policy)
        self.store = _Store()
        self._activations = [layer.activation for layer in policy.layers[:-1]]
        self._width = max(shape[0] for shape in policy.shapes.values())

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss of one task at its parameters."""
        return InnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone; nothing is kept."""
        gradient = torch.zeros_like(vector)
        weights, out = Weights(self.policy, vector), Weights(self.policy, gradient)
        take = _BUFFERS.take(vector.dtype)
        for rows in self.rows(samples):
            block = self.block(weights, rows, take)
            first, _ = self.objective.derivatives(block.distribution, rows)
            self.pull_scores(weights, block, first, out, take)
        return gradient

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy of one task on what was collected with it."""
        return AdaptedPolicy(self, vector, query)

    def rows(self, samples: Samples) -> Iterator[Samples]:
        """Yield the samples in blocks of nearly equal size."""
        total = samples.weights.shape[0]
        size = math.ceil(total / math.ceil(total * self._width / BLOCK_NUMBERS))
        for start in range(0, total, size):
            rows = slice(start, start + size)
            yield Samples(**{field.name: getattr(samples, field.name)[rows] for field in fields(samples)})

    def block(self, weights: Weights, samples: Samples, take: Take) -> Block:
        """Return the forward pass of a block of rows."""
        assert isinstance(samples.observations, Tensor)
        observations = samples.observations.flatten(1).to(weights.biases[0].dtype)
        trace = forward(weights, self._activations, observations, take)
        return Block(samples, trace, self.head.distribution(weights, trace.output))

    def pull_scores(
        self, weights: Weights, block: Block, first: Tensor, out: Weights | None, take: Take, keep: Take | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of a function of log-probabilities with derivative ``first`` to ``out``; return scores."""
        score, log_std_score = self.head.score(weights, block.distribution, block.samples.actions)
        cotangents = score * first, None if log_std_score is None else log_std_score @ first
        pull(weights, block.trace, cotangents, out, take, keep)
        return score, log_std_score


class InnerLoss:
    """One task's inner loss at some parameters: ``gradient``, and products with its Hessian."""

    def __init__(self, path: FastPath, vector: Tensor, samples: Samples) -> None:
        self._path = path
        self._owned: list[Tensor] = []
        self._samples = samples
        self._weights = Weights(path.policy, vector)
        self.gradient = torch.zeros_like(vector)
        keep = path.store.take(vector.dtype, self._owned) if path.keep else None
        self._kept: list[Trace] = []
        for trace in self._traces(Weights(path.policy, self.gradient), keep):
            if path.keep:
                self._kept.append(trace)

    def __del__(self) -> None:
        self._path.store.give_back(self._owned)

    def _traces(self, out: Weights | None, keep: Take | None) -> Iterator[Trace]:
        path, weights = self._path, self._weights
        take = _BUFFERS.take(weights.biases[0].dtype)
        for rows in path.rows(self._samples):
            block = path.block(weights, rows, keep or take)
            derivatives = path.objective.derivatives(block.distribution, rows)
            score = path.pull_scores(weights, block, derivatives[0], out, take, keep or take)
            block.trace.bend = path.head.loss_bend(
                weights, block.distribution, score, derivatives, block.trace.deltas[-1].t()
            )
            yield block.trace

    def hessian(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the loss times a vector."""
        product = torch.zeros_like(vector)
        direction, out = Weights(self._path.policy, vector), Weights(self._path.policy, product)
        take = _BUFFERS.take(vector.dtype)
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
        self.gain = vector.new_zeros(())
        self.gradient = torch.zeros_like(vector)
        out = Weights(path.policy, self.gradient)
        take = _BUFFERS.take(vector.dtype)
        self._old: list[Distribution] = []
        self._kept: list[Trace] = []
        for block in self._blocks(path.store.take(vector.dtype, self._owned) if path.keep else take):
            terms = likelihood_ratio_parts(block.distribution, block.samples)
            self.gain += terms.sum()
            path.pull_scores(self._weights, block, terms, out, take)
            self._old.append(block.distribution)
            if path.keep:
                self._kept.append(block.trace)

    def __del__(self) -> None:
        self._path.store.give_back(self._owned)

    def _blocks(self, take: Take) -> Iterator[Block]:
        for rows in self._path.rows(self._query):
            block = self._path.block(self._weights, rows, take)
            block.trace.bend = self._path.head.fisher_bend(self._weights, block.distribution, rows.weights)
            yield block

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        product = torch.zeros_like(vector)
        direction, out = Weights(self._path.policy, vector), Weights(self._path.policy, product)
        take = _BUFFERS.take(vector.dtype)
        for trace in self._kept if self._path.keep else (block.trace for block in self._blocks(take)):
            add_fisher(self._weights, trace, direction, out, take)
        return product

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[2]``."""
        total = vector.new_zeros(2)
        weights = Weights(self._path.policy, vector)
        take = _BUFFERS.take(vector.dtype)
        for rows, old in zip(self._path.rows(self._query), self._old, strict=True):
            new = self._path.block(weights, rows, take).distribution
            total += torch.stack([likelihood_ratio_parts(new, rows).sum(), mean_kl(old, new, rows)])
        return total
