"""The policy for small images: what it takes, and that its features depend on every pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl import MAML
from metarl.agents.small_images import SmallCnn


def test_features_depend_on_every_pixel() -> None:
    torch.manual_seed(0)
    network = SmallCnn(spaces.Box(0.0, 1.0, (2, 5, 4), np.float32))
    images = torch.rand(3, 2, 5, 4, requires_grad=True)
    features = network(images)
    assert features.shape == (3, 64)
    (gradient,) = torch.autograd.grad(features.sum(), images)
    assert (gradient != 0).all(dim=0).sum() >= 30  # some rectified units are off


def test_other_observations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"SmallCnnPolicy takes images, .* of at least 3 x 3 pixels"):
        MAML("SmallCnnPolicy", "metarl/Navigation2D-v0")
