"""One file for all families that metarl registers, parametrised by the registry: a new family is tested by existing."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from informed import POLICIES

import metarl
from metarl.envs import list_families
from metarl.envs import tasks as task_tools

# Parameterized-v0, which is not batched, is whatever environment it is given: its tests are in the folder families/.
FAMILIES = [listing.id for listing in list_families() if listing.source == "metarl" and listing.batched]
BATCHED = FAMILIES


def space_of(family: str) -> spaces.Space[Any]:
    return task_tools.task_space(metarl.make(family))


def play(env: gymnasium.Env[Any, Any], steps: int = 40, **options: Any) -> list[Any]:
    """Play with always the same seed and actions; return what was observed and paid."""
    env.action_space.seed(0)
    observation, _ = env.reset(seed=1, options=options or None)
    played = [np.asarray(observation).tolist()]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        played.append((np.asarray(observation).tolist(), reward))
        if terminated or truncated:
            break
    return played


def test_there_are_families() -> None:
    assert len(FAMILIES) >= 10
    assert "metarl/Navigation2D-v0" in FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_gymnasiums_and_our_checker_find_nothing(family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Gymnasium's own spaces for its environments have no bounds on velocities, which it warns of.
        warnings.filterwarnings("ignore", message=".*-?infinity. This is probably too")
        check_env(gymnasium.make(family).unwrapped, skip_render_check=True)
    assert metarl.check_family(family) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_its_docstring_is_a_data_sheet(family: str) -> None:
    text = type(metarl.make(family).unwrapped).__doc__ or ""
    assert f"(``{family}``)" in text
    parts = ("What varies", "Hidden", "Observation", "Action", "Reward", "Ends", "Splits", "Source", "Versions")
    assert [part for part in parts if f"**{part}**" not in text] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_lie_in_the_space_and_splits_repeat_and_differ(family: str) -> None:
    env = metarl.make(family)
    space = task_tools.task_space(env)
    drawn = []
    for split in task_tools.SPLITS:
        batch = metarl.sample_tasks(family, 8, seed=3, split=split)
        assert all(space.contains(task) for task in task_tools.unstack_tasks(space, batch))
        assert space.contains(task_tools.as_task(env, task_tools.plain(task_tools.take_tasks(batch, 0))))
        assert task_tools.plain(batch) == task_tools.plain(metarl.sample_tasks(family, 8, seed=3, split=split))
        drawn.append({str(task_tools.plain(task)) for task in task_tools.unstack_tasks(space, batch)})
        assert len(drawn[-1]) > 1
    if task_tools.attribute(env, "splits_share_tasks", False):
        assert len(set.union(*drawn)) < 24
    else:
        assert len(set.union(*drawn)) == 24


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_stays_until_another_is_given(family: str) -> None:
    env = metarl.make(family)
    first, second = task_tools.unstack_tasks(space_of(family), metarl.sample_tasks(family, 2, seed=1))
    one, other = play(env, task=first), play(env, task=second)
    assert one != other
    assert play(env) == other
    assert play(env, task=first) == one
    assert play(env) == one


@pytest.mark.parametrize("family", BATCHED)
def test_the_batched_and_the_single_environment_agree_step_by_step(family: str) -> None:
    limit = 60
    tasks = metarl.sample_tasks(family, 3, seed=4)
    space = space_of(family)
    vector = metarl.make_vec(family, 6, max_episode_steps=limit)
    vector.action_space.seed(5)
    singles = [metarl.make(family, max_episode_steps=limit) for _ in range(6)]
    given = task_tools.unstack_tasks(space, task_tools.repeat_tasks(tasks, 2))
    for again in (False, True):  # a second episode without seeds goes on with each one's own randomness
        seeds = None if again else [1, 2, 3, 1, 2, 2]
        observations, _ = vector.reset(
            seed=seeds, options=None if again else {"tasks": task_tools.repeat_tasks(tasks, 2)}
        )
        for i, env in enumerate(singles):
            options = None if again else {"task": given[i]}
            first, _ = env.reset(seed=None if seeds is None else seeds[i], options=options)
            np.testing.assert_array_equal(observations[i], first)
        running = [True] * 6
        for _ in range(limit):
            actions = vector.action_space.sample()
            observations, rewards, terminated, truncated, _ = vector.step(actions)
            for i, env in enumerate(singles):
                if not running[i]:
                    assert rewards[i] == 0.0
                    continue
                observation, reward, ended, cut, _ = env.step(actions[i])
                np.testing.assert_array_equal(observations[i], observation)
                assert (rewards[i], terminated[i], truncated[i]) == (reward, ended, cut)
                running[i] = not (ended or cut)
        assert running == [False] * 6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reset_mask_changes_only_its_rows(family: str) -> None:
    vector = metarl.make_vec(family, 3)
    tasks = metarl.sample_tasks(family, 3)
    given = {"tasks": tasks}
    vector.reset(seed=[1, 2, 3], options=given)
    assert given == {"tasks": tasks}  # Gymnasium's own pop keys out of the caller's dict
    vector.action_space.seed(0)
    actions = vector.action_space.sample()
    before, first, *_ = vector.step(actions)
    mask = np.array([False, True, False])
    changed = metarl.sample_tasks(family, 3, seed=9)
    after, _ = vector.reset(seed=[4, 2, 4], options={"tasks": changed, "reset_mask": mask})
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    for row, batch in enumerate([tasks, changed, tasks]):
        kept, expected = task_tools.take_tasks(vector.unwrapped.tasks, row), task_tools.take_tasks(batch, row)
        assert task_tools.plain(kept) == task_tools.plain(expected)
    assert first.shape == (3,)
    untouched, _ = vector.reset(options={"reset_mask": np.zeros(3, dtype=np.bool_)})
    np.testing.assert_array_equal(untouched, after)


def misfits(space: spaces.Space[Any], task: Any) -> list[Any]:
    """Return values that do not have the structure or shape of a task."""
    if isinstance(space, spaces.Dict):
        key = next(iter(space.spaces))
        inside = [{**task, key: wrong} for wrong in misfits(space[key], task[key])]
        return [{**task, "unknown": 1.0}, {k: v for k, v in task.items() if k != key}, *inside]
    if isinstance(space, spaces.Discrete):
        return [[int(task)], "0", 0.5]
    return [np.zeros((*space.shape, 2)).tolist(), "no numbers"]


def outsiders(space: spaces.Space[Any], task: Any) -> list[Any]:
    """Return values of a task's structure that lie outside its space."""
    if isinstance(space, spaces.Dict):
        return [{**task, key: wrong} for key, part in space.spaces.items() for wrong in outsiders(part, task[key])]
    if isinstance(space, spaces.Discrete):
        return [int(space.start - 1), int(space.start + space.n)]
    assert isinstance(space, spaces.Box)
    bounds = [(space.high + space.dtype.type(1)).tolist()] if space.is_bounded("above") else []
    return [*bounds, *([np.full(space.shape, np.nan).tolist()] if space.dtype.kind == "f" else [])]


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_tasks_are_one_sentence_each(family: str) -> None:
    env = metarl.make(family)
    space = task_tools.task_space(env)
    vector = metarl.make_vec(family, 2)
    task = task_tools.unstack_tasks(space, metarl.sample_tasks(family, 1))[0]
    for wrong in misfits(space, task):
        with pytest.raises(ValueError, match=r"does not fit|outside its space"):
            env.reset(options={"task": wrong})
    for wrong in outsiders(space, task):
        with pytest.raises(ValueError, match=r"outside its space|is not finite"):
            env.reset(options={"task": wrong})
        with pytest.raises(ValueError, match=r"outside its space|is not finite"):
            vector.reset(options={"tasks": task_tools.stack_tasks(space, [task, wrong])})
    with pytest.raises(ValueError, match="3 tasks for 2 sub-environments"):
        vector.reset(options={"tasks": metarl.sample_tasks(family, 3)})


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_actions_are_one_sentence_each(family: str) -> None:
    env, vector = metarl.make(family), metarl.make_vec(family, 2)
    env.reset()
    vector.reset()
    with pytest.raises(ValueError, match="actions have shape"):
        vector.step(np.zeros((5, 1)))
    if isinstance(vector.single_action_space, spaces.Box):
        with pytest.raises(ValueError, match=r"sub-environment 0 of .* is .*nan.*; expected finite numbers"):
            vector.step(np.full(vector.action_space.shape, np.nan))
        with pytest.raises(ValueError, match="expected finite numbers"):
            env.step(np.full(env.action_space.shape, np.inf))
    else:
        count = int(vector.single_action_space.n)
        for wrong in ([np.nan, 0.0], [count, 0], [-1, 0]):
            with pytest.raises(ValueError, match=f"sub-environment 0 .*expected whole numbers from 0 to {count - 1}"):
                vector.step(np.array(wrong))
            with pytest.raises(ValueError, match="expected whole numbers"):
                env.step(wrong[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_arguments_are_one_sentence_each(family: str) -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        metarl.make_vec(family, 0)
    with pytest.raises(ValueError, match="wrong_argument"):
        metarl.make(family, wrong_argument=1)
    with pytest.raises(ValueError, match="wrong_argument"):
        metarl.make_vec(family, 2, wrong_argument=1)
    with pytest.raises(ValueError, match="max_episode_steps"):
        metarl.make(family, max_episode_steps=0)
    with pytest.raises(ValueError, match="max_episode_steps"):
        metarl.make_vec(family, 2, max_episode_steps=0)
    with pytest.raises(ValueError, match="render"):
        metarl.make_vec(family, 2, render_mode="rgb_array")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_time_limit_reaches_single_and_batched_alike(family: str) -> None:
    env, vector = metarl.make(family, max_episode_steps=3), metarl.make_vec(family, 2, max_episode_steps=3)
    env.reset(seed=0)
    vector.reset(seed=0)
    action = np.zeros(env.action_space.shape, dtype=env.action_space.dtype)
    ends = [env.step(action)[2:4] for _ in range(3)]
    batched = [[x.tolist() for x in vector.step(np.stack([action, action]))[2:4]] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    assert batched == [[[False] * 2, [False] * 2]] * 2 + [[[False] * 2, [True] * 2]]


@pytest.mark.parametrize("family", FAMILIES)
def test_any_whole_number_from_zero_on_is_a_seed(family: str) -> None:
    env = metarl.make(family)
    for seed in (2**31 - 1, 2**31, 2**64 + 3):
        first, again = env.reset(seed=seed)[0], env.reset(seed=seed)[0]
        np.testing.assert_array_equal(first, again)
        vector = metarl.make_vec(family, 1)
        np.testing.assert_array_equal(vector.reset(seed=[seed])[0][0], first)


@pytest.mark.parametrize("family", FAMILIES)
def test_observations_share_no_memory(family: str) -> None:
    vector = metarl.make_vec(family, 2)
    first, _ = vector.reset(seed=1)
    copy = np.array(first)
    vector.action_space.seed(1)
    second, *_ = vector.step(vector.action_space.sample())
    np.testing.assert_array_equal(first, copy)
    assert not np.shares_memory(first, second)


def has_oracle(family: str) -> bool:
    return task_tools.attribute(metarl.make(family), "oracle_return") is not None


@pytest.mark.parametrize("family", [family for family in FAMILIES if has_oracle(family)])
def test_the_optimum_is_what_one_who_knows_the_task_reaches(family: str) -> None:
    episodes = 400
    vector = metarl.make_vec(family, episodes)
    oracle = task_tools.attribute(metarl.make(family), "oracle_return")
    for task in task_tools.unstack_tasks(space_of(family), metarl.sample_tasks(family, 4, seed=5)):
        act = POLICIES[family](task)
        batch = task_tools.stack_tasks(space_of(family), [task] * episodes)
        observations, _ = vector.reset(seed=0, options={"tasks": batch})
        returns, running, step = np.zeros(episodes), np.ones(episodes, dtype=bool), 0
        while running.any():
            observations, rewards, terminated, truncated, _ = vector.step(act(observations, step))
            returns += rewards
            running &= ~(terminated | truncated)
            step += 1
        error = returns.std() / np.sqrt(episodes)
        assert returns.mean() <= oracle(task) + 4 * error + 1e-4
        assert returns.mean() >= oracle(task) - 4 * error - 0.03
        assert vector.unwrapped.oracle_return(task) == oracle(task)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_show_the_task_and_the_episode(family: str) -> None:
    modes = metarl.make(family).metadata["render_modes"]
    if "rgb_array" not in modes:
        with pytest.warns(UserWarning, match="render"), pytest.raises(ValueError, match="unknown render_mode"):
            metarl.make(family, render_mode="rgb_array")
        return
    plain = metarl.make(family)
    plain.reset()
    assert plain.render() is None
    env = metarl.make(family, render_mode="rgb_array")
    env.reset(seed=1)
    env.action_space.seed(1)
    try:
        before = env.render()
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        pytest.skip("MuJoCo cannot draw on this machine")
    for _ in range(5):
        env.step(env.action_space.sample())
    after = env.render()
    assert before.shape == after.shape
    assert before.shape[2] == 3
    assert before.dtype == np.uint8
    assert (before != after).any()
