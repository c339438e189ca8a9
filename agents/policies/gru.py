"""A gated recurrent unit (GRU) over packed sequences, with its derivatives by hand on the CPU.

``r = s(W_ir x + b_ir + W_hr h + b_hr)``, ``z = s(W_iz x + b_iz + W_hz h + b_hz)``,
``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = n + z (h - n)``, as in ``torch.nn.GRU`` (Cho et al. 2014), whose
weights hold those of r, z and n one below the other.

torch's own GRU on the CPU keeps a graph of a dozen nodes for each step, whose backward pass takes several times as long
as this one. On a GPU torch's is a single kernel, and is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

GATES = 3  # r, z and n
_PART = 2048  # rows
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
class Steps:
    """Numbers of packed sequences.

    Attributes:
        whole: ``[row, width]``.
        sizes: how many rows each time step has.
        tensors: the rows of each time step.
        arrays: the same memory as arrays, ``[row, ...]``.
    """

    whole: Tensor
    sizes: list[int]
    tensors: tuple[Tensor, ...]
    arrays: tuple[NDArray[Any], ...]


class Scratch:
    """Memory for one pass after another: to get fresh pages, and views of each step, takes as long as to fill them."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self._steps: dict[str, Steps] = {}

    def steps(self, name: str, sizes: list[int], shape: tuple[int, ...], like: Tensor) -> Steps:
        """Return uninitialised memory, rows of this shape, which is valid until more of this name is taken."""
        held, rows, width = self._steps.get(name), sum(sizes), math.prod(shape)
        if held is None or held.sizes != sizes or held.arrays[0].shape[1:] != shape or held.whole.dtype != like.dtype:
            memory = self._memory.get(name)
            if memory is None or memory.numel() < rows * width or memory.dtype != like.dtype:
                memory = self._memory[name] = like.new_empty(rows * width)
            whole = memory[: rows * width].view(rows, width)
            arrays = _blocks(whole.numpy().reshape(rows, *shape), sizes)
            held = self._steps[name] = Steps(whole, sizes, torch.split(whole, sizes), arrays)
        return held


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

    def parts(self) -> list[tuple[slice, Passed]]:
        """Return successive parts of at most about ``_PART`` rows, which caches can hold, and their rows."""
        rows = len(self.new)
        enough = -(-rows // -(-rows // _PART))
        found, start, end, first = [], 0, 0, 0
        for time, count in enumerate(self.sizes, start=1):
            end += count
            if end - start >= enough or time == len(self.sizes):
                part = slice(start, end)
                inputs, before, gates = self.inputs[part], self.before[part], self.gates[part]
                sizes = self.sizes[first:time]
                found.append((part, Passed(inputs, before, gates, self.kept[part], self.new[part], sizes)))
                start, first = end, time
        return found


def forwards(
    inputs: Tensor, sizes: list[int], hidden: Tensor, weights: Weights, scratch: Scratch | None = None
) -> tuple[Tensor, Passed]:
    """Return the hidden states after all steps, on the CPU and outside of any graph, and what ``backwards`` needs.

    The arguments are those of ``gru``, the sizes as a list; the results are valid until ``scratch`` is used again.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    scratch = scratch or Scratch()
    rows, size = len(inputs), hidden.shape[1]
    two = 2 * size
    # The sigmoid is (1 + tanh(x / 2)) / 2, and numpy's tanh is far faster than its exp; halving the weights is exact.
    gates = scratch.steps("gates", sizes, (two,), inputs)
    torch.addmm(0.5 * (bias_ih + bias_hh)[:two], inputs, (0.5 * weight_ih[:two]).t(), out=gates.whole)
    new = scratch.steps("new", sizes, (size,), inputs)
    torch.addmm(bias_ih[two:], inputs, weight_ih[two:].t(), out=new.whole)
    kept = scratch.steps("kept", sizes, (size,), inputs)
    kept.whole[:] = bias_hh[two:]
    states = scratch.steps("states", [sizes[0], *sizes], (size,), inputs)  # before the first step, and after each
    states.whole[: sizes[0]] = hidden
    to_gates, to_kept = (0.5 * weight_hh[:two]).t().contiguous(), weight_hh[two:].t().contiguous()
    even = sizes[0] == sizes[-1]
    latest = states.tensors[:-1]
    if not even:
        latest = tuple(block[:count] for block, count in zip(latest, sizes, strict=True))
    tensors = zip(latest, gates.tensors, kept.tensors, strict=True)
    arrays = zip(gates.arrays, kept.arrays, new.arrays, strict=True)
    for i, ((now, of_gates, of_kept), parts) in enumerate(zip(tensors, arrays, strict=True)):
        # Matrix products are torch's, which keeps to its number of threads; all else is numpy's, which starts faster.
        of_gates.addmm_(now, to_gates)
        of_kept.addmm_(now, to_kept)
        _step(*parts, states.arrays[i][: sizes[i]], states.arrays[i + 1])
    before = states.whole[:rows] if even else torch.cat(latest)
    return states.whole[sizes[0] :], Passed(inputs, before, gates.whole, kept.whole, new.whole, sizes)


def backwards(
    passed: Passed,
    gradient: Tensor,
    following: Tensor,
    weights: Weights,
    scratch: Scratch | None = None,
    *,
    of_inputs: bool,
) -> tuple[Tensor | None, Tensor, Weights]:
    """Return the gradients with respect to the inputs, the hidden states before the first step, and the weights.

    Args:
        passed: from ``forwards``, or one of its parts.
        gradient: with respect to the hidden states after all steps.
        following: what later steps add to that of the sequences that go on, ``[sequence, hidden]``.
        weights: as for ``forwards``.
        scratch: as for ``forwards``.
        of_inputs: whether the gradient with respect to the inputs is wanted; None otherwise.
    """
    sizes, size, rows = passed.sizes, passed.new.shape[1], len(passed.new)
    weight_ih, weight_hh, _, _ = weights
    scratch = scratch or Scratch()
    n = passed.new.numpy()
    reset, update = passed.gates.numpy()[:, :size], np.ascontiguousarray(passed.gates.numpy()[:, size:])
    # What the gradient of the state after a step is multiplied by, for all steps at once.
    of_steps = scratch.steps("factors", sizes, (GATES, size), passed.new)
    factors = of_steps.whole.numpy().reshape(rows, GATES, size)
    changes = 1.0 - update
    difference = passed.before.numpy() - n
    difference *= update
    np.multiply(difference, changes, out=factors[:, 1])
    to_new = np.multiply(n, n, out=difference)
    np.subtract(1.0, to_new, out=to_new)
    to_new *= changes
    np.multiply(to_new, reset, out=factors[:, 2])
    to_reset = np.subtract(1.0, reset, out=changes)
    to_reset *= passed.kept.numpy()
    np.multiply(to_reset, factors[:, 2], out=factors[:, 0])
    linear = scratch.steps("linear", sizes, (GATES, size), passed.new)
    flowing = scratch.steps("flowing", sizes, (size,), passed.new)
    of_linear = linear.whole
    carried = passed.new.new_zeros(sizes[0], size)
    carried[: len(following)] = following
    back = carried.numpy()
    above, stays = _blocks(gradient.numpy(), sizes), _blocks(update, sizes)
    for i in reversed(range(len(sizes))):
        count = sizes[i]
        now = flowing.arrays[i]
        np.add(back[:count], above[i], out=now)
        np.multiply(now[:, None], of_steps.arrays[i], out=linear.arrays[i])
        np.multiply(now, stays[i], out=back[:count])
        (carried if count == sizes[0] else carried[:count]).addmm_(linear.tensors[i], weight_hh)
    of_new, of_gates = (
        torch.from_numpy(np.multiply(flowing.whole.numpy(), to_new, out=to_new)),
        of_linear[:, : 2 * size],
    )
    sums = of_linear.sum(dim=0)
    of_weights = (
        torch.cat([of_gates.t() @ passed.inputs, of_new.t() @ passed.inputs]),
        of_linear.t() @ passed.before,
        torch.cat([sums[: 2 * size], of_new.sum(dim=0)]),
        sums,
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
        of_inputs, wanted = torch.empty_like(inputs), ctx.needs_input_grad[0]
        scratch = Scratch()
        following, total = gradient[:0], [torch.zeros_like(weight) for weight in weights]
        for rows, part in reversed(passed.parts()):
            found, following, of_weights = backwards(
                part, gradient[rows], following, tuple(weights), scratch, of_inputs=wanted
            )
            if found is not None:
                of_inputs[rows] = found
            for summed, value in zip(total, of_weights, strict=True):
                summed += value
        return of_inputs if wanted else None, following, *total, None


def _blocks(rows: NDArray[Any], sizes: list[int]) -> tuple[NDArray[Any], ...]:
    """Return the rows of each time step."""
    if sizes[0] == sizes[-1]:
        return tuple(rows.reshape(len(sizes), sizes[0], *rows.shape[1:]))
    ends = np.cumsum(sizes).tolist()
    return tuple(rows[end - count : end] for end, count in zip(ends, sizes, strict=True))


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
