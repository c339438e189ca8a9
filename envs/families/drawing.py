"""A small canvas for pictures of the plane."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """A square picture of the plane [-extent, extent]^2, y up: ``pixels`` is ``[size, size, 3]``, uint8."""

    def __init__(self, size: int, extent: float) -> None:
        self.pixels = np.full((size, size, 3), 255, dtype=np.uint8)
        self._size = size
        self._extent = extent
        axis = (np.arange(size) + 0.5) / size * 2 * extent - extent
        self._x, self._y = np.meshgrid(axis, -axis)

    def disc(self, centre: NDArray[Any], radius: float, colour: Colour) -> None:
        """Fill a disc; centre and radius in units of the plane."""
        self.pixels[(self._x - centre[0]) ** 2 + (self._y - centre[1]) ** 2 <= radius**2] = colour

    def box(self, low: Point, high: Point, colour: Colour) -> None:
        """Fill a rectangle between two corners, in units of the plane."""
        inside = (self._x >= low[0]) & (self._x <= high[0]) & (self._y >= low[1]) & (self._y <= high[1])
        self.pixels[inside] = colour

    def line(self, points: NDArray[Any], colour: Colour) -> None:
        """Draw a line two pixels wide through ``points [point, 2]``; what lies outside the picture is cut off."""
        pixel = 2 * self._extent / self._size
        for start, end in pairwise(points):
            count = int(np.ceil(np.abs(end - start).max() / pixel)) * 2 + 1
            along = start + np.linspace(0.0, 1.0, count)[:, None] * (end - start)
            columns = np.floor((along[:, 0] + self._extent) / pixel).astype(int)
            rows = np.floor((self._extent - along[:, 1]) / pixel).astype(int)
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                r, c = rows + down, columns + right
                inside = (r >= 0) & (r < self._size) & (c >= 0) & (c < self._size)
                self.pixels[r[inside], c[inside]] = colour
