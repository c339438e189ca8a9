"""Networks of one's own as features extractors, by import path too."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents import Policy, build_policy


class Wide(nn.Module):
    """Sixteen features of the numbers that an observation has.

    Args:
        width: of the layer before.
        numbers: of an observation.
    """

    def __init__(self, width: int = 8, numbers: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(numbers, width), nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 16))

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features as a table, ``[row, 4, 4]``."""
        return torch.tanh(self.layers(observations)).reshape(-1, 4, 4)


class NoRows(nn.Module):
    """Returns one number for all observations."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return it."""
        return observations.sum()


class Huge(nn.Module):
    """Features that half precision cannot hold."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return them."""
        return 1e6 + observations


class Whole(nn.Module):
    """Whole numbers as features."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return them."""
        return observations.long()


class AmongOthers(nn.Module):
    """Features that depend on the other observations."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return the differences from their mean."""
        return observations - observations.mean(dim=0, keepdim=True)


class Noise(nn.Module):
    """Features with random numbers."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return them."""
        return observations + torch.randn_like(observations)


class Pixels(nn.Module):
    """A convolution of images, whose observations may be in a dict.

    Args:
        key: of the image in a dict.
    """

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self.key = key
        self.convolution = nn.Conv2d(3, 4, 8, stride=6)

    def forward(self, observations: Any) -> Tensor:
        """Return the features."""
        found: Tensor = self.convolution(observations[self.key] if self.key else observations)
        return torch.relu(found)


def small_policy(space: spaces.Space[Any], **changes: Any) -> Policy:
    """Return a policy with one hidden layer and three choices, of which ``changes`` may be any argument."""
    usual: dict[str, Any] = {
        "name": "MlpPolicy",
        "seed": 1,
        "hidden_sizes": [4],
        "activation": "tanh",
        "output_gain": 1.0,
        "log_std_init": 0.0,
        "log_std_min": None,
    }
    return build_policy(space, spaces.Discrete(3), **{**usual, **changes})
