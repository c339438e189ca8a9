"""Observations: an array, or a dict of arrays for a Dict space; and images with channels first, for the networks.

``Observations`` are tensors ``[..., *obs]`` with the same leading axes, in the observation space's own type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from torch import Tensor

Observations = Tensor | dict[str, Tensor]


def map_observations(function: Callable[..., Any], *observations: Any) -> Any:
    """Return ``function(*observations)``, key by key if they are dicts."""
    if isinstance(observations[0], dict):
        return {key: function(*(part[key] for part in observations)) for key in observations[0]}
    return function(*observations)


def parts(observations: Any) -> list[Any]:
    """Return the arrays of observations as a list."""
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def subspaces(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """Return the spaces of a Dict space by key; any other space under the key ``""``."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def channels_first(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space of the networks' observations: images with channels first, as in stable-baselines3."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: channels_first(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Box) and _has_channels_last(space):
        height, width, channels = space.shape
        return spaces.Box(0, 255, (channels, height, width), space.dtype.type)
    return space


def transpose_images(space: spaces.Space[Any], observations: Any) -> Any:
    """Return a batch of observations ``[..., *obs]`` of ``space`` in the layout of ``channels_first(space)``."""
    if isinstance(space, spaces.Dict):
        return {key: transpose_images(part, observations[key]) for key, part in space.spaces.items()}
    return np.moveaxis(observations, -1, -3) if _has_channels_last(space) else observations


def _has_channels_last(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space)
