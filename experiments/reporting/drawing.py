"""How figures look, and how they become SVG that stands in a page: the same bytes for the same figure."""

from __future__ import annotations

import contextlib
import html
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Each with a contrast of at least 3:1 to both backgrounds of the page, see ``contrast``.
COLOURS = ("#2f7ed8", "#c9622f", "#2a9461", "#9467d6", "#c4528f", "#8a7a1d", "#348fa3", "#777f88")
MARKERS = "os^Dv*PX"
LINES = ("-", "--", "-.", ":")
BACKGROUNDS = ("#ffffff", "#15181c")  # light, dark
INK = "#1b1f23"  # of text and axes; in a page, the colour of the text around the figure
WIDTH = 7.6  # inches
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "metarl",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label with two $ is no formula
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,  # points, of which 9 are 12 pixels
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words.

    Attributes:
        name: of its file and of the prefix of its ids, in letters, digits and hyphens.
        title: what it shows.
        finding: what is to be seen in it, in words and numbers: its alternative text.
        reading: how it is read: what points, lines and bands are.
        figure: drawn within ``style``.
    """

    name: str
    title: str
    finding: str
    reading: str
    figure: Figure

    @property
    def svg(self) -> str:
        """The figure as an element of a page, drawn in the colour of the text around it."""
        text = _saved(self.figure, "svg").decode("utf-8")
        text = text[text.index("<svg") :]
        for part in (r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<defs>\s*</defs>"):
            text = re.sub(part, "", text, flags=re.DOTALL)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", text)
        text = text.replace(INK, "currentColor")
        words = f'<title id="{self.name}-words">{html.escape(self.finding)}</title>'
        opening = f'<svg class="plot" role="img" aria-labelledby="{self.name}-words"'
        return re.sub(r"<svg([^>]*)>", lambda found: f"{opening}{found[1]}>{words}", text, count=1).rstrip()

    def file(self, kind: str) -> bytes:
        """Return the figure as a file of its own on white, ``png`` or ``svg``."""
        return _saved(self.figure, kind, facecolor=BACKGROUNDS[0])


def _saved(figure: Figure, kind: str, facecolor: str = "none") -> bytes:
    with style():
        memory = io.BytesIO()
        nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(memory, format=kind, metadata=nothing, facecolor=facecolor, dpi=150)
    return memory.getvalue()


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Let matplotlib draw as all figures of a report look, whatever the user's own style is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _STYLE.items():
            mpl.rcParams[name] = value  # type: ignore[index]
        yield


def new_figure(height: float) -> Figure:
    """Return an empty figure of the page's width; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def look(number: int) -> dict[str, Any]:
    """Return colour, marker and line of a row, so that rows differ without colour too."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[(number + number // len(COLOURS)) % len(LINES)],
    }


def legend(figure: Figure, axes: Axes) -> None:
    """Put the legend above the axes."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=1)
    figure.legend(handles, labels, loc="outside upper left", ncols=max(1, min(4, 84 // (longest + 8))))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21, as the Web Content Accessibility Guidelines 2.1 define it.

    >>> round(contrast("#000000", "#ffffff"))
    21
    """
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
