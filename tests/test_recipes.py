"""The recipes of docs/architecture.md: each diff applies to the repository, and does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
RECIPES = re.split(r"^### ", PAGE.partition("## Five recipes")[2], flags=re.MULTILINE)[1:]
PLACES = {"metarl": "metarl", "envs": "metarl/envs", "agents": "metarl/agents", "experiments": "metarl/experiments"}
RUN = "from metarl.experiments.command import main; import sys; sys.exit(main())"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the package, as it is installed, in a folder that comes before the installed one."""
    for folder, place in PLACES.items():
        ignored = shutil.ignore_patterns("__pycache__", *(PLACES if folder == "metarl" else ()))
        shutil.copytree(ROOT / folder, tmp_path / place, ignore=ignored, dirs_exist_ok=True)
    return tmp_path


def test_there_are_five_and_each_changes_one_file() -> None:
    assert [recipe.splitlines()[0] for recipe in RECIPES] == [
        "A learner",
        "A family",
        "A policy",
        "A statistic",
        "A meta-update",
    ]
    for recipe in RECIPES:
        assert len(re.findall(r"^\+\+\+ ", recipe, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.splitlines()[0])
def test_a_recipe_applies_and_runs(recipe: str, repository: Path) -> None:
    (diff,) = re.findall(r"```diff\n(.*?)```", recipe, flags=re.DOTALL)
    apply = ["git", "apply", "-"]
    done = subprocess.run(apply, input=diff, cwd=repository, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"```sh\nmetarl (.*?)\n```", recipe, flags=re.DOTALL) or ["train navigation"]
    assert len(commands) == 1
    words = commands[0].split()
    tiny = [*TINY, "outer.fisher_fraction=1.0"] if "outer.update" not in commands[0] else TINY[:-1]
    arguments = [*words, *tiny] if words[0] == "train" else words
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=repository,
        env={"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if words[0] == "check":
        assert "no fault found" in done.stdout
        return
    results = json.loads((repository / "runs/navigation/results.json").read_text())
    assert results["iteration"] >= 1
    if "statistics.py" in diff:
        assert "lowest_reward" in done.stdout
        assert results["adaptation"][0]["lowest_reward"]["mean"] < 0
        assert "validation/lowest_reward_step_0" in (repository / "runs/navigation/progress.csv").read_text()
    else:
        setting = words[2].partition("=")[2]
        assert setting in (repository / "runs/navigation/config.toml").read_text()
