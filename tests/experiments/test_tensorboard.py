"""TensorBoard itself, started on a run: it serves the series and the layout."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from metarl.experiments import training
from metarl.settings import structure


def fetch(port: int, path: str, **query: str) -> Any:
    address = f"http://127.0.0.1:{port}/data/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return json.loads(answer.read())


def test_tensorboard_serves_the_series_and_the_layout(tmp_path: Path) -> None:
    settings = structure(
        {
            "learning": {"iterations": 2, "tasks": 2, "episodes": 2},
            "family_kwargs": {"max_episode_steps": 5},
            "evaluation": {"tasks": 2, "test_tasks": 2, "episodes": 2, "steps": 1},
        }
    )
    run, learner = training.start_run(settings, tmp_path / "runs", None, "tiny")
    training.finish_run(run, learner)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "runs"), "--port", str(port)]
    with subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    tags = fetch(port, "plugin/scalars/tags")
                    if "tiny" in tags and "test/return_step_1" in tags["tiny"]:
                        break
                except (urllib.error.URLError, ConnectionError):
                    pass
                assert time.monotonic() < deadline
                time.sleep(0.3)
            points = fetch(port, "plugin/scalars/scalars", run="tiny", tag="rollout/return_step_1")
            assert [step for _, step, _ in points] == [40, 80]
            layout = fetch(port, "plugin/custom_scalars/layout")
            charts = {chart["title"]: chart["multiline"]["tag"] for chart in layout["category"][0]["chart"]}
            assert len(charts) == 2
            matched = fetch(port, "plugin/custom_scalars/scalars", run="tiny", tag=charts[min(charts)][0])
            assert matched["regex_valid"]
            assert len(matched["tag_to_events"]) == 2
        finally:
            process.terminate()
