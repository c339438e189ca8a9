"""Families as vector environments of stable-baselines3, beside its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import metarl
from metarl.envs import RolloutError
from metarl.envs.families.pendulum import PendulumParamsVectorEnv

NAVIGATION = "metarl/Navigation2D-v0"
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "navigation": (NAVIGATION, {"max_episode_steps": 7}),
    "a half circle": ("metarl/HalfCircleNavigation2D-v0", {"reward": "sparse", "max_episode_steps": 8}),
    "bandit": ("metarl/BernoulliBandit-v0", {"arms": 3, "pulls": 4}),
    "an MDP": ("metarl/TabularMDP-v0", {"max_episode_steps": 5}),
    "cartpole": ("metarl/CartPoleParams-v0", {"polarity": "either", "max_episode_steps": 12}),
    "pendulum": ("metarl/PendulumParams-v0", {"max_episode_steps": 9}),
    "lengths that differ, not batched": ("toy_families:toy/LengthsDiffer-v0", {}),
    "Gymnasium's own": (metarl.parameterized("CartPole-v1", gravity=[5.0, 15.0]), {"max_episode_steps": 20}),
    "a class": (PendulumParamsVectorEnv, {"max_episode_steps": 6}),
}


def singles(family: Any, kwargs: dict[str, Any], count: int, tasks: Any, episodes: int) -> DummyVecEnv:
    """Return stable-baselines3's vector environment of single environments."""

    def one(index: int) -> Any:
        env = metarl.make(family, task=None if tasks is None else tasks[index], **kwargs)
        env = env if episodes == 1 else metarl.Trial(env, episodes)
        return Monitor(metarl.RandomTask(env) if tasks is None else env)

    return DummyVecEnv([lambda index=index: one(index) for index in range(count)])


def assert_same(ours: Any, theirs: Any) -> None:
    """Compare observations or infos to the last bit."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key in theirs:
            if key != "t":  # seconds
                assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(ours, theirs)


def assert_equal_step_by_step(ours: VecEnv, theirs: VecEnv, steps: int) -> int:
    """Step both with the same actions; return how many episodes ended."""
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert_same(ours.reset(), theirs.reset())
    rng, ends = np.random.default_rng(3), 0
    space = ours.action_space
    for step in range(steps):
        if isinstance(space, spaces.Discrete):
            actions = rng.integers(space.n, size=ours.num_envs)
        else:
            actions = rng.normal(size=(ours.num_envs, *space.shape)).astype(np.float32)
        found, expected = ours.step(actions), theirs.step(actions)
        assert_same(found, expected)
        assert_same(ours.reset_infos, theirs.reset_infos)
        ends += int(expected[2].sum())
        if step == steps // 2:
            assert_same(ours.reset(), theirs.reset())
    for method in ("get_episode_rewards", "get_episode_lengths", "get_total_steps"):
        assert_same(ours.env_method(method), theirs.env_method(method))
    return ends


@pytest.mark.parametrize("episodes", [1, 3])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_it_is_stable_baselines3s_own_step_by_step(name: str, given: bool, episodes: int) -> None:
    family, kwargs = CASES[name]
    tasks = metarl.sample_tasks(family, 4, seed=5, **kwargs) if given else None
    ours = metarl.sb3.make_vec_env(
        family, 4, "random" if tasks is None else tasks, trial_episodes=episodes, seed=11, **kwargs
    )
    theirs = singles(family, kwargs, 4, tasks, episodes)
    theirs.seed(11)
    assert assert_equal_step_by_step(ours, theirs, 100) >= 4
    for env in (ours, theirs):
        env.seed(12)
    assert_same(ours.reset(), theirs.reset())
    ours.close()
    theirs.close()


def test_an_agent_with_memory_of_sb3_contrib_learns_the_same_from_a_batch_of_trials() -> None:
    contrib = pytest.importorskip("sb3_contrib")

    def trained(env: VecEnv) -> dict[str, Any]:
        agent = contrib.RecurrentPPO("MultiInputLstmPolicy", env, n_steps=16, batch_size=32, seed=1, device="cpu")
        agent.learn(128)
        env.close()
        return {name: value.detach().numpy() for name, value in agent.policy.state_dict().items()}

    family, kwargs = CASES["bandit"]
    ours = trained(metarl.sb3.make_vec_env(family, 4, trial_episodes=2, **kwargs))
    assert_same(ours, trained(singles(family, kwargs, 4, None, 2)))
    start = contrib.RecurrentPPO("MultiInputLstmPolicy", singles(family, kwargs, 4, None, 2), seed=1, device="cpu")
    assert any((ours[name] != value.numpy()).any() for name, value in start.policy.state_dict().items())


def test_a_batch_is_normalised_as_single_environments_are() -> None:
    kwargs = {"max_episode_steps": 6}
    ours, theirs = metarl.sb3.make_vec_env(NAVIGATION, 3, seed=2, **kwargs), singles(NAVIGATION, kwargs, 3, None, 1)
    theirs.seed(2)
    assert assert_equal_step_by_step(VecNormalize(ours), VecNormalize(theirs), 20) == 6


def test_an_option_names_the_task_of_the_next_episode_only() -> None:
    kwargs = {"max_episode_steps": 6}
    ours, theirs = metarl.sb3.make_vec_env(NAVIGATION, 2, seed=2, **kwargs), singles(NAVIGATION, kwargs, 2, None, 1)
    theirs.seed(2)
    for env in (ours, theirs):
        env.set_options([{"task": [0.1, 0.2]}, {}])
    assert assert_equal_step_by_step(ours, theirs, 20) == 4


def test_attributes_and_methods_reach_the_environments() -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 3, seed=1)
    env = metarl.sb3.make_vec_env(NAVIGATION, 3, tasks, seed=1)
    env.reset()
    assert_same(env.get_attr("task"), [np.asarray(task) for task in tasks])
    one = metarl.make(NAVIGATION)
    expected = [one.get_wrapper_attr("oracle_return")(task) for task in tasks]
    assert [env.env_method("oracle_return", task, indices=0)[0] for task in tasks] == expected
    assert env.get_attr("task_space", indices=[1, 2]) == [one.get_wrapper_attr("task_space")] * 2
    env.set_attr("mark", 5, indices=1)
    assert env.get_attr("mark", indices=1) == [5]
    assert not env.has_attr("mark")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(metarl.RandomTask) == [False] * 3
    with pytest.raises(AttributeError, match="belongs to a single environment"):
        env.env_method("step", np.zeros(2))
    env.close()


def test_new_tasks_come_with_new_trials_and_seeds() -> None:
    env = metarl.sb3.make_vec_env(NAVIGATION, 2, trial_episodes=2, seed=1, max_episode_steps=3)
    env.reset()
    seen = []
    for _ in range(12):
        seen.append(np.stack(env.get_attr("task")).tolist())
        env.step(np.zeros((2, 2), np.float32))
    assert [seen.index(entry) for entry in seen] == [0] * 6 + [6] * 6
    unknown = [metarl.sb3.make_vec_env(NAVIGATION, 2) for _ in range(2)]
    for one in unknown:
        one.reset()
    assert not np.array_equal(*(one.get_attr("task") for one in unknown))


def test_it_is_drawn_where_the_family_is() -> None:
    env = metarl.sb3.make_vec_env(NAVIGATION, 2, seed=1, render_mode="rgb_array")
    env.reset()
    picture = env.render()
    assert picture is not None
    assert picture.ndim == 3
    env.close()


@pytest.mark.parametrize("algorithm", [PPO, A2C, SAC, TD3])
@pytest.mark.parametrize("family", [NAVIGATION, "toy_families:toy/Sign-v0"])
def test_algorithms_of_stable_baselines3_train_on_it(algorithm: Any, family: str) -> None:
    arguments: dict[str, Any] = {
        PPO: {"n_steps": 16, "batch_size": 64},
        A2C: {},
        SAC: {"learning_starts": 20, "batch_size": 16},
        TD3: {"learning_starts": 20, "batch_size": 16},
    }[algorithm]
    env = VecNormalize(metarl.sb3.make_vec_env(family, 4, seed=1))
    model = algorithm("MlpPolicy", env, seed=3, policy_kwargs={"net_arch": [8]}, **arguments).learn(200)
    assert model.num_timesteps >= 200
    assert all(np.isfinite(value.detach().numpy()).all() for value in model.policy.parameters())
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4)
    assert np.isfinite(mean)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n_envs": 0}, "n_envs is 0"),
        ({"n_envs": 2.5}, "n_envs is 2.5"),
        ({"tasks": "all"}, "tasks is 'all'; expected 'random', or 2 tasks"),
        ({"tasks": [[0.1, 0.1]]}, "1 tasks for n_envs = 2 environments; give one for each"),
        ({"tasks": [0.1, 0.2]}, "single task"),
        ({"tasks": [[0.1, 0.1], [9.0, 9.0]]}, "9"),
        ({"tasks": None}, "tasks is None; expected"),
        ({"trial_episodes": 0}, "trial_episodes is 0"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": "one"}, "the seed is 'one'"),
        ({"family": "metarl/Navigaton2D-v0"}, "unknown family"),
        ({"speed": 3}, "cannot be made"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"render_mode": "movie"}, "movie"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        metarl.sb3.make_vec_env(**{"family": NAVIGATION, "n_envs": 2, **arguments})


def test_a_failing_environment_is_named() -> None:
    env = metarl.sb3.make_vec_env("toy_faults:Leaves", 2, seed=1, where="step", what="error")
    env.reset()
    with pytest.raises(
        RolloutError, match=r"Leaves, task \[.*\], sub-environment 0 raised RuntimeError: .*, at step 0"
    ):
        env.step(np.zeros((2, *env.action_space.shape), np.float32))
