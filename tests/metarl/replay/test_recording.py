"""Which pictures of an episode are kept, what is counted at each, and how they are put side by side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from metarl.replay.drawing import compose, cut_off, font, in_figures, times_of
from metarl.replay.recording import Episode, Recorder
from metarl.replay.scaling import PANEL, fitted


def recorded(length: int, most: int) -> Recorder:
    now = [0]
    recorder = Recorder(lambda: np.full((1, 1, 3), now[0] % 256, np.uint8), most)
    recorder.see(0)
    for step in range(1, length + 1):
        now[0] = step
        recorder.see(step, last=step == length)
    return recorder


def episode(length: int, most: int = 1000, *, reward: float = 1.0, success: list[bool] | None = None) -> Episode:
    found = recorded(length, most)
    return Episode(
        name="before adaptation",
        frames=found.frames.repeat(40, axis=1).repeat(30, axis=2),
        steps=found.steps,
        every=found.every,
        rewards=np.full(length, reward),
        success=None if success is None else np.array(success),
        cut=False,
    )


@given(length=st.integers(1, 400), most=st.integers(2, 40))
def test_the_pictures_are_few_evenly_spread_and_of_the_steps_that_they_say(length: int, most: int) -> None:
    found = recorded(length, most)
    assert len(found.steps) <= most
    assert found.steps[0] == 0
    assert found.steps[-1] == length
    assert list(found.steps[:-1]) == list(range(0, length, found.every))
    assert found.frames[:, 0, 0, 0].tolist() == [step % 256 for step in found.steps]
    if length < most:
        assert found.every == 1
    else:
        assert -(-length // (found.every // 2)) + 1 > most, "more than half of the room is left"


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4), most=st.integers(2, 30))
def test_panels_of_different_lengths_show_the_same_step(lengths: list[int], most: int) -> None:
    episodes = [episode(length, most) for length in lengths]
    times = times_of(episodes)
    assert len(times) <= most
    assert times[-1] == max(lengths)
    for one in episodes:
        for time in times:
            assert one.picture_at(time)[0, 0, 0] == min(time, one.length) % 256
            assert one.return_at(time) == min(time, one.length)


def caption(images: NDArray[np.uint8], line: int) -> NDArray[np.uint8]:
    """Return a line of text under the first panel of pictures without success."""
    below = images.shape[1] - 10 - 10 - 2 * 19 + line * 19
    return images[:, below : below + 19, 10:160]


def test_return_step_and_success_are_counted_in_the_picture() -> None:
    small, large, succeeds = episode(4), episode(4, reward=50.0), episode(4, success=[False, True, True, True])
    one, other = compose("task", [small]), compose("task", [large])
    assert one.shape == other.shape == (5, *one.shape[1:])
    np.testing.assert_array_equal(one[0], other[0])  # both returns are 0
    for time in range(1, 5):
        assert (caption(one, 0)[time] != caption(one, 0)[time - 1]).any(), "the return does not change"
        assert (caption(one, 0)[time] != caption(other, 0)[time]).any(), "another return looks alike"
        assert (caption(one, 1)[time] != caption(one, 1)[time - 1]).any(), "the step does not change"
    told = compose("task", [succeeds])
    assert told.shape[1] > one.shape[1]
    last = told[:, -10 - 19 :, 10:160]
    np.testing.assert_array_equal(last[0], last[1])
    assert (last[1] != last[2]).any()
    np.testing.assert_array_equal(last[2], last[3])


def test_texts_are_readable() -> None:
    assert font().size >= 12
    assert font(bold=True).size >= 12
    ink = (caption(compose("task", [episode(2)]), 0)[-1] < 128).all(axis=-1)
    rows = np.flatnonzero(ink.any(axis=1))
    assert rows[-1] - rows[0] + 1 >= 10, "figures and letters are at least 10 pixels high"
    assert cut_off("short", 200) == "short"
    long = cut_off("metarl/Navigation2D-v0, task [0.1, 0.2]", 120)
    assert long.endswith("…")
    assert font().getlength(long) <= 120
    assert [in_figures(value) for value in (-38.2149, 0.0, 123456789.0)] == ["-38.21", "0.00", "1.23e+08"]


def test_more_than_four_panels_go_into_rows() -> None:
    four, five = compose("", [episode(1)] * 4), compose("", [episode(1)] * 5)
    assert four.shape[2] == five.shape[2]
    assert five.shape[1] > 1.5 * four.shape[1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((6, 8), (180, 240)),
        ((100, 60), (200, 120)),
        ((150, 200), (150, 200)),
        ((400, 600), (160, 240)),
        ((1, 900), (1, 240)),
    ],
)
def test_small_pictures_are_enlarged_and_large_ones_reduced(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = fitted(picture)
    assert found.shape == (*expected, 3)
    assert max(found.shape) <= PANEL
    if expected[0] > size[0]:
        factor = expected[0] // size[0]
        np.testing.assert_array_equal(found[::factor, ::factor], picture)
