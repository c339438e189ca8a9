"""Every shipped configuration trains, and every family has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("name", shipped_configurations())
def test_two_tiny_iterations_of_it_run(name: str) -> None:
    _, settings = read_configuration(name, [parse_override(text) for text in TINY])
    model = MAML.from_settings(settings)
    before = {key: value.clone() for key, value in model.parameters.items()}
    model.learn(2)
    assert model.iteration == 2
    assert any(not torch.equal(before[key], value) for key, value in model.parameters.items())
    returns = model.evaluate(split="test").returns
    assert returns.shape == (2, 2)
    assert np.isfinite(returns).all()
    model.close()
