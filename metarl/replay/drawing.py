"""The pictures of a replay: panels side by side, each with its name and what is counted, under a line of the task."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.replay.recording import Episode

TEXT_SIZE = 14  # pixels
LINE = 19
MARGIN = 10
NARROWEST = 150  # of a panel, so that its text fits
IN_A_ROW = 4
_PAPER, _INK, _QUIET, _GOOD = (255, 255, 255), (26, 26, 26), (90, 98, 107), (22, 101, 52)


@functools.cache
def font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of texts, DejaVu Sans, which comes with matplotlib and so is the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, TEXT_SIZE)


def times_of(episodes: Sequence[Episode]) -> list[int]:
    """Return the steps that a replay shows: evenly spread, and the end of the longest episode."""
    longest = max(episode.length for episode in episodes)
    every = max(episode.every for episode in episodes)
    return [*range(0, longest, every), longest]


def compose(title: str, episodes: Sequence[Episode]) -> NDArray[np.uint8]:
    """Return the pictures of a replay, ``[time, height, width, 3]``, uint8.

    An episode that ends before the others keeps its last picture.

    Args:
        title: a line above, cut off where it is too long.
        episodes: a panel for each, ``IN_A_ROW`` in a row.
    """
    tells = any(episode.success is not None for episode in episodes)
    columns = min(len(episodes), IN_A_ROW)
    rows = -(-len(episodes) // columns)
    high = max(episode.frames.shape[1] for episode in episodes)
    wide = max(NARROWEST, *(episode.frames.shape[2] for episode in episodes))
    head, tall = LINE + MARGIN, high + LINE * (4 if tells else 3) + MARGIN
    size = MARGIN + columns * (wide + MARGIN), MARGIN + head + rows * (tall + MARGIN)
    pictures = []
    for time in times_of(episodes):
        page = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(page)
        draw.text((MARGIN, MARGIN), cut_off(title, size[0] - 2 * MARGIN), _QUIET, font())
        for number, episode in enumerate(episodes):
            left = MARGIN + number % columns * (wide + MARGIN)
            top = MARGIN + head + number // columns * (tall + MARGIN)
            _panel(page, draw, (left, top), (wide, high), episode, time, tells=tells)
        pictures.append(np.asarray(page))
    return np.stack(pictures)


def _panel(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    episode: Episode,
    time: int,
    *,
    tells: bool,
) -> None:
    left, top = corner
    wide, high = size
    at = min(time, episode.length)
    draw.text((left, top), cut_off(episode.name, wide, bold=True), _INK, font(bold=True))
    picture = Image.fromarray(episode.picture_at(at))
    place = left + (wide - picture.width) // 2, top + LINE + (high - picture.height) // 2
    page.paste(picture, place)
    frame = place[0] - 1, place[1] - 1, place[0] + picture.width, place[1] + picture.height
    draw.rectangle(frame, outline=(200, 204, 208))
    below = top + LINE + high + 4
    draw.text((left, below), f"return {in_figures(episode.return_at(at))}", _INK, font())
    state = "" if at < episode.length else (", stopped" if episode.cut else ", ended")
    draw.text((left, below + LINE), f"step {at}{state}", _QUIET, font())
    if tells:
        done = episode.success_at(at)
        words = "success: yes" if done else "success: no"
        draw.text((left, below + 2 * LINE), words, _GOOD if done else _QUIET, font(bold=done))


def in_figures(value: float) -> str:
    """Return a return as text, short enough for a panel."""
    return f"{value:.2f}" if abs(value) < 1e6 else f"{value:.3g}"


def cut_off(text: str, width: int, *, bold: bool = False) -> str:
    """Return a text, cut off with an ellipsis if it is wider than so many pixels."""
    if font(bold=bold).getlength(text) <= width:
        return text
    kept = text
    while kept and font(bold=bold).getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"
