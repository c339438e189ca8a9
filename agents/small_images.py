"""A policy for images too small for stable-baselines3's convolutional network, which needs 36 x 36 pixels."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

FILTERS, WIDTH = 16, 64


class SmallCnn(BaseFeaturesExtractor):
    """One layer of 16 filters of 3 x 3 pixels and one of 64 features, as in Young and Tian 2019.

    Args:
        observation_space: images with channels first, at least 3 x 3.

    Raises:
        ValueError: the observations are no such images.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        shape = observation_space.shape or ()
        if not isinstance(observation_space, spaces.Box) or len(shape) != 3 or min(shape[1:]) < 3:
            raise ValueError(
                f"SmallCnnPolicy takes images, boxes of the shape (channels, height, width) of at least 3 x 3 pixels, "
                f"and the observations are {observation_space}; use MlpPolicy or MultiInputPolicy"
            )
        super().__init__(observation_space, WIDTH)
        channels, height, width = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, FILTERS, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(FILTERS * (height - 2) * (width - 2), WIDTH),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features ``[row, 64]`` of images ``[row, channel, height, width]``."""
        features: Tensor = self.layers(observations)
        return features


class SmallCnnPolicy(ActorCriticPolicy):
    """As ``CnnPolicy``, with ``SmallCnn`` as features extractor."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"features_extractor_class": SmallCnn, **settings})
