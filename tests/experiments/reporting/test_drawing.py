"""How figures look: colours that can be told from both backgrounds, text that is large enough, ids of their own."""

from __future__ import annotations

import re

import pytest

from metarl.experiments.reporting.drawing import BACKGROUNDS, COLOURS, INK, Picture, contrast, look, new_figure, style


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_lines_can_be_told_from_the_background(background: str) -> None:
    # 3:1 is what graphics need, Web Content Accessibility Guidelines 2.1, 1.4.11.
    assert min(contrast(colour, background) for colour in COLOURS) >= 3.0


def test_rows_differ_without_colour() -> None:
    looks = [(look(number)["marker"], look(number)["linestyle"]) for number in range(16)]
    assert len(set(looks)) == 16


def test_a_picture_is_an_element_in_the_colours_of_the_page() -> None:
    with style():
        figure = new_figure(3.0)
        axes = figure.subplots()
        axes.plot([0.0, 1e6], [1.0, 2e-5])
        axes.set_title("a < b, $1 or $2")
    picture = Picture(name="one", title="t", finding='from 1 to 2 & "more" <', reading="r", figure=figure)
    svg = picture.svg
    assert svg.startswith("<svg class")
    assert svg.endswith("</svg>")
    assert '<title id="one-words">from 1 to 2 &amp; &quot;more&quot; &lt;</title>' in svg
    assert ">a &lt; b, $1 or $2</text>" in svg
    assert INK not in svg
    assert "currentColor" in svg
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]*)"', svg))
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:bold )?([\d.]+)px", svg)]
    # Its unit is a point, of which 9 are 12 pixels.
    assert sizes
    assert min(sizes) >= 9.0
    assert svg == picture.svg
    assert picture.file("png").startswith(b"\x89PNG")
