"""Every shipped configuration trains, and every family has one."""

from __future__ import annotations

from dataclasses import replace

import not_installed
import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl import MAML
from metarl.envs import list_families
from metarl.experiments.configuration import parse_override, read_configuration, shipped_configurations

TINY = [
    "learning.iterations=2",
    "learning.tasks=2",
    "learning.episodes=2",
    "family_kwargs.max_episode_steps=8",
    "outer.fisher_fraction=1.0",
    "evaluation.every=1",
    "evaluation.tasks=2",
    "evaluation.test_tasks=2",
    "evaluation.episodes=2",
    "evaluation.steps=1",
]


def test_every_family_has_a_configuration() -> None:
    configured = {read_configuration(name, [])[1].family for name in shipped_configurations()}
    assert configured == {listing.id for listing in list_families() if listing.source == "metarl"}


def test_arguments_of_a_family_reach_its_single_and_its_batched_environment() -> None:
    _, settings = read_configuration("bernoulli-bandit", [parse_override(text) for text in TINY])
    seven = replace(settings, family_kwargs={"arms": 7, "pulls": 3})
    model = MAML.from_settings(seven).learn(iterations=1)
    assert model.action_space == spaces.Discrete(7)
    assert model.num_timesteps == 2 * 2 * 2 * 3
    model.close()
    for wrong, message in (({"arms": "many"}, "arms is 'many'"), ({"armz": 3}, "armz"), ({"pulls": 0}, "pulls is 0")):
        with pytest.raises(ValueError, match=message):
            MAML.from_settings(replace(settings, family_kwargs=wrong))


@pytest.mark.parametrize("name", shipped_configurations())
def test_two_tiny_iterations_of_it_run(name: str) -> None:
    _, settings = read_configuration(name, [parse_override(text) for text in TINY])
    if settings.family in not_installed.FAMILIES:
        pytest.skip(not_installed.REASON)
    model = MAML.from_settings(settings)
    model.learn(iterations=2)
    assert model.iteration == 2
    assert all(torch.isfinite(value).all() for value in model.parameters.values())
    returns = model.evaluate(split="test").returns
    assert returns.shape == (2, 2)
    assert np.isfinite(returns).all()
    model.close()
