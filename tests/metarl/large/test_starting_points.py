"""Runs that start from others, or from a pretrained model, and train and adapt other parts of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import NAVIGATION, remembering, small
from stable_baselines3 import PPO

import metarl
from metarl.experiments.starting import learner_from

FIRST, SECOND = "mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2"
SEEN = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)


def started(source: Path, **policy: Any) -> Any:
    """Return a tiny learner that starts from a file, with other settings of what is trained."""
    settings = small(policy_kwargs={"hidden_sizes": (8, 8)}).settings
    return learner_from(replace(settings, policy=replace(settings.policy, **policy)), source)[0]


def acts(policy: Any) -> Any:
    return policy.predict(SEEN, deterministic=True)[0]


@pytest.fixture(scope="module", params=["model", "checkpoint"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("source") / "start.zip"
    if request.param == "model":
        arguments = {"net_arch": [8, 8], "ortho_init": False}
        PPO("MlpPolicy", metarl.make(NAVIGATION), n_steps=8, batch_size=8, policy_kwargs=arguments).save(path)
    else:
        small(policy_kwargs={"hidden_sizes": (8, 8)}).learn(iterations=1).save(path)
    return path


@pytest.mark.parametrize(
    ("policy", "held"),
    [
        ({"freeze": (f"{FIRST}.*",)}, {f"{FIRST}.weight", f"{FIRST}.bias"}),
        ({"lora_rank": 2, "lora_layers": (SECOND,)}, {f"{SECOND}.weight", f"{SECOND}.bias"}),
        ({"lora_rank": 2, "lora_layers": (SECOND,), "freeze": ("log_std",)}, {f"{SECOND}.weight", "log_std"}),
    ],
)
def test_other_parts_are_trained_from_the_same_policy(
    source: Path, policy: dict[str, Any], held: set[str], tmp_path: Path
) -> None:
    plain, model = started(source), started(source, **policy)
    np.testing.assert_allclose(acts(model.policy), acts(plain.policy), atol=1e-6)
    assert held.isdisjoint(model.parameters)
    before = model.functional_policy.buffers()
    assert held <= set(before)
    model.learn(iterations=1)
    assert all(torch.equal(value, before[name]) for name, value in model.functional_policy.buffers().items())
    model.save(tmp_path / "again.zip")
    again = type(model).load(tmp_path / "again.zip")
    np.testing.assert_array_equal(acts(again.policy), acts(model.policy))
    assert again.settings.policy == model.settings.policy


def test_pruned_weights_are_the_smallest_of_what_is_started_from(source: Path) -> None:
    plain = started(source).parameters[f"{SECOND}.weight"]
    pruned = started(source, prune=0.5, prune_scope="layer").learn(iterations=1).parameters[f"{SECOND}.weight"]
    gone = plain.abs() <= plain.abs().flatten().sort().values[31]
    assert int(gone.sum()) == 32
    assert bool((pruned[gone] == 0.0).all())
    assert bool((pruned[~gone] != 0.0).all())


def test_low_rank_updates_become_weights_where_all_is_trained(source: Path, tmp_path: Path) -> None:
    updated = started(source, lora_rank=2, lora_layers=(SECOND,)).learn(iterations=1)
    updated.save(tmp_path / "updated.zip")
    model = started(tmp_path / "updated.zip")
    assert f"{SECOND}.weight" in model.parameters
    np.testing.assert_allclose(acts(model.policy), acts(updated.policy), atol=1e-6)


def test_a_policy_with_memory_trains_what_it_trained(tmp_path: Path) -> None:
    model = remembering()
    model.save(tmp_path / "memory.zip")
    settings = replace(model.settings, policy=replace(model.settings.policy, freeze=("action_net.*",)))
    with pytest.raises(ValueError, match=r"has policy\.freeze = none, and this run .*, which cannot change in a Gru"):
        learner_from(settings, tmp_path / "memory.zip")
