"""A family whose ``info`` tells of success: in the second of three steps of a positive task."""

from __future__ import annotations

from typing import Any

import gymnasium
from toy_families import SignEnv


class Telling(SignEnv):
    """Tells under a name of ``info``.

    Args:
        name: under which.
        arguments: of the family.
    """

    def __init__(self, name: str = "success", **arguments: Any) -> None:
        super().__init__(**arguments)
        self._name = name
        self._steps = 0
        self._positive = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        if options and options.get("task") is not None:
            self._positive = bool(options["task"][0] > 0)
        self._steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._steps += 1
        told = {self._name: self._positive and self._steps == 2}
        return observation, reward, terminated, truncated, {**info, **told}


if "telling/Sign-v0" not in gymnasium.registry:
    gymnasium.register(id="telling/Sign-v0", entry_point="telling:Telling")
