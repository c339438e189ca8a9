"""Running statistics: of training only, frozen at evaluation, in the checkpoint, and in what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SIGN, played, same, small
from stable_baselines3 import PPO

import metarl
from metarl import MAML
from metarl.agents.normalization import Moments, new_normalizer

# What a policy is for is said where it is tested (sb3/test_own_actions.py).
pytestmark = pytest.mark.filterwarnings("ignore:this policy acts in:UserWarning")


def learner(**changes: Any) -> MAML:
    learning = {"normalize_observations": True, "normalize_rewards": True, **changes.pop("learning", {})}
    model: MAML = small(family=SIGN, learning=learning, **changes)
    return model


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=0, max_size=6), min_size=1, max_size=5).filter(
        lambda parts: sum(map(len, parts)) > 0
    )
)
def test_moments_in_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    moments = Moments.none_yet(())
    for part in parts:
        moments = moments.update(torch.tensor(part, dtype=torch.float64))
    whole = np.concatenate([np.array(part) for part in parts])
    assert float(moments.mean) == pytest.approx(whole.mean(), abs=1e-6)
    assert float(moments.variance) == pytest.approx(whole.var(), abs=1e-5)
    assert moments.count == len(whole)


def test_statistics_are_those_of_the_steps_that_ran_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner()
    seen: list[Any] = []
    collect = model.collect

    def watched(state: Any, parameters: Any, tasks: Any, streams: Any, *, episodes: int | None = None) -> Any:
        rollouts = collect(state, parameters, tasks, streams, episodes=episodes)
        if episodes is None:  # in training
            seen.append(rollouts)
        return rollouts

    monkeypatch.setattr(model, "collect", watched)
    model.learn(iterations=2)
    steps = torch.cat([part.observations[:, :, :-1][part.mask.bool()] for part in seen])
    moments = model.normalizer.observations[""]
    torch.testing.assert_close(moments.mean, steps.double().mean(dim=0))
    torch.testing.assert_close(moments.variance, steps.double().var(dim=0, correction=0))
    assert moments.count == len(steps) == model.num_timesteps
    assert model.normalizer.returns is not None
    # A constant entry stays at 0, whatever its value was.
    observed = model.normalizer.observe(np.array([[1.0, 1.0]], np.float32))
    assert observed[0, 1] == pytest.approx(0.0, abs=1e-3)


def test_evaluation_and_adaptation_leave_the_statistics_alone() -> None:
    model = learner().learn(iterations=1)
    before = model.normalizer
    model.evaluate(n_tasks=3)
    model.adapt([0.5])
    model.adapter(metarl.make(SIGN, task=[0.3])).play()
    assert model.normalizer is before


def test_they_are_in_the_checkpoint_and_best_has_its_own(tmp_path: Path) -> None:
    model = learner().learn(iterations=2)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    for name, value in model.normalizer.tensors().items():
        torch.testing.assert_close(loaded.normalizer.tensors()[name], value, rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.evaluate(n_tasks=2).returns, model.evaluate(n_tasks=2).returns)
    model.learn(iterations=1)
    loaded.learn(iterations=1)
    assert same(model.parameters, loaded.parameters)
    assert model.best is not None
    assert loaded.best is not None
    for name, value in model.best.state.normalizer.tensors().items():
        torch.testing.assert_close(loaded.best.state.normalizer.tensors()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(("observations", "policy"), [("box", "MlpPolicy"), ("dict", "MultiInputPolicy")])
def test_what_comes_out_normalises_by_itself(observations: str, policy: str, tmp_path: Path) -> None:
    model = learner(policy=policy, family_kwargs={"observations": observations}).learn(iterations=2)
    env = metarl.make(SIGN, task=[0.5], observations=observations)
    observation, _ = env.reset(seed=0)
    for _ in range(2):
        observation, *_ = env.step(np.array([0.3], np.float32))
    adapted = model.adapt([0.5])
    keep = model.state
    expected = adapted.predict(observation, deterministic=True)[0]
    none = new_normalizer(model.functional_policy.observation_space, False, False)
    model.state = replace(model.state, normalizer=none)
    raw = model.adapt([0.5]).predict(observation, deterministic=True)[0]
    assert not np.allclose(expected, raw)
    model.state = keep
    ppo = model.to_sb3(PPO, [0.5], n_steps=8, batch_size=8)
    np.testing.assert_allclose(ppo.predict(observation, deterministic=True)[0], expected, atol=1e-6)
    ppo.learn(16)
    ppo.save(tmp_path / "ppo")
    again = PPO.load(tmp_path / "ppo")
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], ppo.predict(observation, deterministic=True)[0]
    )


def test_it_acts_and_learns_alike() -> None:
    model = learner().learn(iterations=2)
    samples = model.samples(model.state, played(model, np.ones((3, 1), np.float32), iteration=9)).task(0)
    distribution = model.functional_policy.distribution(model.parameters, samples)
    torch.testing.assert_close(distribution.log_prob(samples.actions), samples.log_probs, atol=1e-5, rtol=1e-5)


def test_reported_returns_are_not_scaled() -> None:
    plain, scaled = learner(learning={"normalize_rewards": False}), learner()
    one, other = plain.evaluate(n_tasks=3).returns, scaled.evaluate(n_tasks=3).returns
    np.testing.assert_array_equal(one[0], other[0])


def test_what_cannot_be_normalised_is_named() -> None:
    with pytest.raises(ValueError, match="cannot be normalised, only boxes of real numbers"):
        new_normalizer(spaces.Discrete(4), True, False)
    with pytest.raises(ValueError, match="cannot be normalised"):
        learner(policy="CnnPolicy", family_kwargs={"observations": "image"})
