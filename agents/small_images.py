"""Policies for images below 36 x 36 pixels, which stable-baselines3's network needs, and for images with words."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

FILTERS, WIDTH = 16, 64
CELL = 24  # numbers that a cell becomes where words are read too


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
    """Images whose cells are read in the light of words: feature-wise linear modulation (FiLM, Perez et al. 2018).

    Each cell of an image becomes 24 numbers, ``z``. The counts of words, and whatever else there is, become a factor
    ``1 + gamma`` and a term ``beta`` for each of them, the sums of the words' embeddings. Then the cells'
    ``relu((1 + gamma) z + beta)`` become 64 features. Adding up what is seen and what is said, in place of multiplying,
    takes several times as many steps until words mean something.

    Args:
        observation_space: a Dict of images with channels first and of other boxes.

    Raises:
        ValueError: it is none, or it has no image or nothing but images.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
        images = {key: part.shape for key, part in parts.items() if part.shape and len(part.shape) == 3}
        if not images or len(images) == len(parts):
            raise ValueError(
                "WordsPolicy takes a Dict of images and of counts of words, and the observations are "
                f"{observation_space}; use MultiInputPolicy"
            )
        super().__init__(observation_space, WIDTH * len(images))
        self.words = [key for key in parts if key not in images]
        said = sum(spaces.flatdim(parts[key]) for key in self.words)
        self.cells = nn.ModuleDict({key: nn.Conv2d(shape[0], CELL, 1) for key, shape in images.items()})
        self.meanings = nn.ModuleDict({key: nn.Linear(said, 2 * CELL, bias=False) for key in images})
        self.after = nn.ModuleDict(
            {
                key: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(CELL * height * width, WIDTH), nn.ReLU())
                for key, (_, height, width) in images.items()
            }
        )

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return the features ``[row, 64 * images]``."""
        said = torch.cat([observations[key].flatten(1) for key in self.words], dim=1)
        found = []
        for key, cells in self.cells.items():
            gamma, beta = self.meanings[key](said)[..., None, None].chunk(2, dim=1)
            found.append(self.after[key]((1.0 + gamma) * cells(observations[key]) + beta))
        return torch.cat(found, dim=1)


class WordsPolicy(MultiInputActorCriticPolicy):
    """As ``MultiInputPolicy``, with ``WordsAndImage`` as features extractor."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"features_extractor_class": WordsAndImage, **settings})
