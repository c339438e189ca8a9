"""The value function of a policy with memory: a perceptron on the memory and, in training, on the task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents import Parameters
from metarl.agents.seeded import Seeded

HIDDEN, LAST = "value_net.0", "value_net.2"  # the layers
CENTRE, SCALE = "value_centre", "value_scale"  # the units of the last layer's output


def new_value_head(memory: int, task: int, seed: int) -> Parameters:
    """Return the initial parameters of a value function with one hidden layer, as wide as the memory.

    Args:
        memory: the size of the memory.
        task: the length of a task's vector; 0 if the value function is not told the task.
        seed: of the weights.
    """
    with Seeded(seed):
        hidden, last = nn.Linear(memory + task, memory), nn.Linear(memory, 1)
        nn.init.xavier_uniform_(hidden.weight)
        nn.init.xavier_uniform_(last.weight, gain=0.1)
    return {
        f"{name}.{kind}": (getattr(layer, kind) if kind == "weight" else torch.zeros(layer.out_features))
        .detach()
        .float()
        for name, layer in ((HIDDEN, hidden), (LAST, last))
        for kind in ("weight", "bias")
    }


def standard_values(head: Parameters, memory: Tensor, tasks: Tensor) -> Tensor:
    """Return the values of steps ``[row]``, in units of ``CENTRE`` and ``SCALE``.

    Args:
        head: parameters.
        memory: ``[row, memory]``, after the steps' observations.
        tasks: ``[row, number]``, the task of each row's trial; no numbers if the value function is not told it.
    """
    hidden = nn.functional.linear(torch.cat([memory, tasks], dim=1), head[f"{HIDDEN}.weight"], head[f"{HIDDEN}.bias"])
    values: Tensor = nn.functional.linear(torch.tanh(hidden), head[f"{LAST}.weight"], head[f"{LAST}.bias"])
    return values[:, 0]


def rescaled(head: Parameters, units: Parameters, returns: Tensor, share: float) -> tuple[Parameters, Parameters]:
    """Return the value function in the units of more returns, without a change of its values; and these units.

    Source: van Hasselt et al. 2016 (Pop-Art), equations 4 to 6.

    Args:
        head: parameters.
        units: ``CENTRE`` and ``SCALE`` so far, the running mean and deviation of returns.
        returns: ``[row]``.
        share: of the new returns in the running numbers.
    """
    centre, scale = units[CENTRE], units[SCALE]
    second = (1.0 - share) * (scale.square() + centre.square()) + share * returns.square().mean()
    after = (1.0 - share) * centre + share * returns.mean()
    # Returns without any spread have no unit of their own; a small one would blow rounding errors up.
    spread = (second - after.square()).clamp(min=0.0).sqrt()
    following = torch.maximum(spread, 1e-3 * (1.0 + after.abs()))
    weight, bias = head[f"{LAST}.weight"], head[f"{LAST}.bias"]
    moved = {
        **head,
        f"{LAST}.weight": weight * (scale / following),
        f"{LAST}.bias": (scale * bias + centre - after) / following,
    }
    return moved, {CENTRE: after, SCALE: following}
