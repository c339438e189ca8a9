"""A browser opens a report without a network, draws every figure, and no text is smaller than 12 pixels."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reported
from PIL import Image

from metarl.experiments.reporting import write_report
from metarl.experiments.reporting.drawing import BACKGROUNDS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SCREENSHOTS = Path(__file__).parents[3] / "build" / "screenshots"
WIDTH, HEIGHT = 1100, 4600
MEASURE = """<script>
addEventListener("load", () => {
  const texts = [...document.querySelectorAll("body *")].filter(each =>
    [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && each.tagName !== "title" &&
    each.tagName !== "SCRIPT");
  const size = each => parseFloat(getComputedStyle(each).fontSize) *
    (each.ownerSVGElement ? each.ownerSVGElement.getScreenCTM().a : 1);
  const found = {
    boxes: [...document.querySelectorAll("svg")].map(each => each.getBoundingClientRect()),
    smallest: Math.min(...texts.map(size)),
    texts: texts.length,
    wide: document.documentElement.scrollWidth,
  };
  const told = document.createElement("pre");
  told.id = "measured";
  told.textContent = JSON.stringify(found);
  document.body.append(told);
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_report([reported.comparison(folder / "runs")], folder / "page.html").page


def browse(page: Path, *options: str, width: int = WIDTH) -> str:
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={page.parent / 'profile'}",
        "--hide-scrollbars", f"--window-size={width},{HEIGHT}", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout


def measured(page: Path, width: int = WIDTH) -> dict[str, Any]:
    """Return what a script measures in a copy of the page, which itself allows no script."""
    copy = page.with_name("measured.html")
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    (found,) = re.findall(r'<pre id="measured">(.*?)</pre>', browse(copy, "--dump-dom", width=width))
    return dict(json.loads(html.unescape(found)))


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn(page: Path, scheme: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    picture = SCREENSHOTS / f"report-{scheme}.png"
    picture.unlink(missing_ok=True)
    number = {"dark": 0, "light": 1}[scheme]
    browse(page, f"--blink-settings=preferredColorScheme={number}", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    background = np.array([int(BACKGROUNDS[scheme == "dark"][at : at + 2], 16) for at in (1, 3, 5)])
    assert (pixels[2, 2] == background).all()
    boxes = measured(page)["boxes"]
    assert len(boxes) == 5
    for box in boxes:
        top, left, bottom, right = (int(box[side]) for side in ("top", "left", "bottom", "right"))
        assert bottom < HEIGHT
        part = pixels[top:bottom, left:right]
        differs = np.abs(part - background).max(axis=-1)
        # Text and axes stand out from the background, and lines and dots have colours.
        assert (differs > 120).mean() > 0.003
        assert (np.ptp(part, axis=-1) > 60).mean() > 0.001


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("width", [WIDTH, 500])
def test_all_text_is_large_enough_and_the_page_does_not_scroll_sideways(page: Path, width: int) -> None:
    found = measured(page, width)
    assert found["texts"] > 200
    assert found["smallest"] >= 12.0
    assert found["wide"] <= width
