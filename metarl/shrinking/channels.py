"""Structured pruning of convolutional features extractors: channels that matter least, and the network without them.

A channel, or a feature of a linear layer, matters as much as a neuron does (``metarl.shrinking.neurons``): the
Euclidean norm of the weights that make it times that of the weights that read it, relative to its layer (after Li et
al. 2017). The features at the end are read by the first layer of the actor. What a channel always adds, its activation
where its inputs are 0, is moved to the biases of the layers that read it, which is exact but where convolutions pad
with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from torch import Tensor, nn

from metarl.agents.frozen.extractors import ModuleExtractor
from metarl.agents.frozen.lora import replace_part
from metarl.agents.frozen.merged import changed_layers
from metarl.agents.frozen.narrow import (
    NarrowExtractor,
    Weighted,
    activation_after,
    features_after,
    row_of_layers,
    weighted,
)
from metarl.agents.frozen.packed import copied
from metarl.agents.small_images import SmallCnn
from metarl.shrinking.neurons import Scope, kept_neurons

NARROW = "metarl.agents.frozen.narrow:NarrowExtractor"
_BY_PATH = (NatureCNN, SmallCnn, ModuleExtractor)  # which files name, so that they are found again


def without_channels(
    policy: ActorCriticPolicy, amount: float, scope: Scope, given: Mapping[str, Any] | None = None
) -> tuple[ActorCriticPolicy, dict[str, Any]]:
    """Return a copy of a policy without the least important channels of its features extractor, and that's arguments.

    Args:
        policy: with a convolutional features extractor that the actor and the value function share.
        amount: the share of channels and features that go.
        scope: the least important of all layers together, or the same share of each layer.
        given: ``features_extractor_class`` and ``features_extractor_kwargs`` as the user gave them, if so.

    Raises:
        ValueError: the policy has no such extractor.
    """
    if not policy.share_features_extractor:
        raise ValueError(
            "the value function has a features extractor of its own (share_features_extractor=False), whose channels "
            "are not pruned; leave share_features_extractor out"
        )
    if changed_layers(policy):
        raise ValueError(
            "channels of layers with low-rank updates or pruned weights are not pruned; Prune(learner.policy) prunes "
            "the policy without them"
        )
    pruned = copied(policy)
    extractor = pruned.features_extractor
    leaves = row_of_layers(extractor, policy.observation_space)
    layers = weighted(leaves)
    heads = _first_layers(pruned)
    kept = kept_neurons(_importance(layers, heads[0], features_after(layers[-1], extractor)), amount, scope)
    with torch.no_grad():
        for number, (layer, stays) in enumerate(zip(layers, kept, strict=True)):
            readers = [layers[number + 1]] if number + 1 < len(layers) else heads
            always = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().cpu()
            for activation in activation_after(layer, leaves):
                always = activation(always)
            for reader in readers:
                _read_less(reader, always, stays)
            _set(layer, layer.weight[stays], None if layer.bias is None else layer.bias[stays])
    arguments = {**_inner(extractor, given), "widths": [len(stays) for stays in kept]}
    narrow = NarrowExtractor(policy.observation_space, **arguments).to(policy.device)
    inner = extractor.inner if isinstance(extractor, NarrowExtractor) else extractor
    narrow.inner.load_state_dict(inner.state_dict())
    replace_part(pruned, "features_extractor", narrow)
    pruned.features_dim = narrow.features_dim
    pruned.features_extractor_class, pruned.features_extractor_kwargs = NarrowExtractor, arguments
    pruned.optimizer = pruned.optimizer_class(
        pruned.parameters(), lr=policy.optimizer.param_groups[0]["lr"], **pruned.optimizer_kwargs
    )  # type: ignore[call-arg]
    return pruned, arguments


def _inner(extractor: nn.Module, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the class, by its path where it is metarl's or stable-baselines3's, and arguments of an extractor."""
    if isinstance(extractor, NarrowExtractor):
        return dict(extractor.given)
    kind = type(extractor)
    if isinstance(extractor, ModuleExtractor):
        return {"inner": type(extractor.module), "inner_kwargs": {}, **(given or {})}
    path = f"{kind.__module__}:{kind.__qualname__}"
    return {"inner": path if kind in _BY_PATH else kind, "inner_kwargs": {}, **(given or {})}


def _first_layers(policy: ActorCriticPolicy) -> list[nn.Linear]:
    """Return the layers of actor and value function that read the features."""
    found = []
    for hidden, last in (("policy_net", policy.action_net), ("value_net", policy.value_net)):
        layers = [part for part in getattr(policy.mlp_extractor, hidden).modules() if isinstance(part, nn.Linear)]
        first = layers[0] if layers else last
        if not isinstance(first, nn.Linear) or first.in_features != policy.features_dim:
            raise ValueError(
                f"the features are read by a {type(first).__name__}, so that none of them is pruned; expected hidden "
                "layers (net_arch) or none"
            )
        found.append(first)
    return found


def _importance(layers: Sequence[Weighted], head: nn.Linear, positions: int) -> list[Tensor]:
    """Return how much each channel of each layer matters, ``[channel]``, 1 on average in a layer."""
    found = []
    for number, layer in enumerate(layers):
        reader = layers[number + 1] if number + 1 < len(layers) else head
        made = layer.weight.detach().flatten(1).norm(dim=1)
        product = (made * _by_channel(reader, len(made)).norm(dim=(0, 2))).cpu()
        found.append(product / product.mean().clamp(min=torch.finfo(product.dtype).tiny))
    return found


def _by_channel(reader: Weighted, channels: int) -> Tensor:
    """Return the weights with which a layer reads channels, ``[output, channel, place]``."""
    return reader.weight.detach().reshape(len(reader.weight), channels, -1)


def _read_less(reader: Weighted, always: Tensor, stays: Tensor) -> None:
    """Let a layer read only some channels, and add to its bias what the others always add."""
    by_channel = _by_channel(reader, len(always))
    gone = torch.ones(len(always), dtype=torch.bool)
    gone[stays] = False
    bias = reader.bias
    if bias is not None:
        bias = bias + by_channel[:, gone].sum(dim=2) @ always[gone].to(bias.device)
    left = by_channel[:, stays]
    _set(reader, left.flatten(1) if isinstance(reader, nn.Linear) else reader.weight[:, stays], bias)


def _set(layer: Weighted, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer other weights, of whatever shape."""
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    else:
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
