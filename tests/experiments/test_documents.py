"""docs/families.md and its pictures are in step with the registry, and the benchmark measures what it says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import not_installed
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from PIL import Image

from metarl.envs import list_families
from metarl.experiments.benchmarks import families as benchmark
from metarl.experiments.document_families import page, picture, picture_name
from metarl.experiments.families import in_words

DOCS = Path(__file__).parents[2] / "docs"
FAMILIES = [
    listing.id for listing in list_families() if listing.source == "metarl" and listing.id not in not_installed.FAMILIES
]


def test_the_page_is_what_the_script_writes() -> None:
    drawn = {family for family in FAMILIES if (DOCS / "pictures" / picture_name(family)).exists()}
    speeds = json.loads((DOCS / "speeds.json").read_text())
    hint = "run: python experiments/document_families.py"
    assert (DOCS / "families.md").read_text() == page(speeds, drawn), hint
    assert all(f"| `{family}` |" in page(speeds, drawn) for family in FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_picture_is_what_the_family_draws(family: str) -> None:
    path = DOCS / "pictures" / picture_name(family)
    try:
        expected = picture(family)
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        pytest.skip("MuJoCo cannot draw on this machine")
    assert path.exists() == (expected is not None)
    if expected is not None:
        with Image.open(path) as image:
            kept = np.asarray(image.convert("RGB")).astype(int)
        assert kept.shape == expected.shape
        assert (np.abs(kept - expected) > 32).any(axis=-1).mean() < 0.01  # 64 colours, and graphics libraries differ
        assert path.stat().st_size < 40_000


def test_spaces_in_words() -> None:
    space = spaces.Dict(
        {"mass": spaces.Box(0.5, 2.0, ()), "goal": spaces.Box(-1.0, 1.0, (2, 3)), "side": spaces.Discrete(4)}
    )
    assert in_words(space) == "goal: 2 x 3 numbers, -1 to 1; mass: 0.5 to 2; side: one of 4"
    assert in_words(spaces.Box(-np.inf, np.inf, (3,))) == "3 numbers, unbounded"
    assert in_words(spaces.Box(-1.0, 1.0, (2,)), ranges=False) == "2 numbers"


def test_the_benchmark_compares_with_the_original(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "speeds.json"
    names = ["metarl/BernoulliBandit-v0", "metarl/CartPoleParams-v0"]
    benchmark.main(["--quick", "--num-envs", "5", "--json", str(file), *names])
    results = json.loads(file.read_text())
    assert [entry["family"] for entry in results["speeds"]] == names
    for entry in results["speeds"]:
        assert entry["num_envs"] == 5
        assert entry["ratio"] == pytest.approx(entry["steps_per_second"] / entry["reference_steps_per_second"])
    assert results["speeds"][1]["reference"] == "SyncVectorEnv of CartPole-v1"
    assert all(name in capsys.readouterr().out for name in names[:1])


class Short(VectorEnv):
    """Ends its first sub-environment in the first step, its second in the third."""

    num_envs = 2
    action_space = spaces.MultiDiscrete([2, 2])

    def reset(self, **_: Any) -> Any:
        self.at = 0
        return np.zeros(2), {}

    def step(self, actions: Any) -> Any:
        self.at += 1
        return np.zeros(2), np.zeros(2), np.array([True, self.at == 3]), np.zeros(2, dtype=bool), {}


def test_the_benchmark_counts_no_steps_of_ended_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=0.5)
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))
    # A reset and three steps take 2 s by this clock, and 4 steps count.
    assert benchmark.Meter(Short(), None).rate(20.0) == 2.0
