"""Parameters as flat vectors: the tensors one after another, in the order of the policy's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metarl.agents import Parameters


def flatten(parts: Iterable[Tensor]) -> Tensor:
    """Return tensors as one flat vector, ``[parameter]``."""
    return torch.cat([part.reshape(-1) for part in parts])


def flatten_tasks(parameters: Parameters) -> Tensor:
    """Return stacked parameters as ``[task, parameter]``."""
    return torch.cat([part.flatten(1) for part in parameters.values()], dim=1)


def named(shapes: Mapping[str, torch.Size], vector: Tensor) -> Parameters:
    """Return vectors ``[..., parameter]`` as parameters by name, with the same leading axes; the memory is shared."""
    parts = torch.split(vector, [shape.numel() for shape in shapes.values()], dim=-1)
    leading = vector.shape[:-1]
    return {name: part.reshape(*leading, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def one_task(parameters: Parameters) -> Parameters:
    """Return shared parameters as the stacked parameters of a single task."""
    return {name: value[None] for name, value in parameters.items()}


def task_parameters(parameters: Parameters, task: int) -> Parameters:
    """Return one task's parameters from stacked ones."""
    return {name: value[task] for name, value in parameters.items()}
