"""Low-rank updates of linear and convolutional layers (LoRA, Hu et al. 2021, equation 3): ``W' = W + B A``.

``W`` is frozen; ``A`` and ``B`` are trained and adapt. These layers do not compute the product ``B A``: a task
has only ``rank * (inputs + outputs)`` numbers of its own for a layer. ``B`` is 0 at first.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.frozen.trained import is_critic
from metarl.agents.seeded import Seeded

A, B = "lora_a", "lora_b"


class LoraLinear(nn.Linear):
    """A linear layer with a low-rank update.

    Args:
        layer: whose weights are taken.
        rank: of the update.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.load_state_dict(layer.state_dict())
        bound = layer.in_features**-0.5
        self.lora_a = nn.Parameter(torch.empty(rank, layer.in_features).uniform_(-bound, bound))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        low = nn.functional.linear(nn.functional.linear(given, self.lora_a), self.lora_b)
        return super().forward(given) + low

    def merged(self) -> nn.Linear:
        """Return the plain layer with the updated weights."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        state = {"weight": self.weight + self.lora_b @ self.lora_a}
        plain.load_state_dict(state if self.bias is None else {**state, "bias": self.bias})
        return plain


class LoraConv2d(nn.Conv2d):
    """A convolution with a low-rank update: a convolution to ``rank`` channels, and from them one of 1 x 1.

    Args:
        layer: whose weights are taken, without groups.
        rank: of the update.
    """

    def __init__(self, layer: nn.Conv2d, rank: int) -> None:
        super().__init__(**convolution_arguments(layer))
        self.load_state_dict(layer.state_dict())
        inputs = layer.weight[0].numel()
        self.lora_a = nn.Parameter(torch.empty(rank, *layer.weight.shape[1:]).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_channels, rank, 1, 1))

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        narrow = self._conv_forward(given, self.lora_a, None)
        return super().forward(given) + nn.functional.conv2d(narrow, self.lora_b)

    def merged(self) -> nn.Conv2d:
        """Return the plain layer with the updated weights."""
        plain = nn.Conv2d(**convolution_arguments(self))
        update = torch.einsum("or,rikl->oikl", self.lora_b[:, :, 0, 0], self.lora_a)
        state = {"weight": self.weight + update}
        plain.load_state_dict(state if self.bias is None else {**state, "bias": self.bias})
        return plain


def convolution_arguments(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments that make a convolution of the same shape."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
    return {**{name: getattr(layer, name) for name in names}, "bias": layer.bias is not None}


def _fits(part: nn.Module) -> bool:
    return type(part) is nn.Linear or (type(part) is nn.Conv2d and part.groups == 1)


def _most(part: nn.Module) -> int:
    """Return the largest rank of an update that is of lower rank than the layer."""
    weight = part.weight
    assert isinstance(weight, Tensor)
    return min(weight.shape[0], weight[0].numel())


def actor_layers(module: ActorCriticPolicy) -> dict[str, nn.Module]:
    """Return the layers of a policy's actor that can have a low-rank update, by name."""
    return {name: part for name, part in module.named_modules() if _fits(part) and not is_critic(f"{name}.")}


def add_lora(module: ActorCriticPolicy, rank: int, layers: Sequence[str], seed: int) -> ActorCriticPolicy:
    """Return a copy of a policy with low-rank updates of the actor's layers.

    Args:
        module: the policy.
        rank: of the updates.
        layers: names and patterns of layers; none for all in which an update of this rank is smaller than the layer.
        seed: of the initial A.

    Raises:
        ValueError: a pattern matches no layer, or the rank is too large for one.
    """
    changed = copy.deepcopy(module)
    known = actor_layers(changed)
    chosen = [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in layers)]
    for pattern in layers:
        if not fnmatch.filter(known, pattern):
            raise ValueError(
                f"policy.lora_layers names {pattern!r}, which matches no linear or convolutional layer of the actor; "
                f"it has {', '.join(known) or 'none'}"
            )
    if not layers:
        chosen = [name for name, part in known.items() if rank < _most(part)]
    for name in chosen:
        if rank > _most(known[name]):
            raise ValueError(
                f"policy.lora_rank is {rank}, larger than the rank of layer {name!r}, which is {_most(known[name])}; "
                "choose a smaller one, or other layers with policy.lora_layers"
            )
    if not chosen:
        raise ValueError(
            f"policy.lora_rank is {rank}, and no layer of the actor is larger than that: "
            f"{', '.join(f'{name} has {_most(part)}' for name, part in known.items()) or 'it has none'}"
        )
    with Seeded(seed):
        for name in chosen:
            part = known[name]
            if isinstance(part, nn.Linear):
                replace_part(changed, name, LoraLinear(part, rank))
            elif isinstance(part, nn.Conv2d):
                replace_part(changed, name, LoraConv2d(part, rank))
    return changed


def lora_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers with low-rank updates."""
    return [name for name, part in module.named_modules() if isinstance(part, LoraLinear | LoraConv2d)]


def replace_part(module: nn.Module, name: str, part: nn.Module) -> None:
    """Replace a part of a module by its name, wherever the module holds the same part."""
    old = module.get_submodule(name)
    for found, child in list(module.named_modules(remove_duplicate=False)):
        if child is old:
            holder, _, key = found.rpartition(".")
            setattr(module.get_submodule(holder), key, part)
