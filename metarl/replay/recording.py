"""Pictures of an episode, as many as a file can hold, and what was counted while it was played."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from metarl.envs import make
from metarl.envs.families.constructors import takes_render_mode
from metarl.envs.registry import find_family
from metarl.envs.sync import error_text
from metarl.replay.scaling import fitted
from metarl.settings import Settings

MODE = "rgb_array"


@dataclass(frozen=True)
class Episode:
    """An episode as it was played, with pictures of some of its steps.

    Attributes:
        name: which point of adaptation it was played at, in words.
        frames: the pictures, ``[picture, height, width, 3]``, uint8; enlarged or reduced to a size for a panel.
        steps: ``[picture]``, how many steps of the episode were taken before each picture; the first is 0, and the
            last the episode's end.
        every: each picture but the last one is of so many steps after the one before it.
        rewards: ``[step]``.
        success: ``[step]``, whether the episode counts as a success after each step; None where ``info`` never told.
        cut: whether it was stopped before its end.
    """

    name: str
    frames: NDArray[np.uint8]
    steps: tuple[int, ...]
    every: int
    rewards: NDArray[np.float64]
    success: NDArray[np.bool_] | None
    cut: bool

    @property
    def length(self) -> int:
        """The number of its steps."""
        return len(self.rewards)

    def picture_at(self, step: int) -> NDArray[np.uint8]:
        """Return the latest picture after at most so many steps."""
        picture: NDArray[np.uint8] = self.frames[bisect.bisect_right(self.steps, step) - 1]
        return picture

    def return_at(self, step: int) -> float:
        """Return the sum of the rewards of the first ``step`` steps."""
        return float(self.rewards[:step].sum())

    def success_at(self, step: int) -> bool:
        """Return whether it counts as a success after so many steps."""
        return self.success is not None and step > 0 and bool(self.success[min(step, self.length) - 1])


class Recorder:
    """Keeps at most ``most`` pictures of an episode, evenly spread, and that of its end.

    As long as an episode lasts nobody knows how long it will be. So every step is drawn at first, and whenever there
    are too many pictures, every other one is dropped and from then on only half as many steps are drawn.

    Args:
        draw: returns the picture of the current step.
        most: the number of pictures, at least 2.
    """

    def __init__(self, draw: Callable[[], NDArray[np.uint8]], most: int) -> None:
        self._draw = draw
        self._most = most
        self._kept: list[tuple[int, NDArray[np.uint8]]] = []
        self.every = 1

    def see(self, step: int, *, last: bool = False) -> None:
        """Draw the environment after ``step`` steps, if this one is to be kept."""
        if step % self.every != 0 and not last:
            return
        self._kept.append((step, self._draw()))
        while len(self._kept) > self._most:
            self.every *= 2
            final = self._kept[-1] if last else None
            self._kept = [kept for kept in self._kept if kept[0] % self.every == 0 and kept is not final]
            self._kept += [] if final is None else [final]

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The pictures, ``[picture, height, width, 3]``."""
        return np.stack([picture for _, picture in self._kept])

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of the pictures."""
        return tuple(step for step, _ in self._kept)


def refuse_undrawn(env: gymnasium.Env[Any, Any], family: str) -> None:
    """Refuse an environment that does not render as arrays.

    Raises:
        ValueError: it does not.
    """
    modes = (getattr(env, "metadata", None) or {}).get("render_modes") or []
    if MODE not in modes:
        named = f"its metadata['render_modes'] is {list(modes)!r}, without {MODE!r}"
        raise ValueError(
            f"{family} does not render, so there is nothing to show: {named}; 'metarl evaluate' and 'metarl picture' "
            "show how it adapts"
        )


def drawn_env(settings: Settings, task: Any) -> gymnasium.Env[Any, Any]:
    """Return an environment of a run's family that plays ``task`` and renders.

    Raises:
        ValueError: it cannot be made.
    """
    arguments = {**settings.family_kwargs, "disable_env_checker": True}
    if takes_render_mode(find_family(settings.family)):
        arguments["render_mode"] = MODE
    env: gymnasium.Env[Any, Any] = make(settings.family, task=task, **arguments)
    return env


def picture_of(env: gymnasium.Env[Any, Any], family: str) -> NDArray[np.uint8]:
    """Return the picture that an environment draws of its current step, in a size for a panel.

    Raises:
        ValueError: it fails to draw, or what it returns is no picture.
    """
    try:
        found = env.render()
    except Exception as error:  # a simulator's own drawing may raise anything
        raise ValueError(f"{family} cannot be drawn: render() raised {error_text(error)}") from error
    try:
        picture = np.asarray(found)
    except ValueError:  # a list of arrays of several shapes
        picture = np.empty(0)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or 0 in picture.shape:
        what = f"an array of shape {picture.shape} and type {picture.dtype}" if found is not None else "nothing"
        raise ValueError(
            f"{family} cannot be drawn: render() returned {what}; expected a picture, an array of uint8 "
            "[height, width, 3]"
        )
    colours = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[..., :3]
    return fitted(colours)
