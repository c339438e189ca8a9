"""Policies in the action space of the environment in which they are used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SIGN, small
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl.envs.actions import standard_actions

KINDS = ("box", "standard box", "matrix", "number", "wide number", "some ends", "discrete", "multi")


def sign(actions: str) -> tuple[Any, gymnasium.Env[Any, Any]]:
    """Return a learner, and an environment as others make it, with its own actions."""
    model = small(family=SIGN, family_kwargs={"actions": actions})
    return model, gymnasium.make("toy/Sign-v0", actions=actions)


def quietly(model: Any, task: Any, **given: Any) -> Any:
    """Return ``adapt(task)`` without its warning about action spaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.adapt(task, **given)


@pytest.mark.parametrize("actions", KINDS)
def test_a_policy_adapted_in_an_environment_does_the_same_in_its_own_actions(actions: str) -> None:
    model, env = sign(actions)
    own = model.adapt(env, steps=0)
    mapped = quietly(model, np.zeros(1, np.float32), steps=0)
    assert own.action_space == env.action_space
    assert mapped.action_space == model.action_space
    found = standard_actions(env.action_space)
    to_own = (lambda action: action) if found is None else found[1]
    observations = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    for deterministic in (True, False):
        torch.manual_seed(1)
        expected, _ = mapped.predict(observations, deterministic=deterministic)
        torch.manual_seed(1)
        given, _ = own.predict(observations, deterministic=deterministic)
        np.testing.assert_allclose(given, np.stack([to_own(action) for action in expected]), rtol=1e-4, atol=1e-5)
        if isinstance(env.action_space, spaces.Box):
            assert (given >= env.action_space.low).all()
            assert (given <= env.action_space.high).all()
    adapted = model.adapt(env, steps=1, episodes=2)
    if env.action_space.shape == () and actions.endswith("number"):
        return  # stable-baselines3 steps such a box with numbers that are no arrays
    evaluate_policy(adapted, env, n_eval_episodes=2, deterministic=False, warn=False)  # Sign refuses others' actions


@pytest.mark.parametrize("actions", ["discrete", "multi"])
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_a_model_goes_on_in_the_environment(actions: str, algorithm: Any, tmp_path: Path) -> None:
    model, env = sign(actions)
    tuned = model.to_sb3(algorithm, env, steps=1, episodes=2, n_steps=64)
    observation = np.zeros((1, 2), np.float32)
    expected = model.adapt(env, steps=1, episodes=2).predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(tuned.predict(observation, deterministic=True)[0], expected)
    tuned.learn(32)
    tuned.save(tmp_path / "tuned")
    again = algorithm.load(tmp_path / "tuned", env=env)
    tensor = torch.zeros(1, 2)
    chosen, _, log_prob = again.policy(tensor)
    torch.testing.assert_close(again.policy.evaluate_actions(tensor, chosen)[1], log_prob)
    tuned.policy.save(tmp_path / "policy")
    other = type(tuned.policy).load(tmp_path / "policy")
    np.testing.assert_array_equal(
        other.predict(observation, deterministic=True)[0], tuned.predict(observation, deterministic=True)[0]
    )


def test_a_model_goes_on_in_an_environment_with_a_box_of_its_own() -> None:
    model, env = sign("box")
    tuned = model.to_sb3(PPO, env, steps=1, episodes=2, n_steps=16, batch_size=16)
    assert tuned.policy.action_space == env.action_space
    observation = np.array([[1.0, 1.0]], np.float32)
    expected = model.adapt(env, steps=1, episodes=2).predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(tuned.predict(observation, deterministic=True)[0], expected)
    assert tuned.learn(32).num_timesteps == 32
    back = metarl.MAML.from_pretrained(tuned, SIGN)
    with pytest.warns(UserWarning, match="acts in"):
        given = back.predict(observation, deterministic=True)[0]
    np.testing.assert_allclose(2.0 * given, tuned.predict(observation, deterministic=True)[0], rtol=1e-4, atol=1e-5)


def test_boxes_that_stable_baselines3_cannot_take_are_named() -> None:
    model, env = sign("some ends")
    with pytest.raises(ValueError, match="take only boxes with finite ends"):
        model.to_sb3(PPO, env, steps=0, episodes=1)


def test_the_adapter_has_such_a_policy_too() -> None:
    model, env = sign("box")
    adapter = model.adapter(env, episodes=1)
    adapter.play()
    assert adapter.policy.action_space == env.action_space


def test_it_is_said_once_in_which_actions_a_policy_acts() -> None:
    model, env = sign("box")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.adapt(env)
        assert not caught
        model.adapt([0.5])
        model.adapt([0.5])
        model.predict(np.zeros(2, np.float32))
    (warning,) = caught
    assert str(warning.message).startswith("this policy acts in Box(-1.0, 1.0, (1,), float32)")
    assert "Box(-2.0, 2.0, (1,), float32)" in str(warning.message)
    assert warning.filename == __file__, "it names the line that called metarl"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(family=SIGN, family_kwargs={"actions": "standard box"}).adapt([0.5])


def test_pendulum_gets_its_whole_torque() -> None:
    model = small(family="metarl/PendulumParams-v0", family_kwargs={"max_episode_steps": 5})
    raw = gymnasium.make("Pendulum-v1")
    policy = model.adapt(raw, steps=0)
    with torch.no_grad():
        policy.action_net.bias.fill_(10.0)
    assert policy.predict(np.zeros(3, np.float32), deterministic=True)[0] == 2.0
