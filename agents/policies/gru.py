"""A gated recurrent unit (GRU) over packed sequences, with its derivatives by hand on the CPU.

``r = s(W_ir x + b_ir + W_hr h + b_hr)``, ``z = s(W_iz x + b_iz + W_hz h + b_hz)``,
``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = n + z (h - n)``, as in ``torch.nn.GRU`` (Cho et al. 2014), whose
weights hold those of r, z and n one below the other.

torch's own GRU on the CPU keeps a graph of a dozen nodes for each step, whose backward pass takes three times as long
as this one. On a GPU torch's is a single kernel, and is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GATES = 3  # r, z and n
Linear = tuple[NDArray[Any], NDArray[Any]]  # transposed weights [input, output] and biases


def gru(inputs: Tensor, sizes: Tensor, hidden: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
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
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    given = nn.functional.linear(inputs, weight_ih, bias_ih)
    result: Tensor = _Gru.apply(given, hidden, weight_hh, bias_hh, sizes.tolist())  # type: ignore[no-untyped-call]
    return result


def gru_cell(inputs: Tensor, hidden: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return the hidden states ``[row, hidden]`` after one step, by torch's operations.

    Args:
        inputs: ``[row, input]``.
        hidden: ``[row, hidden]``, before the step.
        weights: as for ``gru``.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    size = hidden.shape[1]
    given = nn.functional.linear(inputs, weight_ih, bias_ih)
    kept = nn.functional.linear(hidden, weight_hh, bias_hh)
    reset, update = torch.sigmoid(given[:, : 2 * size] + kept[:, : 2 * size]).chunk(2, dim=1)
    new = torch.tanh(given[:, 2 * size :] + reset * kept[:, 2 * size :])
    return new + update * (hidden - new)


class _Gru(torch.autograd.Function):
    """The recurrent part; matrix products are torch's, which keeps to its number of threads, all else is numpy's."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, sizes: list[int]) -> Tensor:
        size = hidden.shape[1]
        given = given.contiguous()
        kept, gates = torch.empty_like(given), torch.empty_like(given[:, : 2 * size])
        new, found, before = (torch.empty_like(given[:, :size]) for _ in range(3))
        transposed = weight.t()
        of_input, of_hidden, of_gates, of_new, after = (part.numpy() for part in (given, kept, gates, new, found))
        latest, start = hidden, 0
        for count in sizes:
            rows = slice(start, start + count)
            before[rows] = latest[:count]
            torch.addmm(bias, before[rows], transposed, out=kept[rows])
            _step(of_input[rows], of_hidden[rows], before[rows].numpy(), of_gates[rows], of_new[rows], after[rows])
            latest, start = found[rows], start + count
        ctx.save_for_backward(kept, gates, new, before, weight)
        ctx.sizes = sizes
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Return the gradients with respect to the arguments of ``forward``."""
        kept, gates, new, before, weight = ctx.saved_tensors
        sizes, size = ctx.sizes, new.shape[1]
        reset, update = gates[:, :size].numpy(), np.ascontiguousarray(gates[:, size:].numpy())
        n, h = new.numpy(), before.numpy()
        # What the gradient of the state after a step is multiplied by, for all steps at once.
        to_update = (h - n) * update * (1.0 - update)
        to_new = (1.0 - update) * (1.0 - n * n)
        to_reset = kept[:, 2 * size :].numpy() * reset * (1.0 - reset)
        of_kept, of_new = torch.empty_like(kept), torch.empty_like(new)
        whole, above = of_kept.numpy(), gradient.numpy()
        new_part = of_new.numpy()
        flowing = new_after = torch.zeros(sizes[0], size, dtype=new.dtype)
        carried = flowing.numpy()
        end = len(new)
        for count in reversed(sizes):
            rows = slice(end - count, end)
            now = carried[:count]
            now += above[rows]
            np.multiply(now, to_new[rows], out=new_part[rows])
            np.multiply(new_part[rows], to_reset[rows], out=whole[rows, :size])
            np.multiply(now, to_update[rows], out=whole[rows, size : 2 * size])
            np.multiply(new_part[rows], reset[rows], out=whole[rows, 2 * size :])
            now *= update[rows]
            new_after[:count].addmm_(of_kept[rows], weight)
            end -= count
        of_weight, of_bias = of_kept.t() @ before, of_kept.sum(dim=0)
        of_given = of_kept.clone()
        of_given[:, 2 * size :] = of_new
        return of_given, flowing, of_weight, of_bias, None


def _step(
    given: NDArray[Any],
    kept: NDArray[Any],
    hidden: NDArray[Any],
    gates: NDArray[Any],
    new: NDArray[Any],
    following: NDArray[Any],
) -> None:
    """Compute a step in place: gates, new and following from the linear parts of the input and of the hidden state."""
    size = hidden.shape[1]
    np.add(given[:, : 2 * size], kept[:, : 2 * size], out=gates)
    gates *= 0.5  # the sigmoid is (1 + tanh(x / 2)) / 2, and numpy's tanh is far faster than its exp
    np.tanh(gates, out=gates)
    gates += 1.0
    gates *= 0.5
    np.multiply(gates[:, :size], kept[:, 2 * size :], out=new)
    new += given[:, 2 * size :]
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
    given = inputs @ of_input[0]
    given += of_input[1]
    kept = hidden @ of_hidden[0]
    kept += of_hidden[1]
    gates = np.empty_like(given[:, : 2 * hidden.shape[1]])
    new, following = np.empty_like(hidden), np.empty_like(hidden)
    _step(given, kept, hidden, gates, new, following)
    return following
