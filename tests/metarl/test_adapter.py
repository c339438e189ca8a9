"""Adaptation episode by episode, in an environment whose task we do not know."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import NAVIGATION, SHORT, SIGN, copied, same, small

import metarl
from metarl import seeding
from metarl.envs import FixedTask, RolloutError

# What a policy is for is said where it is tested (sb3/test_own_actions.py).
pytestmark = pytest.mark.filterwarnings("ignore:this policy acts in:UserWarning")


def test_it_updates_after_n_episodes_and_says_how_the_return_developed() -> None:
    model = small()
    before = copied(model.parameters)
    env = metarl.make(NAVIGATION, task=[0.2, 0.1], **SHORT)
    adapter = model.adapter(env, episodes=3)
    start = adapter.policy.action_net.weight
    torch.testing.assert_close(start, model.policy.action_net.weight)
    returns = [adapter.play() for _ in range(2)]
    assert adapter.updates == 0
    torch.testing.assert_close(start, adapter.policy.action_net.weight)
    returns += [adapter.play() for _ in range(5)]
    assert adapter.updates == 2
    assert not torch.equal(start, adapter.policy.action_net.weight)
    assert adapter.returns == [returns[:3], returns[3:6], returns[6:]]
    assert adapter.table().splitlines()[1].split() == ["0", "3", f"{np.mean(returns[:3]):.2f}"]
    assert len(adapter.table().splitlines()) == 4
    assert same(before, model.parameters)


def test_a_loop_of_ones_own_gives_what_play_gives() -> None:
    model = small()
    goal = np.array([0.2, 0.1])
    env = metarl.make(NAVIGATION, task=goal, **SHORT)
    played, own = model.adapter(env, episodes=2), model.adapter(env, episodes=2)
    for episode in range(4):
        played.play()
        stream = seeding.Stream(model.settings.seed, (seeding.ADAPTATION, own.updates, episode % 2))
        observation, _ = env.reset(seed=stream.environment_seeds(1)[0])
        action = own.start(observation)
        total = 0.0
        while action is not None:
            observation, reward, terminated, truncated, _ = env.step(action)
            assert reward == pytest.approx(-np.linalg.norm(observation - goal), abs=1e-6)
            total += float(reward)
            action = own.observe(observation, float(reward), terminated, truncated)
        assert (own.returns[-1] or own.returns[-2])[-1] == pytest.approx(total, abs=1e-5)
    assert own.returns == played.returns
    torch.testing.assert_close(own.policy.action_net.weight, played.policy.action_net.weight, rtol=0, atol=0)


def test_adapt_takes_the_environment_with_its_own_action_box() -> None:
    model = small(family=SIGN)
    raw = gymnasium.make("toy/Sign-v0")
    assert raw.action_space == spaces.Box(-2.0, 2.0, (1,), np.float32)
    adapted = model.adapt(FixedTask(raw, [0.5]), steps=2)
    assert not torch.equal(adapted.action_net.weight, model.policy.action_net.weight)


@pytest.mark.parametrize("actions", ["box", "discrete"])
def test_actions_come_as_the_environment_takes_them(actions: str) -> None:
    """The environment refuses actions outside its space: a box of [-2, 2], a discrete space from -1 on."""
    model = small(family=SIGN, family_kwargs={"actions": actions})
    raw = FixedTask(gymnasium.make("toy/Sign-v0", actions=actions), [0.5])
    adapter = model.adapter(raw)
    total = 0.0
    action = adapter.start(raw.reset(seed=1)[0])
    taken = []
    while action is not None:
        taken.append(action)
        observation, reward, terminated, truncated, _ = raw.step(action)
        total += float(reward)
        action = adapter.observe(observation, float(reward), terminated, truncated)
    assert total == pytest.approx(0.5 * float(np.sum(taken)), abs=1e-5)
    assert adapter.returns == [[pytest.approx(total, abs=1e-5)]]
    played = model.adapter(raw)
    assert played.play() == pytest.approx(adapter.returns[0][0], abs=1e-5)


def test_mistakes_are_named() -> None:
    model = small()
    with pytest.raises(ValueError, match="observation_space is"):
        model.adapter(gymnasium.make("CartPole-v1"))
    with pytest.raises(ValueError, match=r"is no gymnasium\.Env"):
        model.adapter([0.1, 0.2])  # type: ignore[arg-type]
    env = metarl.make(NAVIGATION, task=[0.2, 0.1], **SHORT)
    with pytest.raises(ValueError, match="episodes is 0"):
        model.adapter(env, episodes=0)
    adapter = model.adapter(env)
    with pytest.raises(ValueError, match="no episode was begun"):
        adapter.observe(np.zeros(2, np.float32), 0.0, False, False)
    adapter.start(np.zeros(2, np.float32))
    with pytest.raises(RolloutError, match="reward nan, at step 0"):
        adapter.observe(np.zeros(2, np.float32), float("nan"), False, False)
    with pytest.raises(RolloutError, match="observation"):
        adapter.start(np.full(2, np.inf, np.float32))
