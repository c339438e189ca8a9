"""Files of replays: a GIF that plays, an MP4 with its extra, and nothing overwritten."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from metarl.replay.files import ENCODER, HOLD, gif_of, write_replay

WITHOUT_ENCODER = importlib.util.find_spec(ENCODER) is None


def pictures(count: int = 6) -> NDArray[np.uint8]:
    """Return white pictures in which a square of changing colour moves."""
    images = np.full((count, 41, 61, 3), 255, np.uint8)
    for number, image in enumerate(images):
        image[10:30, 5 * number : 5 * number + 20] = (40 * number, 120, 200)
    return images


@pytest.mark.parametrize(("fps", "duration"), [(20.0, 50), (50.0, 20), (4.0, 250), (0.1, 10_000)])
def test_a_gif_has_the_pictures_and_times(fps: float, duration: int) -> None:
    with Image.open(io.BytesIO(gif_of(pictures(), fps, "what it shows"))) as gif:
        assert gif.format == "GIF"
        assert gif.info["loop"] == 0
        assert gif.info["comment"] == b"what it shows"
        found = [(np.asarray(page.convert("RGB")), page.info["duration"]) for page in ImageSequence.Iterator(gif)]
    assert [time for _, time in found] == [duration] * 5 + [max(duration, HOLD * 1000)]
    for (page, _), image in zip(found, pictures(), strict=True):
        assert np.abs(page.astype(int) - image.astype(int)).max() <= 8


def test_pictures_that_do_not_change_are_a_gif_too() -> None:
    still = np.full((3, 20, 20, 3), 7, np.uint8)
    with Image.open(io.BytesIO(gif_of(still, 10.0, ""))) as gif:
        assert gif.size == (20, 20)
        assert sum(page.info["duration"] for page in ImageSequence.Iterator(gif)) == 100 + 100 + HOLD * 1000


@pytest.mark.skipif(WITHOUT_ENCODER, reason="needs the extra [video]")
# What reads the file here, and not what writes it, leaves a pipe to ffmpeg open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_mp4_has_the_pictures_and_the_last_one_stays(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = tmp_path / "new" / "replay.mp4"
    write_replay(path, pictures(), 10.0, "")
    frames = imageio_ffmpeg.read_frames(str(path))
    facts = next(frames)
    assert facts["source_size"] == (62, 42)
    assert facts["fps"] == pytest.approx(10.0)
    found = [np.frombuffer(frame, np.uint8).reshape(42, 62, 3) for frame in frames]
    assert len(found) == 6 + 20
    for page, image in zip(found, pictures(), strict=False):
        assert np.abs(page[:41, :61].astype(int) - image.astype(int)).mean() < 8
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("name", ["replay.gif", "replay.mp4", "replay.GIF", "link.gif"])
@pytest.mark.skipif(WITHOUT_ENCODER, reason="needs the extra [video]")
def test_no_file_is_overwritten(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "link.gif":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        write_replay(path, pictures(), 10.0, "")
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert path.is_symlink() or path.read_bytes() == b"mine"


def test_mistakes_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("replay", "replay.png", "replay.gif.txt"):
        with pytest.raises(ValueError, match=r"has to end in \.gif or \.mp4"):
            write_replay(tmp_path / name, pictures(), 10.0, "")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        write_replay(tmp_path / "file" / "replay.gif", pictures(), 10.0, "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package imageio-ffmpeg.* extra \[video\].*metarl-suite\[video\]"):
        write_replay(tmp_path / "replay.mp4", pictures(), 10.0, "")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
