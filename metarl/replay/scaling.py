"""Sizes of pictures: small ones are enlarged pixel by pixel, large ones reduced."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PANEL = 240  # width and height that a picture has at most


def fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture ``[height, width, 3]`` as large as a panel allows, in its own proportions."""
    height, width = picture.shape[:2]
    factor = PANEL / max(height, width)
    if factor >= 2:
        # By a whole number, so that the pixels of a grid world stay squares.
        return picture.repeat(int(factor), axis=0).repeat(int(factor), axis=1)
    if factor >= 1:
        return np.array(picture)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.LANCZOS))
