"""Files of moving pictures: GIF, and MP4 with the extra ``[video]``."""

from __future__ import annotations

import importlib
import importlib.util
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metarl.files import refuse_existing, writing

FORMATS = ("gif", "mp4")
ENCODER = "imageio_ffmpeg"
HOLD = 2.0  # seconds for which the last picture stays
_COLOURS = 256
_SAMPLED = 12  # pictures from which the colours are chosen


def refuse_format(name: str) -> None:
    """Refuse a format that cannot be written.

    Raises:
        ValueError: it is unknown, or its extra is not installed.
    """
    if name not in FORMATS:
        raise ValueError(f"the format {name!r} is unknown; expected one of {', '.join(FORMATS)}")
    if name == "mp4" and importlib.util.find_spec(ENCODER) is None:
        raise ValueError(
            "a .mp4 file needs the package imageio-ffmpeg, which is not installed; install the extra [video], as in "
            "pip install 'metarl-suite[video]', or write a .gif"
        )


def refuse_file(path: Path) -> None:
    """Refuse a file that cannot be written, before any long work.

    Raises:
        ValueError: its name has another suffix, its extra is not installed, or it exists.
    """
    if path.suffix.lower()[1:] not in FORMATS:
        raise ValueError(f"the replay {str(path)!r} cannot be written; its name has to end in .gif or .mp4")
    refuse_format(path.suffix.lower()[1:])
    refuse_existing(path)


def write_replay(path: Path, images: NDArray[np.uint8], fps: float, comment: str) -> None:
    """Write a new file, completely or not at all.

    Args:
        path: ``.gif`` or ``.mp4``; folders that are missing are made.
        images: ``[time, height, width, 3]``.
        fps: pictures a second.
        comment: what it shows, in words; kept in a GIF.

    Raises:
        ValueError: see ``refuse_file``, or it cannot be written.
    """
    refuse_file(path)
    with writing(path, "the replay") as beside:
        if path.suffix.lower() == ".gif":
            beside.write_bytes(gif_of(images, fps, comment))
        else:
            _write_mp4(beside, images, fps)


def gif_of(images: NDArray[np.uint8], fps: float, comment: str) -> bytes:
    """Return an animated GIF, which repeats; the last picture stays for ``HOLD`` seconds. See ``write_replay``."""
    chosen = images[np.unique(np.linspace(0, len(images) - 1, _SAMPLED).round().astype(int))]
    # One palette and no dithering: what does not change from picture to picture then costs nothing.
    palette = Image.fromarray(np.concatenate(list(chosen))).quantize(_COLOURS, dither=Image.Dither.NONE)
    pages = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    # GIF counts in hundredths of a second, and browsers slow down what is faster than 0.02 s.
    duration = max(20, round(100 / fps) * 10)
    durations = [duration] * (len(pages) - 1) + [max(duration, round(HOLD * 1000))]
    file = io.BytesIO()
    pages[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=pages[1:],
        duration=durations,
        loop=0,
        optimize=True,
        disposal=1,
        comment=comment.encode("utf-8")[:250],
    )
    return file.getvalue()


def _write_mp4(path: Path, images: NDArray[np.uint8], fps: float) -> None:
    encoder = importlib.import_module(ENCODER)
    # The encoder takes only even sizes.
    odd = [(0, length % 2) for length in images.shape[1:3]]
    even = np.pad(images, [(0, 0), *odd, (0, 0)], constant_values=255)
    writer = encoder.write_frames(
        str(path),
        (even.shape[2], even.shape[1]),
        fps=fps,
        codec="libx264",
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        for image in [*even, *[even[-1]] * round(HOLD * fps)]:
            writer.send(np.ascontiguousarray(image))
    finally:
        writer.close()
