"""Missions in an unknown language: which words are said, what is held out, and the policy that reads them."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import metarl
from metarl.agents.small_images import WordsAndImage
from metarl.envs.families.instructions import VOCABULARY, bag_of, translate

pytest.importorskip("minigrid")
FAMILY = "metarl/Instructions-v0"
ENGLISH = {"colours": [0, 1, 2, 3, 4, 5], "things": [0, 1, 2]}
OTHER = {
    "colours": [4, 1, 2, 3, 0, 5],
    "things": [2, 0, 1],
}  # red for blue, blue for red; key for ball, ball for box, box for key


def said(observation: Any) -> set[str]:
    return {VOCABULARY[index] for index in np.flatnonzero(observation["words"][:-1])}


def test_checkers_find_nothing_and_the_docstring_is_a_data_sheet() -> None:
    check_env(gymnasium.make(FAMILY).unwrapped, skip_render_check=True)
    assert metarl.check_family(FAMILY) == []
    text = type(metarl.make(FAMILY).unwrapped).__doc__ or ""
    parts = ("What varies", "Hidden", "Observation", "Action", "Reward", "Ends", "Splits", "Source", "Versions")
    assert [part for part in parts if f"**{part}**" not in text] == []


def test_words_are_counted_and_unknown_ones_too() -> None:
    bag = bag_of("Put the red ball next to the zebra, then stop.")
    assert bag[VOCABULARY.index("the")] == 2.0
    assert bag[VOCABULARY.index("ball")] == 1.0
    assert bag[-1] == 2.0
    assert bag.sum() == 10.0
    assert translate("Fetch a blue key, or a red box!", OTHER) == "fetch a red box or a blue ball"


def test_the_same_mission_is_said_in_the_tasks_words() -> None:
    env = metarl.make(FAMILY)
    for seed in range(6):
        plain = said(env.reset(seed=seed, options={"task": ENGLISH})[0])
        mission = env.unwrapped.world.mission
        assert plain == set(mission.split())
        other, _ = env.reset(seed=seed, options={"task": OTHER})
        assert env.unwrapped.world.mission == mission
        assert said(other) == set(translate(mission, OTHER).split())


def test_what_is_picked_up_pays_by_the_meaning() -> None:
    env = metarl.make(FAMILY)
    env.action_space.seed(1)
    outcomes = set()
    for seed in range(60):
        env.reset(seed=seed, options={"task": OTHER})
        ended = cut = False
        while not (ended or cut):
            _, reward, ended, cut, info = env.step(env.action_space.sample())
        world = env.unwrapped.world
        if ended:
            right = (world.carrying.color, world.carrying.type) == (world.targetColor, world.targetType)
            assert info["success"] == right == (reward > 0)
            outcomes.add(right)
    assert outcomes == {True, False}


def test_languages_are_held_out() -> None:
    train, test = (
        {tuple(row) for row in metarl.sample_tasks(FAMILY, 300, seed=1, split=split)["colours"].tolist()}
        for split in ("train", "test")
    )
    assert not train & test


def test_the_policy_reads_an_image_in_the_light_of_words() -> None:
    torch.manual_seed(0)
    network = WordsAndImage(metarl.make(FAMILY).observation_space)
    image = torch.zeros(4, 20, 7, 7)
    image[2:, 5, 3, 3] = 1.0
    words = torch.zeros(4, len(VOCABULARY) + 1)
    words[1::2, 3] = 1.0
    found = network({"image": image, "words": words})
    assert found.shape == (4, 64)
    effects = found[1] - found[0], found[3] - found[2]  # of the word, without and with the object
    assert all((effect != 0).any() for effect in effects)
    assert not torch.allclose(*effects)  # they are not just added up
    for observations in (
        metarl.make("metarl/MiniGrid-v0").observation_space,
        spaces.Dict({"words": spaces.Box(0, 1, (3,))}),
    ):
        with pytest.raises(ValueError, match=r"WordsPolicy takes a Dict .* use MultiInputPolicy"):
            WordsAndImage(observations)


def test_bad_input_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"the task's colours are .*; expected each number from 0 to 5 once"):
        metarl.make(FAMILY).reset(options={"task": {**ENGLISH, "colours": [0, 0, 2, 3, 4, 5]}})
    with pytest.raises(ValueError, match="env is 'CartPole-v1'"):
        metarl.make(FAMILY, env="CartPole-v1")
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(ValueError, match=r"pip install 'metarl-suite\[games\]'"):
        metarl.make(FAMILY)


def test_only_the_chosen_words_are_swapped() -> None:
    env = metarl.make(FAMILY, colours=["blue"], things=["key", "ball"])
    task = {"colours": [0], "things": [1, 0]}
    for seed in range(6):
        seen, _ = env.reset(seed=seed, options={"task": task})
        words = set(env.unwrapped.world.mission.split())
        other = {"ball": "key", "key": "ball"}
        assert said(seen) == {other.get(word, word) for word in words}
    drawn = metarl.sample_tasks(FAMILY, 20, seed=1, split="test", things=["ball", "key"])
    assert {tuple(row) for row in drawn["things"].tolist()} == {(0, 1), (1, 0)}
    for wrong in (["ball", "door"], [], ["key", "key"]):
        with pytest.raises(ValueError, match="expected one or more different ones of ball, box, key"):
            metarl.make(FAMILY, things=wrong)
