"""A replay: the episodes, their pictures side by side, and the files that are made of them."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarl.replay.drawing import compose, in_figures, times_of
from metarl.replay.files import gif_of, write_replay
from metarl.replay.recording import Episode


@dataclass(frozen=True)
class Replay:
    """Episodes of one task before and after each adaptation step; of learners with memory, those of a trial.

    A notebook shows it.

    Attributes:
        title: family, task and learner, in words.
        episodes: one for each point that is shown, with the pictures of each by itself, ``episode.frames``.
        labels: how many adaptation steps, or earlier episodes, there were before each.
        fps: pictures a second.
    """

    title: str
    episodes: tuple[Episode, ...]
    labels: tuple[int, ...]
    fps: float

    @functools.cached_property
    def images(self) -> NDArray[np.uint8]:
        """The pictures with all panels and what is counted, ``[time, height, width, 3]``, uint8."""
        return compose(self.title, self.episodes)

    @property
    def steps(self) -> list[int]:
        """How many environment steps were taken before each picture."""
        return times_of(self.episodes)

    @property
    def every(self) -> int:
        """Each of so many environment steps is shown."""
        return max(episode.every for episode in self.episodes)

    @property
    def returns(self) -> list[float]:
        """The undiscounted return of each episode."""
        return [episode.return_at(episode.length) for episode in self.episodes]

    @property
    def successes(self) -> list[bool] | None:
        """Whether each episode was a success; None where ``info`` of none tells."""
        if all(episode.success is None for episode in self.episodes):
            return None
        return [episode.success_at(episode.length) for episode in self.episodes]

    def table(self) -> str:
        """Return a table for the terminal: the points, and return, steps and success of the episode at each."""
        width = max(len(episode.name) for episode in self.episodes)
        successes = self.successes
        lines = [f"{'':>{width}}  {'return':>10}  {'steps':>6}" + ("" if successes is None else "  success")]
        for number, (episode, found) in enumerate(zip(self.episodes, self.returns, strict=True)):
            told = "" if successes is None else f"  {'yes' if successes[number] else 'no':>7}"
            lines.append(f"{episode.name:>{width}}  {in_figures(found):>10}  {episode.length:>6}{told}")
        return "\n".join(lines)

    def in_words(self) -> str:
        """Return what it shows, as a text for those who do not see it."""
        parts = [
            f"{one.name}: return {in_figures(value)}" for one, value in zip(self.episodes, self.returns, strict=True)
        ]
        return f"{self.title}; {', '.join(parts)}"

    def to_gif(self) -> bytes:
        """Return the contents of an animated GIF."""
        return gif_of(self.images, self.fps, self.in_words())

    def save(self, path: str | Path) -> None:
        """Write a new file, ``.gif`` or, with the extra ``[video]``, ``.mp4``.

        Raises:
            ValueError: it exists, cannot be written, has another suffix, or the extra is not installed.
        """
        write_replay(Path(path), self.images, self.fps, self.in_words())

    def _repr_html_(self) -> str:
        """Return the GIF for a notebook."""
        data = base64.b64encode(self.to_gif()).decode("ascii")
        words = self.in_words().replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return f'<img alt="{words}" src="data:image/gif;base64,{data}">'
