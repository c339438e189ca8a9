"""Meta-World as a family: the official tasks, and what is said where it is missing, as it is where most tests run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import metarl

FAMILY = "metarl/MetaWorld-v0"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def official() -> object:
    metaworld = pytest.importorskip("metaworld", reason="make metaworld")
    return metaworld.ML1("push-v3", seed=1)


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_without_meta_world_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(ValueError, match=r"'make metaworld' makes \.venv-metaworld") as caught:
        metarl.make(FAMILY)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="benchmark is 'ML2'; expected one of ML1, ML10, ML25, ML45"):
        metarl.make(FAMILY, benchmark="ML2")
    with pytest.raises(ValueError, match="goals_seed is -1; expected a whole number from 0 on"):
        metarl.make(FAMILY, goals_seed=-1)


@pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="the wheel is tested without the repository")
def test_its_environment_has_the_same_versions_but_for_the_simulator() -> None:
    here, there = pins("constraints.txt"), pins("constraints-metaworld.txt")
    assert {name for name in there if there[name] != here.get(name)} == {"metaworld", "mujoco"}
    assert {"torch", "gymnasium", "stable-baselines3", "numpy"} <= there.keys()


def test_it_plays_the_official_tasks(official: object) -> None:
    env = metarl.make(FAMILY, env="push-v3")
    for split, tasks, first in (("train", official.train_tasks, 0), ("test", official.test_tasks, 50)):
        drawn = metarl.sample_tasks(FAMILY, 50, split=split, env="push-v3")
        assert sorted(int(task) for task in drawn) == list(range(first, first + 50))
        for index in (0, 7):
            one = next(iter(official.train_classes.values()))()
            one.set_task(tasks[index])
            expected, _ = one.reset()
            found, _ = env.reset(options={"task": first + index})
            np.testing.assert_array_equal(found, expected)
            action = np.array([0.3, -1.0, 0.5, 1.0], np.float32)
            for (mine, paid, *_, info), (theirs, given, *_, other) in [(env.step(action), one.step(action))]:
                np.testing.assert_array_equal(mine, theirs)
                assert (paid, info["success"]) == (given, other["success"])


def test_the_goal_does_not_show_and_another_one_pays_otherwise(official: object) -> None:
    env = metarl.make(FAMILY, env="push-v3")
    assert (env.reset(options={"task": 3})[0][-3:] == 0.0).all()
    rewards = {env.reset(options={"task": task}) and env.step(np.zeros(4, np.float32))[1] for task in range(4)}
    assert len(rewards) == 4


def test_the_checker_finds_nothing(official: object) -> None:
    assert metarl.check_family(FAMILY, env="push-v3", max_episode_steps=20) == []


def test_ten_environments_train_and_five_others_test(official: object) -> None:
    env = metarl.make(FAMILY, benchmark="ML10").unwrapped
    names = {
        split: [env.env_name(int(task)) for task in metarl.sample_tasks(FAMILY, 20, split=split, benchmark="ML10")]
        for split in ("train", "validation", "test")
    }
    assert [len(set(names[split])) for split in names] == [10, 10, 5]
    assert set(names["train"]) == set(names["validation"])
    assert not set(names["train"]) & set(names["test"])
    assert all(names["test"].count(name) == 4 for name in names["test"])
    for task in (0, 60, 0):  # from one environment to another and back
        observation, _ = env.reset(options={"task": task})
        assert observation.shape == (39,)
        env.step(np.zeros(4, np.float32))
