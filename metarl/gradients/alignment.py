"""Tensors of several tasks of which each task's part begins at an aligned address, and products of them.

A product of matrices can differ in the last bit with the addresses at which its operands and its result begin. So each
task's begin at a multiple of ``ALIGNMENT`` bytes, and are computed alike whether a task is taken alone or with others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes


def aligned_length(shape: Sequence[int], axes: int, dtype: torch.dtype) -> int:
    """Return how many numbers ``aligned_view`` needs."""
    each = ALIGNMENT // dtype.itemsize
    return math.prod(shape[:-axes]) * -(-math.prod(shape[-axes:]) // each) * each


def aligned_view(held: Tensor, shape: Sequence[int], axes: int) -> Tensor:
    """Return a tensor of a shape in memory that is long enough, each task's last ``axes`` axes aligned."""
    own, tasks = math.prod(shape[-axes:]), math.prod(shape[:-axes])
    length = aligned_length(shape, axes, held.dtype)
    return held[:length].view(tasks, length // tasks)[:, :own].view(*shape[:-axes], *shape[-axes:])


def aligned(like: Tensor, shape: Sequence[int] | None = None, axes: int = 1) -> Tensor:
    """Return an uninitialised tensor of another's type, each task's last ``axes`` axes aligned.

    Args:
        like: whose type and device it has, and, where ``shape`` is not given, whose shape.
        shape: ``[...]``; with more than ``axes`` axes, the first is that of the tasks.
        axes: how many belong to one task.
    """
    shape = like.shape if shape is None else shape
    if like.device.type != "cpu" or len(shape) == axes:
        return like.new_empty(tuple(shape))
    return aligned_view(like.new_empty(aligned_length(shape, axes, like.dtype)), shape, axes)


def product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the product of matrices ``[..., row, column]``, in ``out`` where it is given."""
    if out is None and left.dim() > 2:
        out = aligned(left, (*left.shape[:-1], right.shape[-1]), axes=2)
    return torch.matmul(_aligned(left), _aligned(right), out=out)


def affine(bias: Tensor, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``bias + left right``, in ``out`` where it is given."""
    if left.dim() == 2:
        return torch.addmm(bias, left, right, out=out)
    if out is None:
        out = aligned(left, (*left.shape[:-1], right.shape[-1]), axes=2)
    return torch.baddbmm(bias, _aligned(left), _aligned(right), out=out)


def add_product(tensor: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left right`` to what is there."""
    if tensor.dim() == 2:
        tensor.addmm_(left, right)
    else:
        tensor.baddbmm_(_aligned(left), _aligned(right))


def _aligned(matrices: Tensor) -> Tensor:
    """Return matrices as they are where each task's is as aligned as the first one's, else copies, laid out alike."""
    if matrices.dim() == 2 or matrices.device.type != "cpu":
        return matrices
    if len(matrices) == 1 or matrices.stride(0) * matrices.dtype.itemsize % ALIGNMENT == 0:
        return matrices
    if matrices.stride(-2) == 1 and matrices.stride(-1) != 1:
        return aligned(matrices, matrices.mT.shape, axes=2).copy_(matrices.mT).mT
    return aligned(matrices, matrices.shape, axes=2).copy_(matrices)
