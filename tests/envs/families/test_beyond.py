"""Tasks beyond the ranges of a family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.envs import tasks as task_tools
from metarl.envs.families.beyond import draw_beyond, stretched, widened_space

ENDS = st.tuples(st.floats(-50, 50), st.floats(0.125, 50)).map(lambda part: (round(part[0], 3), round(sum(part), 3)))


@settings(deadline=None)
@given(ENDS, st.floats(0.01, 4.0), st.integers(0, 2**31))
def test_every_number_lies_beyond_its_range_and_within_the_wider_one(
    ends: tuple[float, float], beyond: float, seed: int
) -> None:
    low, high = ends
    space = spaces.Dict({"one": spaces.Box(low, high, (3,), np.float64), "kind": spaces.Discrete(4)})
    inside = task_tools.uniform_tasks(space, 8, np.random.default_rng(0))
    drawn = draw_beyond(space, inside, beyond, np.random.default_rng(seed))
    numbers = drawn["one"]
    assert numbers.shape == (8, 3)
    assert ((numbers < low) | (numbers > high)).all()
    wider = widened_space(space, beyond)
    assert all(wider.contains(task) for task in task_tools.unstack_tasks(wider, drawn))
    np.testing.assert_array_equal(drawn["kind"], inside["kind"])
    if low > 0:
        assert (numbers > 0).all()
    if high < 0:
        assert (numbers < 0).all()
    again = draw_beyond(space, inside, beyond, np.random.default_rng(seed))
    np.testing.assert_array_equal(again["one"], numbers)


@settings(deadline=None)
@given(ENDS, st.floats(0.0, 1.0))
def test_within_a_range_nothing_is_stretched(ends: tuple[float, float], at: float) -> None:
    low, high = np.array(ends[0]), np.array(ends[1])
    assert float(stretched(low, high, np.array(at))) == pytest.approx(float(low + (high - low) * at))


FAMILIES: list[tuple[str, dict[str, Any], Any]] = [
    (
        "metarl/CartPoleParams-v0",
        {},
        {"gravity": 20.0, "masscart": 2.1, "masspole": 0.6, "length": 1.1, "force_mag": 21.0},
    ),
    ("metarl/Navigation2D-v0", {}, [0.7, -0.7]),
    ("metarl/Parameterized-v0", {"env": "CartPole-v1", "parameters": {"gravity": [5.0, 15.0]}}, {"gravity": 18.0}),
]


@pytest.mark.parametrize(("family", "kwargs", "task"), FAMILIES, ids=[family for family, _, _ in FAMILIES])
def test_environments_made_for_it_play_tasks_beyond_and_others_do_not(
    family: str, kwargs: dict[str, Any], task: Any
) -> None:
    with pytest.raises(ValueError, match="outside its space"):
        metarl.make(family, task=task, **kwargs)
    env = metarl.make(family, task=task, beyond_ranges=0.5, **kwargs)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    vector = metarl.make_vec(family, 2, beyond_ranges=0.5, **kwargs)
    single = task_tools.as_task(env, task)
    batch = task_tools.stack_tasks(task_tools.task_space(env), [single, single])
    vector.reset(seed=0, options={"tasks": batch})
    vector.step(vector.action_space.sample())
    vector.close()


def test_the_values_beyond_reach_the_environment() -> None:
    env = metarl.make(
        "metarl/Parameterized-v0", env="CartPole-v1", parameters={"gravity": [5.0, 15.0]}, beyond_ranges=0.5
    )
    env.reset(options={"task": {"gravity": 18.0}})
    assert env.unwrapped.inner.unwrapped.gravity == 18.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("beyond", [0, -1.0, True, "far", float("inf")])
def test_how_far_is_a_number_above_0(beyond: Any) -> None:
    with pytest.raises(ValueError, match=r"beyond_ranges is .*; expected a number above 0"):
        metarl.make("metarl/Navigation2D-v0", beyond_ranges=beyond)


@pytest.mark.parametrize("name", ["BernoulliBandit-v0", "TabularMDP-v0", "CornerNavigation2D-v0"])
def test_a_family_without_anything_beyond_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"the tasks of metarl/{name} have no ranges of numbers beyond which"):
        metarl.make(f"metarl/{name}", beyond_ranges=0.5)
