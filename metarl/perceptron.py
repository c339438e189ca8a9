"""The fast path: the derivatives of a perceptron's meta-update by hand, on the CPU, without autograd.

Everything is row-wise in the samples; a tensor ``[row, width]`` has one row for each. A perceptron has layers
l = 1..D with ``a_l = h_{l-1} W_l^T + b_l`` and ``h_l = phi_l(a_l)``, h_0 the observations; ``a_D`` is the mean of a
Gaussian or the logits of a choice. Write s_l = phi_l'(a_l), and R x for the derivative of x along a direction
(V_l, c_l) of the parameters (Pearlmutter 1994).

**Gradient** of a loss ``sum_i f_i(log pi_i)``, with psi_i the score (derivative of log pi_i by a_D)::

    delta_D = f' psi        e_l = delta_{l+1} W_{l+1}        delta_l = s_l e_l
    dW_l = delta_l^T h_{l-1}        db_l = sum_i delta_l

**Hessian-vector product** of that loss, ``tanh'' = -2 tanh tanh'`` and ``relu'' = 0``, hence t_l = -2 h_l e_l or 0::

    R a_l = h_{l-1} V_l^T + c_l + R h_{l-1} W_l^T        R h_l = s_l R a_l        R h_0 = 0
    R delta_D = f' R psi + f'' (psi . R a_D) psi
    R delta_l = s_l (R delta_{l+1} W_{l+1} + delta_{l+1} V_{l+1}) + t_l R h_l
    R dW_l = R delta_l^T h_{l-1} + delta_l^T R h_{l-1}        R db_l = sum_i R delta_l

**Fisher-vector product**: the first line of the above, then the gradient's with ``delta_D = M R a_D``, M the Fisher
matrix of the distribution. A Gaussian's log_std is one more output, the same for every row, whose parameter counts
only where it is above its floor.

The rows are taken in blocks that stay in the cache, with buffers that each thread reuses. Blocks depend on the number
of rows alone, so results depend neither on threads nor on the other tasks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents import (
    POLICY_GRADIENT,
    Distribution,
    InnerObjective,
    Policy,
    Samples,
    likelihood_ratio_parts,
    mean_kl,
)

BLOCK_NUMBERS = 2**17  # at most this many numbers of a layer in a block


@dataclass(frozen=True)
class Weights:
    """A perceptron's parameters, or a direction or gradient of them: views into one flat vector."""

    layers: list[tuple[Tensor, Tensor]]
    log_std: Tensor | None


@dataclass
class Trace:
    """What a block of rows leaves at some parameters: the left sides of the equations above.

    Attributes:
        samples: the rows.
        hidden: h_0 to h_{D-1}.
        slopes: s_1 to s_{D-1}; None where phi is the identity.
        distribution: of the actions.
        deltas: delta_1 to delta_D; delta_1 is not kept.
        bends: t_1 to t_{D-1}; None where phi'' is 0.
        score: of the actions.
        first: f', ``[row]``.
        second: f'', ``[row]``, or None for 0.
    """

    samples: Samples
    hidden: list[Tensor]
    slopes: list[Tensor | None]
    distribution: Distribution
    deltas: Sequence[Tensor] = ()
    bends: Sequence[Tensor | None] = ()
    score: tuple[Tensor, ...] = ()
    first: Tensor | None = None
    second: Tensor | None = None


class _Buffers(threading.local):
    """Tensors of this thread by tag, used again from block to block."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int, torch.dtype], Tensor] = {}

    def take(self, tag: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        held = self._held.get((tag, columns, dtype))
        if held is None or held.shape[0] < rows:
            held = self._held[tag, columns, dtype] = torch.empty(rows, columns, dtype=dtype)
        return held if held.shape[0] == rows else held[:rows]


_BUFFERS = _Buffers()


class Perceptron:
    """The fast path of a policy that is a perceptron; vectors are flat, in the order of the policy's parameters.

    Args:
        policy: with ``layers``.
        objective: of the inner update.
        keep: keep activations between products; else they are computed again for each, in little memory.
    """

    name = "fast"

    def __init__(self, policy: Policy, objective: InnerObjective = POLICY_GRADIENT, *, keep: bool = True) -> None:
        assert policy.layers is not None
        self.objective = objective
        self.keep = keep
        self._policy = policy
        self._activations = [layer.activation for layer in policy.layers[:-1]]
        self._names = [(layer.weight, layer.bias) for layer in policy.layers]
        self._shapes = policy.shapes
        self._slots: dict[str, slice] = {}
        start = 0
        for name, shape in policy.shapes.items():
            self._slots[name] = slice(start, start + shape.numel())
            start += shape.numel()
        self.size = start
        self._width = max(shape[0] for shape in policy.shapes.values())

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss of one task at its parameters."""
        return InnerLoss(self, vector, samples)

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the gradient of the inner loss alone; nothing is kept."""
        gradient = torch.zeros_like(vector)
        weights, out = self.weights(vector), self.weights(gradient)
        for rows in self.blocks(samples):
            self.differentiate(weights, self.record(weights, rows, keep=False), out, keep=False)
        return gradient

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy of one task on what was collected with it."""
        return AdaptedPolicy(self, vector, query)

    # ------------------------------------------------------------------ the equations, for one block of rows

    def weights(self, vector: Tensor) -> Weights:
        """Return a flat vector as weights."""

        def view(name: str) -> Tensor:
            return vector[self._slots[name]].view(self._shapes[name])

        layers = [(view(weight), view(bias)) for weight, bias in self._names]
        return Weights(layers, view("log_std") if "log_std" in self._slots else None)

    def blocks(self, samples: Samples) -> Iterator[Samples]:
        """Yield the samples in blocks of nearly equal size that stay in the cache."""
        total = samples.weights.shape[0]
        size = math.ceil(total / math.ceil(total * self._width / BLOCK_NUMBERS))
        for start in range(0, total, size):
            rows = slice(start, start + size)
            yield Samples(**{field.name: getattr(samples, field.name)[rows] for field in fields(samples)})

    def record(self, weights: Weights, samples: Samples, *, keep: bool) -> Trace:
        """Return the forward pass: h_l, s_l and the distribution, in buffers unless they are to be kept."""
        inputs = samples.observations.flatten(1).to(weights.layers[0][0].dtype)
        hidden, slopes = [inputs], list[Tensor | None]()
        for i, activation in enumerate(self._activations):
            weight, bias = weights.layers[i]
            h = _take(f"h{i}", inputs, len(bias), keep)
            torch.addmm(bias, hidden[-1], weight.t(), out=h)
            slope = None
            if activation is nn.Tanh:
                np.tanh(h.numpy(), out=h.numpy())  # several times faster than torch.tanh
                slope = _take(f"s{i}", inputs, len(bias), keep)
                torch.addcmul(_one(h), h, h, value=-1, out=slope)
            elif activation is nn.ReLU:
                h.relu_()
                slope = _take(f"s{i}", inputs, len(bias), keep)
                torch.sign(h, out=slope)
            hidden.append(h)
            slopes.append(slope)
        weight, bias = weights.layers[-1]
        output = torch.addmm(bias[:, None], weight, hidden[-1].t()).t()
        return Trace(samples, hidden, slopes, self._policy.head(output, weights.log_std))

    def differentiate(self, weights: Weights, trace: Trace, out: Weights | None, *, keep: bool) -> None:
        """Add the gradient of the inner loss to ``out``, and complete the trace for ``hessian``."""
        trace.first, trace.second = self.objective.derivatives(trace.distribution, trace.samples)
        trace.score = trace.distribution.score(trace.samples.actions)
        cotangents = [part * trace.first[:, None] for part in trace.score]
        trace.deltas, trace.bends = self.pull(weights, trace, cotangents, out, keep=keep, bend=True)

    def pull(
        self,
        weights: Weights,
        trace: Trace,
        cotangents: Sequence[Tensor],
        out: Weights | None,
        *,
        keep: bool = False,
        bend: bool = False,
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Add to ``out`` what cotangents of the distribution's parameters are as cotangents of the weights.

        Returns:
            delta_1 to delta_D and, with ``bend``, t_1 to t_{D-1}.
        """
        delta = cotangents[0]
        if out is not None and out.log_std is not None:
            out.log_std.add_(self._above_floor(weights, cotangents[1].sum(dim=0)))
        deltas, bends = [delta], list[Tensor | None]()
        for i in reversed(range(len(weights.layers))):
            h = trace.hidden[i]
            if out is not None:
                _add_product(out.layers[i][0], delta, h)
                out.layers[i][1].add_(delta.sum(dim=0))
            if i == 0:
                break
            # delta_1 is needed no further; the others are, by the Hessian-vector product.
            e = _take(f"delta{i}", delta, h.shape[1], keep and i > 1)
            torch.mm(delta, weights.layers[i][0], out=e)
            t = None
            if bend and self._activations[i - 1] is nn.Tanh:
                t = _take(f"t{i}", delta, h.shape[1], keep)
                torch.mul(h, e, out=t).mul_(-2.0)
            slope = trace.slopes[i - 1]
            delta = e if slope is None else e.mul_(slope)
            deltas.append(delta)
            bends.append(t)
        return deltas[::-1], bends[::-1]

    def push(self, weights: Weights, trace: Trace, direction: Weights) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Return R h_0 to R h_{D-1} (an empty tensor for the first), and R of the distribution's parameters."""
        tangents = [trace.hidden[0][:, :0]]
        for i, slope in enumerate(trace.slopes):
            weight, bias = direction.layers[i]
            moved = _take(f"Rh{i}", trace.hidden[0], len(bias), False)
            torch.addmm(bias, trace.hidden[i], weight.t(), out=moved)
            if i > 0:
                moved.addmm_(tangents[i], weights.layers[i][0].t())
            if slope is not None:
                moved.mul_(slope)
            tangents.append(moved)
        weight, bias = direction.layers[-1]
        output = torch.addmm(bias[:, None], weight, trace.hidden[-1].t())
        if len(tangents) > 1:
            output.addmm_(weights.layers[-1][0], tangents[-1].t())
        if direction.log_std is None:
            return tangents, (output.t(),)
        return tangents, (output.t(), self._above_floor(weights, direction.log_std))

    def hessian(self, weights: Weights, trace: Trace, direction: Weights, out: Weights) -> None:
        """Add the Hessian-vector product of the inner loss to ``out``."""
        tangents, outputs = self.push(weights, trace, direction)
        assert trace.first is not None
        cotangents = [part * trace.first[:, None] for part in trace.distribution.score_tangent(trace.score, outputs)]
        if trace.second is not None:
            moved = sum((score * tangent).sum(dim=1) for score, tangent in zip(trace.score, outputs, strict=True))
            factor = (trace.second * moved)[:, None]
            cotangents = [part + factor * score for part, score in zip(cotangents, trace.score, strict=True)]
        delta = cotangents[0]
        if out.log_std is not None:
            out.log_std.add_(self._above_floor(weights, cotangents[1].sum(dim=0)))
        for i in reversed(range(len(weights.layers))):
            _add_product(out.layers[i][0], delta, trace.hidden[i])
            out.layers[i][1].add_(delta.sum(dim=0))
            if i == 0:
                break
            _add_product(out.layers[i][0], trace.deltas[i], tangents[i])
            moved_delta = _take(f"Rdelta{i}", delta, tangents[i].shape[1], False)
            torch.mm(delta, weights.layers[i][0], out=moved_delta)
            moved_delta.addmm_(trace.deltas[i], direction.layers[i][0])
            slope, bend = trace.slopes[i - 1], trace.bends[i - 1]
            if slope is not None:
                moved_delta.mul_(slope)
            if bend is not None:
                moved_delta.addcmul_(bend, tangents[i])
            delta = moved_delta

    def _above_floor(self, weights: Weights, log_std: Tensor) -> Tensor:
        floor = self._policy.log_std_min
        if floor is None:
            return log_std
        assert weights.log_std is not None
        return torch.where(weights.log_std >= floor, log_std, 0.0)


class InnerLoss:
    """One task's inner loss at some parameters: ``gradient``, and products with its Hessian."""

    def __init__(self, net: Perceptron, vector: Tensor, samples: Samples) -> None:
        self._net = net
        self._samples = samples
        self._weights = net.weights(vector)
        self.gradient = torch.zeros_like(vector)
        out = net.weights(self.gradient)
        self._kept: list[Trace] = []
        for rows in net.blocks(samples):
            trace = net.record(self._weights, rows, keep=net.keep)
            net.differentiate(self._weights, trace, out, keep=net.keep)
            if net.keep:
                self._kept.append(trace)

    def _traces(self) -> Iterator[Trace]:
        if self._net.keep:
            yield from self._kept
            return
        for rows in self._net.blocks(self._samples):
            trace = self._net.record(self._weights, rows, keep=False)
            self._net.differentiate(self._weights, trace, None, keep=False)
            yield trace

    def hessian(self, vector: Tensor) -> Tensor:
        """Return the Hessian of the loss times a vector."""
        product = torch.zeros_like(vector)
        direction, out = self._net.weights(vector), self._net.weights(product)
        for trace in self._traces():
            self._net.hessian(self._weights, trace, direction, out)
        return product


class AdaptedPolicy:
    """One task's adapted policy on its samples: ``gain``, its ``gradient``, and products with the Fisher matrix."""

    def __init__(self, net: Perceptron, vector: Tensor, query: Samples) -> None:
        self._net = net
        self._query = query
        self._weights = net.weights(vector)
        self.gain = vector.new_zeros(())
        self.gradient = torch.zeros_like(vector)
        self._old: list[Distribution] = []
        self._kept: list[Trace] = []
        out = net.weights(self.gradient)
        for rows in net.blocks(query):
            trace = net.record(self._weights, rows, keep=net.keep)
            terms = likelihood_ratio_parts(trace.distribution, rows)
            self.gain += terms.sum()
            score = trace.distribution.score(rows.actions)
            net.pull(self._weights, trace, [part * terms[:, None] for part in score], out)
            self._old.append(trace.distribution)
            if net.keep:
                self._kept.append(trace)

    def _traces(self) -> Iterator[Trace]:
        if self._net.keep:
            yield from self._kept
            return
        for rows in self._net.blocks(self._query):
            yield self._net.record(self._weights, rows, keep=False)

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""
        product = torch.zeros_like(vector)
        direction, out = self._net.weights(vector), self._net.weights(product)
        for trace in self._traces():
            _, outputs = self._net.push(self._weights, trace, direction)
            weights = trace.samples.weights[:, None]
            parts = [part * weights for part in trace.distribution.metric(outputs)]
            self._net.pull(self._weights, trace, parts, out)
        return product

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[2]``."""
        total = vector.new_zeros(2)
        weights = self._net.weights(vector)
        for rows, old in zip(self._net.blocks(self._query), self._old, strict=True):
            new = self._net.record(weights, rows, keep=False).distribution
            total += torch.stack([likelihood_ratio_parts(new, rows).sum(), mean_kl(old, new, rows)])
        return total


def _take(tag: str, like: Tensor, columns: int, keep: bool) -> Tensor:
    """Return a tensor with the rows of ``like``: a new one to keep, or this thread's buffer of that name."""
    if keep:
        return torch.empty(len(like), columns, dtype=like.dtype)
    return _BUFFERS.take(tag, len(like), columns, like.dtype)


def _one(like: Tensor) -> Tensor:
    return like.new_ones(())


def _add_product(out: Tensor, delta: Tensor, h: Tensor) -> None:
    """Add ``delta^T h`` to ``out``; a product with few columns is several times faster the other way round."""
    if h.shape[1] < delta.shape[1]:
        out.add_(torch.mm(h.t(), delta).t())
    else:
        out.addmm_(delta.t(), h)
