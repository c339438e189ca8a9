"""Learners that installed packages add, through the entry-point group ``metarl.learners``."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from small import Still, same, small

from metarl.experiments.command import main
from metarl.learners.maml import MAML
from metarl.learners.registry import (
    ENTRY_POINT_GROUP,
    LEARNERS,
    describe_learners,
    find_learner,
    installed_learners,
    load_learner,
    read_settings,
)

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that lets packages be installed that name learners ``name="module:Class"``."""
    others = importlib.metadata.entry_points

    def put(**places: str) -> None:
        entries = [EntryPoint(name.replace("_", "-"), place, ENTRY_POINT_GROUP) for name, place in places.items()]

        def entry_points(**wanted: Any) -> Any:
            return entries if wanted.get("group") == ENTRY_POINT_GROUP else others(**wanted)

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
        installed_learners.cache_clear()

    yield put
    monkeypatch.undo()
    installed_learners.cache_clear()


def test_it_is_listed_found_and_trained_by_its_name(install: Install, tmp_path: Path) -> None:
    install(stay_still="small:Still")
    assert dict(installed_learners()) == {"stay-still": "small:Still"}
    assert find_learner("stay-still") is Still
    listed = describe_learners()
    assert [entry["name"] for entry in listed] == [*LEARNERS, "stay-still"]
    assert (listed[-1]["class"], listed[-1]["summary"]) == ("Still", (Still.__doc__ or "").partition("\n")[0])
    settings = read_settings({"learner": "stay-still", "outer": {"max_kl": 0.2}})
    assert (settings.learner, settings.outer.max_kl) == ("stay-still", 0.2)
    with pytest.raises(ValueError, match="the nearest is 'stay-still'"):
        find_learner("stay-stil")
    model = small("stay-still")
    before = model.parameters
    assert same(model.learn(iterations=2).parameters, before)
    assert model.iteration == 2
    model.save(tmp_path / "model")
    assert same(load_learner(tmp_path / "model").parameters, before)


def test_the_command_lists_and_trains_it(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(stay_still="small:Still")
    assert main(["learners"]) == 0
    assert "stay-still" in capsys.readouterr().out
    few = ["learning.iterations=2", "learning.tasks=2", "learning.episodes=2", "family_kwargs.max_episode_steps=5",
           "evaluation.tasks=2", "evaluation.test_tasks=2", "evaluation.episodes=2"]  # fmt: skip
    assert main(["train", "navigation", "learner=stay-still", *few]) == 0
    assert (tmp_path / "runs/navigation/results.json").is_file()


def test_a_broken_one_is_listed_with_its_fault_and_hides_no_other(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('needs a licence')\n")
    (tmp_path / "no_python.py").write_text("class\n")
    install(
        missing="nowhere_at_all:Learner",
        no_class="small:Nothing",
        no_learner="samples:double",
        raises="raises_at_import:Learner",
        syntax="no_python:Learner",
        works="small:Still",
    )
    faults = {entry["name"]: entry["summary"] for entry in describe_learners()}
    assert list(faults) == [*LEARNERS, "missing", "no-class", "no-learner", "raises", "syntax", "works"]
    assert "cannot be used: learner 'missing' cannot be imported: No module named 'nowhere_at_all'" in faults["missing"]
    assert "cannot be imported: module 'small' has no attribute 'Nothing'" in faults["no-class"]
    assert "is no meta-learner" in faults["no-learner"]
    assert "cannot be imported: needs a licence" in faults["raises"]
    assert "cannot be used: learner 'syntax' cannot be imported" in faults["syntax"]
    assert not any("cannot be used" in faults[name] for name in (*LEARNERS, "works"))
    assert main(["learners", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} == set(faults)
    for name in ("missing", "raises", "syntax"):
        with pytest.raises(ValueError, match=f"learner '{name}' cannot be imported"):
            read_settings({"learner": name})
    assert find_learner("works") is Still


def test_the_names_of_metarls_own_stay_its_own(install: Install) -> None:
    install(maml="small:Still", other="small:Still")
    assert find_learner("maml") is MAML
    assert list(installed_learners()) == ["other"]
