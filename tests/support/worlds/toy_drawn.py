"""Families that render, each in its own way."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from toy_families import SignEnv


class Drawn(SignEnv):
    """Draws the time as a grey square of 6 x 8 pixels; its constructor has no render_mode.

    Args:
        length: in steps.
        picture: what ``render`` returns: a right picture, or a wrong one.
        told: the success that ``info`` tells in each of the first steps; nothing after them.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, length: int = 3, picture: str = "right", told: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._length, self._picture, self._told = length, picture, told
        self.scale = 1.0

    def step(self, action: Any) -> Any:
        observation, _, _, _, info = super().step(action)
        told = {"success": self._told[self.time - 1]} if self.time <= len(self._told) else {}
        return observation, self.scale * self.time, self.time >= self._length, False, {**info, **told}

    def render(self) -> Any:
        right = np.full((6, 8, 3), min(self.time, 255), np.uint8)
        if self._picture == "raises":
            raise OSError("no display")
        pictures = {
            "right": right,
            "grey": right[..., 0],
            "with alpha": np.concatenate([right, right[..., :1]], axis=2),
            "large": np.full((500, 1000, 3), min(self.time, 255), np.uint8),
            "nothing": None,
            "numbers": right / 255.0,
            "empty": right[:0],
        }
        return pictures[self._picture]


class WithMode(Drawn):
    """Renders only if its constructor is told so."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return super().render() if self.render_mode == "rgb_array" else None


gymnasium.register("Drawn-v0", "toy_drawn:Drawn")
gymnasium.register("WithMode-v0", "toy_drawn:WithMode")
