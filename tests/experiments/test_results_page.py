"""docs/results-json.md names every key of results.json, with its type, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.command import main

PAGE = Path(__file__).parents[2] / "docs/results-json.md"
TINY = [
    "learning.iterations=3", "learning.tasks=2", "learning.episodes=2", "policy.hidden_sizes=[4]",
    "evaluation.tasks=2", "evaluation.test_tasks=3", "evaluation.episodes=2", "evaluation.steps=1",
]  # fmt: skip
IS_A = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: type(value) in (int, float),
    "whole number": lambda value: type(value) is int,
    "null": lambda value: value is None,
    "list of whole numbers": lambda value: isinstance(value, list) and all(type(entry) is int for entry in value),
    "list of numbers": lambda value: isinstance(value, list) and all(type(entry) is float for entry in value),
    "list of texts": lambda value: isinstance(value, list) and all(isinstance(entry, str) for entry in value),
    "list": lambda value: isinstance(value, list),
    "nested list": lambda value: isinstance(value, list) and isinstance(value[0], list),
    "table": lambda value: isinstance(value, dict),
    "list of tables": lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert main(["train", "bernoulli-bandit", *TINY, "--out", str(out), "--name", "tiny"]) == 0
    return out / "tiny"


def keys(results: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the values at each key, those of the entries of lists of tables together."""
    found: dict[str, list[Any]] = {}
    for key, value in results.items():
        found[key] = [value]
        if isinstance(value, list) and isinstance(value[0], dict):
            for entry in value:
                for name, inner in entry.items():
                    found.setdefault(f"{key}.{name}", []).append(inner)
    return found


def documented() -> dict[str, str]:
    return dict(re.findall(r"^\| `([a-z_.]+)` \| ([a-z ]+) \|", PAGE.read_text(), flags=re.MULTILINE))


def test_the_page_names_every_key_in_its_order_with_its_type(run: Path) -> None:
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2"]) == 0
    types = documented()
    for name in ("results.json", "evaluations/1.json"):
        found = keys(json.loads((run / name).read_text()))
        assert list(found) == list(types), name
        for key, values in found.items():
            kinds = [IS_A[kind] for kind in types[key].split(" or ")]
            assert all(any(kind(value) for kind in kinds) for value in values), key


def test_the_steps_of_training_are_in_the_file_and_in_the_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((run / "results.json").read_text())
    # 3 iterations, 2 tasks, 2 episodes of 10 pulls, before and after adaptation.
    assert results["timesteps"] == 3 * 2 * 2 * 10 * 2
    cost = json.loads((run / "cost.json").read_text())
    assert cost["environment_steps"] == results["timesteps"]
    assert set(cost) == set(re.findall(r'"(\w+)": \.\.\.', PAGE.read_text()))
    assert main(["evaluate", str(run), "--tasks", "2", "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"after {results['iteration']} iterations; 240 environment steps of training"


def test_millions_of_steps_are_said_as_such() -> None:
    import numpy as np

    from metarl.results import EvaluatedRun, Evaluation

    one = Evaluation(
        family="family", learner="maml", split="test", protocol="steps", episodes=2, points=(0, 1),
        counted="adaptation steps", metrics={"return": np.zeros((1, 3, 2, 2), np.float32)}, steps_before=None,
        runs=(EvaluatedRun(seed=1, evaluation_seed=1, iteration=100, timesteps=8_012_345),),
        episodes_before=np.zeros((1, 3, 2)),
    )  # fmt: skip
    assert "after 100 iterations; 8.0 million environment steps of training" in one.table().splitlines()[:2]
