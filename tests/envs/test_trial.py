"""``metarl.Trial``: several episodes of a task as one, and what an agent is told."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import metarl
from metarl.envs.wrappers import TOLD_KEYS

SIGN = "toy_families:toy/Sign-v0"
BANDIT = "metarl/BernoulliBandit-v0"


def told(observation: dict[str, Any]) -> list[list[float]]:
    return [observation[key].tolist() for key in TOLD_KEYS]


def test_a_trial_is_several_episodes_of_one_task() -> None:
    env = metarl.Trial(metarl.make(SIGN, task=[0.5]), 2)  # episodes of three steps
    observation, info = env.reset(seed=1)
    assert observation["observation"].tolist() == [0.0, 1.0]
    assert told(observation) == [[0.0], [0.0], [0.0]]
    assert info == {"trial_episode": 0}
    seen = []
    for step in range(6):
        observation, reward, terminated, truncated, info = env.step(np.array([0.5], np.float32))
        seen.append((observation["observation"][0], told(observation), reward, terminated, info["trial_episode"]))
        assert not truncated
        assert ("last_observation" in info) == (step == 2)
        assert env.observation_space.contains(observation)
    # The environment's own box is [-2, 2], so 0.5 is 1.0 there, and the reward 0.5.
    assert seen == [
        (1.0, [[0.5], [0.5], [0.0]], 0.5, False, 0),
        (2.0, [[0.5], [0.5], [0.0]], 0.5, False, 0),
        (0.0, [[0.5], [0.5], [1.0]], 0.5, False, 0),  # the first observation of the second episode
        (1.0, [[0.5], [0.5], [0.0]], 0.5, False, 1),
        (2.0, [[0.5], [0.5], [0.0]], 0.5, False, 1),
        (3.0, [[0.5], [0.5], [1.0]], 0.5, True, 1),
    ]
    again, _ = env.reset()
    assert told(again) == [[0.0], [0.0], [0.0]]


def test_any_environment_can_be_wrapped_and_a_trial_has_one_episode_by_default() -> None:
    env = metarl.Trial(gymnasium.make("CartPole-v1"))
    env.reset(seed=1)
    steps = 1
    while not env.step(1)[2]:
        steps += 1
    alone = gymnasium.make("CartPole-v1")
    alone.reset(seed=1)
    assert [alone.step(1)[2] for _ in range(steps)] == [False] * (steps - 1) + [True]


def test_the_end_of_the_last_episode_is_that_of_the_trial() -> None:
    env = metarl.Trial(metarl.make("metarl/Navigation2D-v0", max_episode_steps=2), 2)
    env.reset(seed=1)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(4)]
    assert ends == [(False, False), (False, False), (False, False), (False, True)]


def test_actions_are_told_as_the_environment_takes_them() -> None:
    env = metarl.Trial(metarl.make(BANDIT, arms=3), 1)
    env.reset(seed=1)
    assert told(env.step(2)[0])[0] == [0.0, 0.0, 1.0]
    env = metarl.Trial(metarl.make(SIGN, actions="multi"), 1)
    env.reset(seed=1)
    assert told(env.step(np.array([1, 2]))[0])[0] == [0.0, 1.0, 0.0, 0.0, 1.0]
    env = metarl.Trial(metarl.make(SIGN, actions="standard box"), 1)
    env.reset(seed=1)
    assert told(env.step(np.array([7.0], np.float32))[0])[0] == [1.0]


def test_a_random_task_is_drawn_for_each_trial() -> None:
    env = metarl.RandomTask(metarl.Trial(metarl.make(BANDIT, pulls=2), 3))
    env.reset(seed=3)
    tasks = []
    for _ in range(2):
        own = []
        ended = False
        while not ended:
            own.append(env.unwrapped.task.tolist())
            ended = env.step(0)[2]
        assert len(own) == 6
        assert all(task == own[0] for task in own)
        tasks.append(own[0])
        env.reset()
    assert tasks[0] != tasks[1]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version", "ignore:.*A Box observation space m")
@pytest.mark.parametrize("family", [SIGN, BANDIT, "metarl/Navigation2D-v0"])
def test_it_is_an_environment_as_gymnasium_expects_it(family: str) -> None:
    env = metarl.Trial(metarl.make(family), 2)
    check_env(env, skip_render_check=True)
    assert metarl.as_task(env, env.get_wrapper_attr("default_task") if family != SIGN else [0.5]) is not None


def test_observations_that_are_dicts_keep_their_keys() -> None:
    env = metarl.Trial(metarl.make(SIGN, observations="dict"), 2)
    assert isinstance(env.observation_space, spaces.Dict)
    assert set(env.observation_space.spaces) == {"image", "vector", "count", *TOLD_KEYS}
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert set(observation) == set(env.observation_space.spaces)


def test_it_says_how_it_was_made() -> None:
    env = metarl.Trial(metarl.make("metarl/Navigation2D-v0"), 4)
    assert env.spec is not None
    assert env.spec.additional_wrappers[-1].kwargs == {"episodes": 4}
    assert pickle.loads(pickle.dumps(env.observation_space)) == env.observation_space


class Clash(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Has a key of its own that a trial uses."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Dict({"previous_reward": env.observation_space})

    def observation(self, observation: Any) -> Any:
        return {"previous_reward": observation}


@pytest.mark.parametrize(
    ("make", "episodes", "sentence"),
    [
        (lambda: 3, 2, "int is no gymnasium.Env; give the environment whose episodes are joined"),
        (lambda: metarl.make(BANDIT), 0, "episodes is 0; expected a whole number of at least 1"),
        (lambda: metarl.make(BANDIT), 1.5, "episodes is 1.5; expected a whole number of at least 1"),
        (
            lambda: metarl.RandomTask(metarl.make(BANDIT)),
            2,
            r"draws a new task for each episode \(RandomTask\).* write RandomTask\(Trial\(env, episodes\)\)",
        ),
        (lambda: Clash(metarl.make(BANDIT)), 2, "observations have the key 'previous_reward', .* rename it"),
    ],
)
def test_what_makes_no_trial_is_refused_in_a_sentence(make: Any, episodes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        metarl.Trial(make(), episodes)


def test_actions_that_cannot_be_told_are_refused() -> None:
    env = metarl.make(BANDIT)
    env.action_space = spaces.MultiBinary(3)
    with pytest.raises(ValueError, match="actions of type MultiBinary cannot be told to an agent; expected Box"):
        metarl.Trial(env, 2)
