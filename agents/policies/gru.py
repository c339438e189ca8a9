"""A gated recurrent unit (GRU) over packed sequences, with its derivatives by hand on the CPU.

``r = s(W_ir x + b_ir + W_hr h + b_hr)``, ``z = s(W_iz x + b_iz + W_hz h + b_hz)``,
``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = n + z (h - n)``, as in ``torch.nn.GRU`` (Cho et al. 2014), whose
weights hold those of r, z and n one below the other.

torch's own GRU on the CPU keeps a graph of a dozen nodes for each step, whose backward pass takes several times as long
as this one. On a GPU torch's is a single kernel, and is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

GATES = 3  # r, z and n
Linear = tuple[NDArray[Any], NDArray[Any]]  # transposed weights [input, output] and biases
Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # weight_ih, weight_hh, bias_ih, bias_hh


def gru(inputs: Tensor, sizes: Tensor, hidden: Tensor, weights: Weights) -> Tensor:
    """Return the hidden states after all steps of packed sequences, ``[row, hidden]``.

    Args:
        inputs: ``[row, input]``: those of all sequences at the first time step, then at the second, and so on.
        sizes: ``[time]``, how many sequences are running at each time step, in falling order; int64, on the CPU.
        hidden: ``[sequence, hidden]``, before the first step.
        weights: ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``.
    """
    if inputs.device.type != "cpu":
        found, _ = torch.gru(inputs, sizes, hidden[None], list(weights), True, 1, 0.0, False, False)
        return found
    result: Tensor = _Gru.apply(inputs, hidden, *weights, sizes.tolist())  # type: ignore[no-untyped-call]
    return result


def gru_cell(inputs: Tensor, hidden: Tensor, weights: Weights) -> Tensor:
    """Return the hidden states ``[row, hidden]`` after one step, by torch's operations.

    Args:
        inputs: ``[row, input]``.
        hidden: ``[row, hidden]``, before the step.
        weights: as for ``gru``.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    size = hidden.shape[1]
    given = torch.nn.functional.linear(inputs, weight_ih, bias_ih)
    kept = torch.nn.functional.linear(hidden, weight_hh, bias_hh)
    reset, update = torch.sigmoid(given[:, : 2 * size] + kept[:, : 2 * size]).chunk(2, dim=1)
    new = torch.tanh(given[:, 2 * size :] + reset * kept[:, 2 * size :])
    return new + update * (hidden - new)


@dataclass(frozen=True)
class Passed:
    """What the pass backwards needs of the one forwards, ``[row, ...]``.

    Attributes:
        inputs: of the steps.
        before: the hidden states before the steps.
        gates: r and z side by side, ``[row, 2 hidden]``.
        kept: ``W_hn h + b_hn``.
        new: n.
        sizes: how many sequences are running at each time step.
    """

    inputs: Tensor
    before: Tensor
    gates: Tensor
    kept: Tensor
    new: Tensor
    sizes: list[int]


def forwards(inputs: Tensor, sizes: list[int], hidden: Tensor, weights: Weights) -> tuple[Tensor, Passed]:
    """Return the hidden states after all steps, on the CPU and outside of any graph, and what ``backwards`` needs.

    The arguments are those of ``gru``, the sizes as a list.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    size = hidden.shape[1]
    two = 2 * size
    # The sigmoid is (1 + tanh(x / 2)) / 2, and numpy's tanh is far faster than its exp; halving the weights is exact.
    gates = torch.addmm(0.5 * (bias_ih + bias_hh)[:two], inputs, 0.5 * weight_ih[:two].t())
    new = torch.addmm(bias_ih[two:], inputs, weight_ih[two:].t())
    to_gates, to_kept = (0.5 * weight_hh[:two]).t().contiguous(), weight_hh[two:].t().contiguous()
    kept = bias_hh[two:].repeat(len(new), 1)
    states = torch.cat([hidden, torch.empty_like(new)])
    stages = [sizes[0], *sizes]  # of the states: those before the first step, and those after each step
    latest = [block[:count] for block, count in zip(torch.split(states, stages), sizes, strict=False)]
    tensors = zip(latest, torch.split(gates, sizes), torch.split(kept, sizes), strict=True)
    arrays = zip(*(_blocks(part.numpy(), sizes) for part in (gates, kept, new)), strict=True)
    after = _blocks(states.numpy(), stages)
    for i, ((now, of_gates, of_kept), parts) in enumerate(zip(tensors, arrays, strict=True)):
        # Matrix products are torch's, which keeps to its number of threads; all else is numpy's, which starts faster.
        of_gates.addmm_(now, to_gates)
        of_kept.addmm_(now, to_kept)
        _step(*parts, after[i][: sizes[i]], after[i + 1])
    before = states[: len(inputs)] if sizes[0] == sizes[-1] else torch.cat(latest)
    return states[sizes[0] :], Passed(inputs, before, gates, kept, new, sizes)


def backwards(
    passed: Passed, gradient: Tensor, weights: Weights, *, of_inputs: bool
) -> tuple[Tensor | None, Tensor, Weights]:
    """Return the gradients with respect to the inputs, the hidden states before the first step, and the weights.

    Args:
        passed: from ``forwards``.
        gradient: with respect to the hidden states after all steps.
        weights: as for ``forwards``.
        of_inputs: whether the gradient with respect to the inputs is wanted; None otherwise.
    """
    sizes, size, rows = passed.sizes, passed.new.shape[1], len(passed.new)
    weight_ih, weight_hh, _, _ = weights
    n, h = passed.new.numpy(), passed.before.numpy()
    reset, update = passed.gates.numpy()[:, :size], np.ascontiguousarray(passed.gates.numpy()[:, size:])
    # What the gradient of the state after a step is multiplied by, for all steps at once.
    factors = np.empty((rows, GATES, size), n.dtype)
    changes = 1.0 - update
    difference = np.subtract(h, n)
    difference *= update
    np.multiply(difference, changes, out=factors[:, 1])
    to_new = np.multiply(n, n, out=difference)
    np.subtract(1.0, to_new, out=to_new)
    to_new *= changes
    np.multiply(to_new, reset, out=factors[:, 2])
    to_reset = np.subtract(1.0, reset, out=changes)
    to_reset *= passed.kept.numpy()
    np.multiply(to_reset, factors[:, 2], out=factors[:, 0])
    of_linear = torch.empty(rows, GATES * size, dtype=passed.new.dtype)
    flowing = np.empty_like(n)
    carried = torch.zeros(sizes[0], size, dtype=passed.new.dtype)
    back = carried.numpy()
    arrays = (gradient.numpy(), flowing, factors, of_linear.numpy().reshape(factors.shape), update)
    steps = zip(sizes, torch.split(of_linear, sizes), *(_blocks(part, sizes) for part in arrays), strict=True)
    for count, product, above, now, factor, into, stays in reversed(list(steps)):
        np.add(back[:count], above, out=now)
        np.multiply(now[:, None], factor, out=into)
        np.multiply(now, stays, out=back[:count])
        (carried if count == len(carried) else carried[:count]).addmm_(product, weight_hh)
    of_new, of_gates = torch.from_numpy(np.multiply(flowing, to_new, out=to_new)), of_linear[:, : 2 * size]
    of_weights = (
        torch.cat([of_gates.t() @ passed.inputs, of_new.t() @ passed.inputs]),
        of_linear.t() @ passed.before,
        torch.cat([of_gates.sum(dim=0), of_new.sum(dim=0)]),
        of_linear.sum(dim=0),
    )
    found = torch.addmm(of_gates @ weight_ih[: 2 * size], of_new, weight_ih[2 * size :]) if of_inputs else None
    return found, carried, of_weights


class _Gru(torch.autograd.Function):
    """The unit as an operation of torch's graphs."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, hidden: Tensor, *given: Any) -> Tensor:
        *weights, sizes = given
        found, passed = forwards(inputs, sizes, hidden, tuple(weights))
        ctx.save_for_backward(passed.inputs, passed.before, passed.gates, passed.kept, passed.new, *weights)
        ctx.sizes = sizes
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients with respect to the arguments of ``forward``."""
        inputs, before, gates, kept, new, *weights = ctx.saved_tensors
        passed = Passed(inputs, before, gates, kept, new, ctx.sizes)
        of_inputs, of_hidden, of_weights = backwards(
            passed, gradient, tuple(weights), of_inputs=ctx.needs_input_grad[0]
        )
        return of_inputs, of_hidden, *of_weights, None


def _blocks(rows: NDArray[Any], sizes: list[int]) -> Sequence[NDArray[Any]]:
    """Return the rows of each time step."""
    if sizes[0] == sizes[-1]:
        whole: Any = rows.reshape(len(sizes), sizes[0], *rows.shape[1:])
        return whole  # type: ignore[no-any-return]
    ends = np.cumsum(sizes).tolist()
    return [rows[end - count : end] for end, count in zip(ends, sizes, strict=True)]


def _step(
    gates: NDArray[Any], kept: NDArray[Any], new: NDArray[Any], hidden: NDArray[Any], following: NDArray[Any]
) -> None:
    """Compute a step in place: from half the linear parts of r and z, ``W_hn h + b_hn``, and ``W_in x + b_in``."""
    size = hidden.shape[1]
    np.tanh(gates, out=gates)
    gates += 1.0
    gates *= 0.5
    np.multiply(gates[:, :size], kept, out=following)
    new += following
    np.tanh(new, out=new)
    np.subtract(hidden, new, out=following)
    following *= gates[:, size:]
    following += new


def gru_step(inputs: NDArray[Any], hidden: NDArray[Any], of_input: Linear, of_hidden: Linear) -> NDArray[Any]:
    """Return the hidden states ``[row, hidden]`` after one step, in numpy.

    Args:
        inputs: ``[row, input]``.
        hidden: ``[row, hidden]``, before the step.
        of_input: transposed ``weight_ih`` and ``bias_ih``.
        of_hidden: transposed ``weight_hh`` and ``bias_hh``.
    """
    two = 2 * hidden.shape[1]
    given = inputs @ of_input[0]
    given += of_input[1]
    kept = hidden @ of_hidden[0]
    kept += of_hidden[1]
    gates = given[:, :two] + kept[:, :two]
    gates *= 0.5
    new, following = given[:, two:], np.empty_like(hidden)
    _step(gates, kept[:, two:], new, hidden, following)
    return following
