"""Two families that are slow to step, for the benchmarks: one with images, one that keeps a core busy."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

SIDE = 64  # pixels
STEPS = 50
BUSY_SECONDS = 100e-6


class Spot(gymnasium.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """A bright spot on an image of 64 x 64 pixels; the reward is minus its distance from a hidden place.

    The task is that place, in [-1, 1] x [-1, 1]; an action moves the spot by at most 0.1; 50 steps.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self) -> None:
        self.task_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._task = np.zeros(2, dtype=np.float32)
        self._at = np.zeros(2)
        self._t = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode with the spot in the middle."""
        super().reset(seed=seed)
        if options and options.get("task") is not None:
            self._task = np.asarray(options["task"], dtype=np.float32)
        self._at = np.zeros(2)
        self._t = 0
        return self._image(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Move the spot."""
        self._at = np.clip(self._at + 0.1 * np.clip(action, -1.0, 1.0), -1.0, 1.0)
        self._t += 1
        reward = -float(np.linalg.norm(self._at - self._task))
        return self._image(), reward, self._t == STEPS, False, {}

    def _image(self) -> NDArray[np.uint8]:
        image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        row, column = ((self._at + 1.0) / 2.0 * (SIDE - 6)).astype(int)
        image[row : row + 6, column : column + 6] = 255
        return image


class Busy(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A step takes 100 microseconds of processor time; the reward is the task times the action; 50 steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self) -> None:
        self.task_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (20,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (6,), np.float32)
        self._task = np.zeros(1, dtype=np.float32)
        self._t = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        if options and options.get("task") is not None:
            self._task = np.asarray(options["task"], dtype=np.float32)
        self._t = 0
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Use processor time, then return the reward."""
        end = time.thread_time() + BUSY_SECONDS
        while time.thread_time() < end:
            pass
        self._t += 1
        return self._observe(), float(self._task[0] * action[0]), self._t == STEPS, False, {}

    def _observe(self) -> NDArray[np.float32]:
        return np.full(20, self._t / STEPS, dtype=np.float32)


for _name in ("Spot", "Busy"):
    if f"bench/{_name}-v0" not in gymnasium.registry:  # in a worker, the family is registered before this import
        gymnasium.register(id=f"bench/{_name}-v0", entry_point=f"{__name__}:{_name}")
