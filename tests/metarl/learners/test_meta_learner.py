"""The short way: fit, evaluate, adapt, save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import NAVIGATION, SECTIONS, SHORT
from stable_baselines3 import PPO

import metarl
from metarl import Reptile


def test_the_short_way_fits_evaluates_and_is_saved(tmp_path: Path) -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 2, seed=3)
    model = metarl.MetaLearner(None, NAVIGATION, learner="reptile", family_kwargs=SHORT, **SECTIONS)
    assert model.fit(tasks, epochs=2) is model
    assert (model.learner.iteration, type(model.learner)) == (2, Reptile)
    assert model.learner.num_timesteps == 2 * 2 * 4 * 8
    with pytest.warns(UserWarning, match="all 2 tasks of this evaluation were given"):
        evaluation = model.evaluate(tasks)
    assert (evaluation.split, evaluation.returns.shape) == ("given", (3, 2))
    model.save(tmp_path / "short")
    loaded = metarl.MetaLearner.load(tmp_path / "short")
    with pytest.warns(UserWarning, match="all 2 tasks of this evaluation were given"):
        np.testing.assert_array_equal(loaded.evaluate(tasks).returns, evaluation.returns)
    ppo = model.learner.to_sb3(PPO, tasks[0], n_steps=8, batch_size=8)
    onward = metarl.MetaLearner(ppo, NAVIGATION, learner="fomaml", family_kwargs={"max_episode_steps": 8})
    assert torch.equal(onward.learner.parameters["action_net.weight"], ppo.policy.action_net.weight)
    with pytest.raises(ValueError, match="has shape"):
        model.fit([[0.1]])
    with pytest.raises(ValueError, match="the nearest is 'maml'"):
        metarl.MetaLearner(None, NAVIGATION, learner="mam")
