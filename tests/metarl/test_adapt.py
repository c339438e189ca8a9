"""Adaptation to one task: the policy that comes out, and how it goes on in stable-baselines3."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from samples import observed
from small import NAVIGATION, SHORT, SIGN, copied, same, small
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy

import metarl


def test_adapt_returns_a_policy_of_stable_baselines3_and_leaves_the_learner_alone() -> None:
    model = small().learn(iterations=1)
    before = copied(model.parameters)
    task = metarl.sample_tasks(NAVIGATION, 1, seed=5)[0]
    adapted = model.adapt(task)
    assert same(before, model.parameters)
    env = metarl.make(NAVIGATION, task=task, **SHORT)
    mean, _ = evaluate_policy(adapted, env, n_eval_episodes=3, deterministic=False, warn=False)
    assert -20.0 < mean < 0.0
    moved = dict(adapted.named_parameters())
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    again, other = model.adapt(task), model.adapt(task, seed=9)
    assert torch.equal(again.action_net.weight, adapted.action_net.weight)
    assert not torch.equal(other.action_net.weight, adapted.action_net.weight)


def test_adapt_uses_the_step_size_and_halves_it_from_the_second_step_on() -> None:
    model = small()
    task = [0.4, -0.2]

    def move(step_size: float) -> torch.Tensor:
        learner = small(inner={"step_size": step_size})
        weights = [dict(learner.adapt(task, steps=k).named_parameters())["action_net.weight"] for k in range(2)]
        return weights[1] - weights[0]

    torch.testing.assert_close(move(0.2), 2 * move(0.1), rtol=1e-3, atol=1e-6)
    assert [model.step_size(model.state, k) for k in range(3)] == pytest.approx([0.1, 0.05, 0.05])


def test_adapt_takes_an_environment_whose_task_is_unknown() -> None:
    model = small()
    env = metarl.make(NAVIGATION, task=[0.5, 0.5], **SHORT)
    adapted = model.adapt(env, episodes=5, steps=2)
    assert not torch.equal(adapted.action_net.weight, model.policy.action_net.weight)
    with pytest.raises(ValueError, match="observation_space"):
        model.adapt(metarl.make(SIGN))


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_an_adapted_policy_goes_on_learning_in_stable_baselines3(algorithm: Any) -> None:
    model = small().learn(iterations=1)
    task = [0.3, 0.2]
    ours = model.adapt(task)
    theirs = model.to_sb3(algorithm, task, n_steps=64)
    observation = np.array([0.1, 0.2], dtype=np.float32)
    expected, _ = ours.predict(observation, deterministic=True)
    np.testing.assert_array_equal(theirs.predict(observation, deterministic=True)[0], expected)
    assert torch.equal(theirs.policy.log_std, ours.log_std)
    theirs.learn(128)
    assert not np.array_equal(theirs.predict(observation, deterministic=True)[0], expected)
    env = metarl.make(NAVIGATION, task=task, **SHORT)
    assert -20.0 < evaluate_policy(theirs, env, n_eval_episodes=2, warn=False)[0] < 0.0
    start = model.to_sb3(algorithm, task, steps=0)
    np.testing.assert_array_equal(
        start.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
    with pytest.raises(ValueError, match="expected PPO or A2C"):
        model.to_sb3(SAC, task)
    with pytest.raises(ValueError, match="'net_arch', but the architecture is that of the adapted policy"):
        model.to_sb3(algorithm, task, policy_kwargs={"net_arch": [3]})
    other = model.to_sb3(algorithm, task, policy_kwargs={"optimizer_class": torch.optim.SGD})
    assert isinstance(other.policy.optimizer, torch.optim.SGD)


def test_the_value_function_that_goes_to_stable_baselines3_fits() -> None:
    model = small(family_kwargs={}, learning={"episodes": 20})
    task = [0.4, 0.4]
    ppo = model.to_sb3(PPO, task, steps=1, episodes=20)
    again = model.to_sb3(PPO, task, steps=1, episodes=20)
    assert torch.equal(ppo.policy.value_net.weight, again.policy.value_net.weight)
    env = metarl.make(NAVIGATION, task=task)
    values, returns = [], []
    for episode in range(5):
        observation, _ = env.reset(seed=episode)
        rewards: list[float] = []
        ended = False
        while not ended:
            values.append(float(ppo.policy.predict_values(ppo.policy.obs_to_tensor(observation)[0]).detach()))
            observation, reward, terminated, truncated, _ = env.step(ppo.predict(observation)[0])
            rewards.append(float(reward))
            ended = terminated or truncated
        # Truncated, not ended: the return goes on with the value, as in stable-baselines3.
        last = ppo.policy.obs_to_tensor(observation)[0]
        rewards[-1] += 0.99 * float(ppo.policy.predict_values(last).detach()) * truncated
        returns += [sum(0.99**k * reward for k, reward in enumerate(rewards[t:])) for t in range(len(rewards))]
    errors = np.square(np.array(returns) - np.array(values)).mean()
    assert errors < 0.15 * np.square(returns).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": [3.0, 0.0]}, "outside its space"),
        ({"task": [0.1]}, "has shape"),
        ({"task": [0.1, 0.1], "steps": -1}, "steps is -1"),
        ({"task": [0.1, 0.1], "episodes": 0}, "episodes is 0"),
    ],
)
def test_bad_arguments_of_adapt_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().adapt(arguments.pop("task"), **arguments)


def test_predict_is_the_policy_before_adaptation() -> None:
    model = small()
    observation = np.array([0.1, 0.2], dtype=np.float32)
    action, state = model.predict(observation, deterministic=True)
    seen = observed(observation[None])
    expected = model.functional_policy.distribution(model.parameters, seen).parameters[0]
    np.testing.assert_allclose(action, np.clip(expected.detach().numpy()[0], -1, 1), rtol=1e-5)
    assert state is None


def test_what_stands_for_an_environment_is_no_task() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"'CartPole-v1' is no task .*: gymnasium.make\('CartPole-v1'\)"):
        model.adapt("CartPole-v1")
    with pytest.raises(ValueError, match=r"the class TimeLimit is no task .*: TimeLimit\(\)"):
        model.adapt(gymnasium.wrappers.TimeLimit)
