"""One file for all families that metarl registers, parametrised by the registry: a new family is tested by existing."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import metarl
from metarl.envs import list_families
from metarl.envs import tasks as task_tools

FAMILIES = [listing.id for listing in list_families() if listing.source == "metarl"]


def test_there_are_families() -> None:
    assert "metarl/Navigation2D-v0" in FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_gymnasiums_and_our_checker_find_nothing(family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(family).unwrapped, skip_render_check=True)
    assert metarl.check_family(family) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_lie_in_the_space_and_splits_repeat(family: str) -> None:
    env = metarl.make(family)
    space = task_tools.task_space(env)
    for split in task_tools.SPLITS:
        batch = metarl.sample_tasks(family, 5, seed=3, split=split)
        assert all(space.contains(task) for task in task_tools.unstack_tasks(space, batch))
        assert task_tools.plain(batch) == task_tools.plain(metarl.sample_tasks(family, 5, seed=3, split=split))
        assert len({str(task) for task in task_tools.plain(batch)}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_stays_until_another_is_given(family: str) -> None:
    env = metarl.make(family)
    first, second = task_tools.unstack_tasks(task_tools.task_space(env), metarl.sample_tasks(family, 2))
    env.action_space.seed(0)
    action = env.action_space.sample()

    def reward(**options: object) -> float:
        env.reset(seed=1, options=options or None)
        return float(env.step(action)[1])

    one, other = reward(task=first), reward(task=second)
    assert one != other
    assert reward() == other
    assert reward(task=first) == one
    assert reward() == one


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
    kept = task_tools.take_tasks(vector.unwrapped.tasks, np.array([0, 2]))
    assert task_tools.plain(kept) == task_tools.plain(task_tools.take_tasks(tasks, np.array([0, 2])))
    assert task_tools.plain(vector.unwrapped.tasks)[1] == task_tools.plain(changed)[1]
    assert first.shape == (3,)


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_input_is_one_sentence(family: str) -> None:
    vector = metarl.make_vec(family, 2)
    with pytest.raises(ValueError, match="3 tasks for 2 sub-environments"):
        vector.reset(options={"tasks": metarl.sample_tasks(family, 3)})
    vector.reset()
    with pytest.raises(ValueError, match="actions have shape"):
        vector.step(np.zeros((5, 1)))
    if isinstance(vector.single_action_space, gymnasium.spaces.Box):
        with pytest.raises(ValueError, match="expected finite numbers"):
            vector.step(np.full(vector.action_space.shape, np.nan))
    with pytest.raises(ValueError, match="num_envs is 0"):
        metarl.make_vec(family, 0)
    with pytest.raises(ValueError, match="wrong_argument"):
        metarl.make(family, wrong_argument=1)
    with pytest.raises(ValueError, match="max_episode_steps"):
        metarl.make(family, max_episode_steps=0)
    with pytest.raises(ValueError, match="max_episode_steps"):
        metarl.make_vec(family, 2, max_episode_steps=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_observations_share_no_memory(family: str) -> None:
    vector = metarl.make_vec(family, 2)
    first, _ = vector.reset(seed=1)
    copy = np.array(first)
    vector.action_space.seed(1)
    second, *_ = vector.step(vector.action_space.sample())
    np.testing.assert_array_equal(first, copy)
    assert not np.shares_memory(first, second)
