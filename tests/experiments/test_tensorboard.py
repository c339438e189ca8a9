"""TensorBoard itself, started on a run: it serves the series, the figure and the layout, and draws them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metarl.experiments import training
from metarl.learners.registry import read_settings

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


def fetch(port: int, path: str, **query: str) -> Any:
    address = f"http://127.0.0.1:{port}/data/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a TensorBoard that has read the run ``tiny``."""
    folder = tmp_path_factory.mktemp("tensorboard")
    settings = read_settings(
        {
            "learning": {"iterations": 2, "tasks": 2, "episodes": 2},
            "family_kwargs": {"max_episode_steps": 5},
            "evaluation": {"tasks": 2, "test_tasks": 2, "episodes": 2, "steps": 1},
        }
    )
    run, learner = training.start_run(settings, folder / "runs", None, "tiny")
    training.finish_run(run, learner)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--port", str(number)]
    with subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    tags = fetch(number, "plugin/scalars/tags")
                    if "tiny" in tags and "test/return_step_1" in tags["tiny"]:
                        break
                except (urllib.error.URLError, ConnectionError):
                    pass
                assert time.monotonic() < deadline
                time.sleep(0.3)
            yield number
        finally:
            process.terminate()


def test_tensorboard_serves_the_series_and_the_layout(port: int) -> None:
    points = fetch(port, "plugin/scalars/scalars", run="tiny", tag="rollout/return_step_1")
    assert [step for _, step, _ in points] == [40, 80]
    layout = fetch(port, "plugin/custom_scalars/layout")
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in layout["category"][0]["chart"]}
    assert len(charts) == 2
    matched = fetch(port, "plugin/custom_scalars/scalars", run="tiny", tag=charts[min(charts)][0])
    assert matched["regex_valid"]
    assert len(matched["tag_to_events"]) == 2


def test_tensorboard_serves_the_figure_of_paths(port: int) -> None:
    tags = fetch(port, "plugin/images/tags")
    assert list(tags["tiny"]) == ["validation/paths"]
    (picture,) = fetch(port, "plugin/images/images", run="tiny", tag="validation/paths", sample="0")
    assert picture["step"] == 80
    address = f"http://127.0.0.1:{port}/data/plugin/images/individualImage?{picture['query']}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        image = Image.open(io.BytesIO(answer.read()))
    assert min(image.size) > 200


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("tab", ["timeseries", "custom_scalars", "hparams", "images"])
def test_a_browser_draws_it(port: int, tab: str) -> None:
    assert BROWSER is not None
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    picture = SCREENSHOTS / f"tensorboard-{tab}.png"
    picture.unlink(missing_ok=True)
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900",
        "--virtual-time-budget=20000", f"--screenshot={picture}", f"http://127.0.0.1:{port}/#{tab}",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    # A page that failed to load is a bar on white; charts have lines, axes and text all over.
    drawn = (pixels[120:] != pixels[-1, -1]).any(axis=-1).mean()
    assert drawn > 0.02, f"{picture} is nearly empty"
