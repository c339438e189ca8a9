"""Unstructured pruning: linear and convolutional layers of which some weights are 0 and stay 0 (Han et al. 2015).

A layer computes with ``W * M`` with a mask M of zeros and ones, so that derivatives with respect to the weights where M
is 0 are 0, in inner updates and in meta-updates. The masks are buffers, which checkpoints hold.
"""

from __future__ import annotations

import copy

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.frozen.lora import actor_layers, convolution_arguments, replace_part

MASK = "mask"


class MaskedLinear(nn.Linear):
    """A linear layer with a mask of its weights."""

    mask: Tensor

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        _take(self, layer, mask)

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        return nn.functional.linear(given, self.weight * self.mask, self.bias)

    def merged(self) -> nn.Linear:
        """Return the plain layer with zeros in place of the weights that are masked."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.load_state_dict(_unmasked(self))
        return plain


class MaskedConv2d(nn.Conv2d):
    """A convolution with a mask of its weights."""

    mask: Tensor

    def __init__(self, layer: nn.Conv2d, mask: Tensor) -> None:
        super().__init__(**convolution_arguments(layer))
        _take(self, layer, mask)

    def forward(self, given: Tensor) -> Tensor:
        """Return the layer's output."""
        found: Tensor = self._conv_forward(given, self.weight * self.mask, self.bias)
        return found

    def merged(self) -> nn.Conv2d:
        """Return the plain layer with zeros in place of the weights that are masked."""
        plain = nn.Conv2d(**convolution_arguments(self))
        plain.load_state_dict(_unmasked(self))
        return plain


def _take(masked: MaskedLinear | MaskedConv2d, layer: nn.Module, mask: Tensor) -> None:
    masked.load_state_dict(layer.state_dict())
    masked.register_buffer(MASK, mask)
    with torch.no_grad():
        masked.weight *= mask


def _unmasked(masked: MaskedLinear | MaskedConv2d) -> dict[str, Tensor]:
    """Return the state of a plain layer that computes the same."""
    state = {name: value for name, value in masked.state_dict().items() if name != MASK}
    return {**state, "weight": masked.weight * masked.mask}


def masks(weights: dict[str, Tensor], amount: float, scope: str) -> dict[str, Tensor]:
    """Return masks of weights by name, 0 for those of least magnitude.

    Args:
        weights: by layer.
        amount: the share that becomes 0.
        scope: ``global``, the smallest of all layers together, or ``layer``, the same share of each layer.
    """
    if scope == "layer":
        return {name: _mask(weight, amount) for name, weight in weights.items()}
    together = _mask(torch.cat([weight.flatten() for weight in weights.values()]), amount)
    parts = torch.split(together, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def _mask(weight: Tensor, amount: float) -> Tensor:
    mask = torch.ones(weight.numel(), dtype=weight.dtype)
    mask[weight.detach().abs().flatten().argsort(stable=True)[: round(amount * weight.numel())]] = 0.0
    return mask.reshape(weight.shape)


def add_masks(module: ActorCriticPolicy, amount: float, scope: str) -> ActorCriticPolicy:
    """Return a copy of a policy of which a share of the actor's weights, those of least magnitude, is 0 for good.

    Args:
        module: the policy.
        amount: the share, below 1.
        scope: as for ``masks``.

    Raises:
        ValueError: the actor has no linear or convolutional layer, or one is left without weights.
    """
    changed = copy.deepcopy(module)
    known = actor_layers(changed)
    if not known:
        raise ValueError(f"policy.prune is {amount}, and the actor has no linear or convolutional layer; leave it out")
    found = masks({name: part.get_parameter("weight") for name, part in known.items()}, amount, scope)
    empty = [name for name, mask in found.items() if not mask.any()]
    if empty:
        raise ValueError(
            f"policy.prune is {amount}, which leaves layer {empty[0]!r} no weight, and so nothing of what is observed; "
            "take a smaller share, or policy.prune_scope = 'layer', which takes the same of each layer"
        )
    for name, part in known.items():
        if isinstance(part, nn.Linear):
            replace_part(changed, name, MaskedLinear(part, found[name]))
        elif isinstance(part, nn.Conv2d):
            replace_part(changed, name, MaskedConv2d(part, found[name]))
    return changed
