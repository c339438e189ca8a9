"""Policies for images below 36 x 36 pixels, which stable-baselines3's network needs, and for images with words."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
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


class WordsAndImage(BaseFeaturesExtractor):
    """``SmallCnn`` for the images of a dict; for its counts of words, the sum of the words' embeddings.

    Args:
        observation_space: a Dict of images with channels first and of other boxes.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        if not isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"WordsPolicy takes a Dict of images and counts, and the observations are {observation_space}"
            )
        super().__init__(observation_space, WIDTH * len(observation_space.spaces))
        self.parts = nn.ModuleDict(
            {
                key: SmallCnn(part)
                if len(part.shape or ()) == 3
                else nn.Sequential(nn.Flatten(), nn.Linear(spaces.flatdim(part), WIDTH, bias=False))
                for key, part in observation_space.spaces.items()
            }
        )

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return the features ``[row, 64 * entries]``."""
        return torch.cat([part(observations[key]) for key, part in self.parts.items()], dim=1)


class WordsPolicy(MultiInputActorCriticPolicy):
    """As ``MultiInputPolicy``, with ``WordsAndImage`` as features extractor."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"features_extractor_class": WordsAndImage, **settings})
