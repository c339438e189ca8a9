"""Features extractors with fewer channels than their class makes: a plain row of layers, of which some are narrower."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from metarl.agents.frozen.extractors import ARGUMENTS, CLASS, with_extractor
from metarl.agents.frozen.lora import convolution_arguments, replace_part
from metarl.agents.observations import map_observations

# Layers that treat each number, and each channel, by itself.
ACTIVATIONS = (
    nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Sigmoid, nn.ReLU6, nn.Softplus, nn.Mish, nn.Identity,
)  # fmt: skip
_BY_CHANNEL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
Weighted = nn.Conv2d | nn.Linear


class NarrowExtractor(BaseFeaturesExtractor):
    """A features extractor that is a plain row of layers, with other numbers of outputs than its class gives them.

    Args:
        observation_space: of the policy, images with channels first.
        inner: the class of the extractor, any ``torch.nn.Module``, or its import path ``module:Class``.
        inner_kwargs: its arguments.
        widths: the numbers of outputs (channels) of its convolutional and linear layers.

    Raises:
        ValueError: it is no plain row of layers, or has another number of them.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        inner: Any,
        inner_kwargs: dict[str, Any] | None = None,
        widths: Sequence[int] = (),
    ) -> None:
        nn.Module.__init__(self)
        made = with_extractor({CLASS: inner, ARGUMENTS: inner_kwargs or {}})
        extractor = made[CLASS](observation_space, **made[ARGUMENTS])
        layers = weighted(row_of_layers(extractor, observation_space))
        if len(widths) != len(layers) or min(widths, default=0) < 1:
            raise ValueError(f"widths is {list(widths)}; expected {len(layers)} numbers from 1 on, one for each layer")
        before = features_after(layers[-1], extractor)
        super().__init__(observation_space, before * widths[-1])
        self.inner, self.given = extractor, {"inner": inner, "inner_kwargs": dict(inner_kwargs or {})}
        names = {part: name for name, part in extractor.named_modules()}
        old = new = 0
        for layer, width in zip(layers, widths, strict=True):
            inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            own = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            replace_part(extractor, names[layer], _narrower(layer, inputs // old * new if old else inputs, width))
            old, new = own, width

    def forward(self, observations: Any) -> Tensor:
        """Return the features ``[row, feature]``."""
        features: Tensor = self.inner(observations)
        return features


def _narrower(layer: Weighted, inputs: int, outputs: int) -> Weighted:
    """Return a new layer of another width."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, bias=layer.bias is not None)
    return nn.Conv2d(**{**convolution_arguments(layer), "in_channels": inputs, "out_channels": outputs})


def features_after(layer: Weighted, extractor: nn.Module) -> int:
    """Return how many features each output of the last layer becomes."""
    own = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return int(extractor.features_dim) // own  # type: ignore[arg-type]


def weighted(leaves: Sequence[nn.Module]) -> list[Weighted]:
    """Return the convolutional and linear ones of layers."""
    return [leaf for leaf in leaves if isinstance(leaf, nn.Conv2d | nn.Linear)]


def row_of_layers(extractor: nn.Module, space: spaces.Space[Any]) -> list[nn.Module]:
    """Return the layers of a features extractor that runs one after the other, each once.

    Args:
        extractor: of stable-baselines3's kind.
        space: of observations, images with channels first.

    Raises:
        ValueError: it computes something else, has no convolution, or layers whose channels depend on each other.
    """
    leaves = [part for part in extractor.modules() if not list(part.children())]
    described = f"the features extractor {type(extractor).__name__}"
    first = next((place for place, leaf in enumerate(leaves) if isinstance(leaf, nn.Conv2d | nn.Linear)), 0)
    known = (nn.Conv2d, nn.Linear, nn.Flatten, *ACTIVATIONS, *_BY_CHANNEL)
    for leaf in leaves[first:]:
        if type(leaf) not in known or (isinstance(leaf, nn.Conv2d) and leaf.groups != 1):
            raise ValueError(
                f"{described} has a layer {type(leaf).__name__}, whose channels are not pruned; expected convolutions "
                "without groups, linear layers, activations and pooling"
            )
    if not any(isinstance(leaf, nn.Conv2d) for leaf in leaves):
        raise ValueError(f"{described} has no convolutions, so no channels to prune; expected CnnPolicy or the like")
    if not _one_after_the_other(extractor, leaves, space):
        raise ValueError(f"{described} does not run its layers one after the other, so its channels are not pruned")
    return leaves


def _one_after_the_other(extractor: nn.Module, leaves: Sequence[nn.Module], space: spaces.Space[Any]) -> bool:
    """Return whether the layers in order compute what the extractor does, on a few random observations."""
    batch = batch_space(space, 2)
    batch.seed(0)
    given = map_observations(lambda part: torch.as_tensor(np.asarray(part)), batch.sample())
    seen = preprocess_obs(given, space, normalize_images=True)
    where = next(extractor.parameters()).device
    run = copy.deepcopy(extractor).cpu() if where.type != "cpu" else extractor
    if not isinstance(seen, Tensor):
        return False
    with torch.no_grad():
        found = seen
        for leaf in [part for part in run.modules() if not list(part.children())]:
            try:
                found = leaf(found)
            except RuntimeError:
                return False
        return found.flatten(1).shape == run(seen).shape and torch.allclose(found.flatten(1), run(seen))


def activation_after(layer: Weighted, leaves: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the activations between a layer and the next one with weights."""
    after = leaves[next(place for place, leaf in enumerate(leaves) if leaf is layer) + 1 :]
    until = itertools.takewhile(lambda leaf: not isinstance(leaf, nn.Conv2d | nn.Linear), after)
    return [leaf for leaf in until if isinstance(leaf, ACTIVATIONS)]
