"""Vector environments of single environments, in one process and in several: what is shared, checked and handed on."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import VectorEnv

import metarl
from metarl.envs import RolloutError, WorkerFamilyVectorEnv, choose_workers
from metarl.envs import tasks as task_tools
from metarl.envs.actions import standard_actions

SIGN = "toy_families:toy/Sign-v0"
TASKS = np.array([[1.0], [-1.0], [0.5]], np.float32)


@pytest.fixture(params=[0, 1, 2], ids=["one process", "1 worker", "2 workers"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a function that makes a vector environment, in this process or with workers."""
    made: list[VectorEnv[Any, Any, Any]] = []

    def make_one(family: str, num_envs: int = 3, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
        if request.param == 0:
            made.append(metarl.make_vec(family, num_envs, **kwargs))
        else:
            made.append(WorkerFamilyVectorEnv(family, num_envs, workers=request.param, step_timeout=60.0, **kwargs))
        return made[-1]

    yield make_one
    for vector in made:
        vector.close()


def ones(vector: VectorEnv[Any, Any, Any]) -> Any:
    return np.ones(vector.action_space.shape, np.float32)


def test_a_dict_given_to_the_constructor_is_shared_by_nobody(make: Any) -> None:
    config = {"sign": 0.25}
    vector = make("toy_families:toy/KeepsConfig-v0", config=config)
    vector.reset(seed=1, options={"tasks": TASKS})
    assert vector.step(ones(vector))[1].tolist() == [2.0, -2.0, 1.0]
    assert config == {"sign": 0.25}
    single = metarl.make("toy_families:toy/KeepsConfig-v0", config=config, task=[1.0])
    single.reset()
    assert config == {"sign": 0.25}


def test_a_dict_that_is_the_default_is_shared_by_nobody(make: Any) -> None:
    vector = make("toy_families:toy/KeepsDefault-v0")
    vector.reset(seed=1, options={"tasks": TASKS})
    assert vector.step(ones(vector))[1].tolist() == [2.0, -2.0, 1.0]
    kwargs = {"env": "toy_families:toy/KeepsDefault-v0", "parameters": {"sign": [-1.0, 1.0]}}
    envs = [metarl.make("metarl/Parameterized-v0", **kwargs).unwrapped.inner.unwrapped for _ in range(2)]
    assert envs[0].config is not envs[1].config


def test_an_argument_that_cannot_be_copied_is_named() -> None:
    with pytest.raises(ValueError, match=r"the argument 'config' of family .*KeepsConfig-v0 cannot be copied"):
        metarl.make("toy_families:toy/KeepsConfig-v0", config={"lock": threading.Lock()})


def test_a_task_that_the_caller_changes_later_stays_what_it_was() -> None:
    tasks = TASKS.copy()
    vector = metarl.make_vec(SIGN, 3)
    vector.reset(options={"tasks": tasks})
    tasks[:] = 0.0
    assert vector.step(ones(vector))[1].tolist() == [2.0, -2.0, 1.0]


def test_infos_are_arrays_of_the_numbers_and_truth_values_in_them(make: Any) -> None:
    vector = make("toy_families:toy/ChangingInfo-v0")
    assert vector.reset(seed=1, options={"tasks": TASKS})[1] == {}
    nan = np.nan
    expected = [
        {"success": [1.0, 0.0, 1.0], "mixed": [1.0] * 3},
        {"success": [1.0] * 3, "speed": [0.5] * 3},
        {"speed": [0.25] * 3, "count": [3.0] * 3},
    ]
    for wanted in expected:
        infos = vector.step(ones(vector))[4]
        assert {key: values.tolist() for key, values in infos.items()} == wanted
        assert all(values.dtype == np.float64 for values in infos.values())
    assert vector.step(ones(vector))[4] == {}
    vector.reset(options={"reset_mask": np.array([False, True, False])})
    success = vector.step(ones(vector))[4]["success"]
    np.testing.assert_array_equal(success, [nan, 0.0, nan])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("shape", r"an array of shape \(3,\) and type float32, expected an array of shape \(2,\) and type float32"),
        ("dtype", r"the observation as an array of shape \(2,\) and type <U1, expected"),
        ("none", "the observation as None, expected an array of shape"),
        ("reward", "gave the reward None, expected a number"),
        ("end", "gave terminated as None, expected True or False"),
        ("end_nan", "gave truncated as nan, expected True or False"),
        ("end_two", r"gave terminated as .*2.*, expected True or False"),
        ("four", "returned a tuple of 4 values, expected five values: observation, reward, terminated"),
        ("info", "gave the info None, expected a dict"),
    ],
)
def test_what_an_environment_must_not_return_is_named_with_its_number(wrong: str, message: str, make: Any) -> None:
    vector = make("toy_families:toy/Returns-v0", wrong=wrong)
    vector.reset(options={"tasks": TASKS[[1, 0, 1]]})
    vector.step(ones(vector))
    with pytest.raises(RolloutError, match=message) as caught:
        vector.step(ones(vector))
    assert caught.value.env_index == 1


@pytest.mark.parametrize(
    ("observations", "wrong", "message"),
    [
        ("dict", "key", r"keys \['image'\], expected a dict with the keys \['count', 'image', 'vector'\]"),
        ("dict", "part", r"key 'image', as an array of shape \(36, 40\) and type float64, expected .* and type uint8"),
        ("dict", "shape", "expected a dict with the keys"),
        ("discrete", "choice", "the observation as 7, expected a whole number from 0 to 3"),
        ("image", "shape", r"expected an array of shape \(1, 36, 36\) and type uint8"),
    ],
)
def test_parts_of_observations_are_named(observations: str, wrong: str, message: str) -> None:
    vector = metarl.make_vec("toy_families:toy/Returns-v0", 2, wrong=wrong, observations=observations)
    vector.reset(options={"tasks": TASKS[[1, 0]]})
    vector.step(ones(vector))
    with pytest.raises(RolloutError, match=message) as caught:
        vector.step(ones(vector))
    assert caught.value.env_index == 1


def test_numbers_of_another_precision_are_taken() -> None:
    vector = metarl.make_vec("toy_families:toy/WrongDtype-v0", 2)
    observations, _ = vector.reset()
    assert observations.dtype == vector.observation_space.dtype == np.float32


def test_wrong_actions_and_a_first_reset_of_some_are_one_sentence() -> None:
    vector = metarl.make_vec(SIGN, 3)
    with pytest.raises(ValueError, match="sub-environment 1 was never reset"):
        vector.reset(options={"reset_mask": np.array([True, False, True])})
    vector.reset()
    with pytest.raises(ValueError, match=r"actions have shape \(2, 1\), expected \(3, 1\)"):
        vector.step(np.ones((2, 1), np.float32))


SOME_ENDS = spaces.Box(np.array([0.1, -np.inf, -2.0, -np.inf]), np.array([np.inf, 0.5, 3.0, np.inf]), dtype=np.float64)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([0.5, 0.25, 0.0, 7.0], [0.5, 0.25, 0.5, 7.0]),
        ([-9.0, 9.0, 9.0, 9.0], [0.1, 0.5, 3.0, 9.0]),
        ([9.0, -9.0, -9.0, -9.0], [9.0, -9.0, -2.0, -9.0]),
    ],
)
def test_entries_with_two_ends_are_mapped_and_others_clipped_to_the_end_they_have(
    action: list[float], expected: list[float]
) -> None:
    mapped = standard_actions(SOME_ENDS)
    assert mapped is not None
    seen, convert = mapped
    assert isinstance(seen, spaces.Box)
    np.testing.assert_array_equal(seen.low, np.array([0.1, -np.inf, -1.0, -np.inf], np.float32))
    np.testing.assert_array_equal(seen.high, np.array([np.inf, 0.5, 1.0, np.inf], np.float32))
    for given in (np.array(action), np.array(action, np.float32), np.array([action, action], np.float32)):
        converted = convert(given)
        np.testing.assert_allclose(converted, np.broadcast_to(expected, given.shape), rtol=1e-6)
        assert all(SOME_ENDS.contains(one) for one in np.atleast_2d(converted))
    with pytest.raises(ValueError, match="expected finite numbers"):
        convert(np.array([0.5, 0.25, np.nan, 7.0]))


@pytest.mark.parametrize("low", [-0.1, -1.7, 0.3, -1e300])
@pytest.mark.parametrize("width", [0.4, 1.1, 1e300])
def test_no_mapped_action_leaves_its_box_by_rounding(low: float, width: float) -> None:
    box = spaces.Box(low, low + width, (3,), np.float64)
    mapped = standard_actions(box)
    assert mapped is not None
    for action in np.linspace(-1.0, 1.0, 101):
        assert box.contains(mapped[1](np.full(3, action, np.float32)))


@pytest.mark.parametrize("actions", ["some ends", "number", "wide number"])
def test_no_action_outside_its_box_reaches_an_environment(actions: str, make: Any) -> None:
    """The toy environment itself asserts that its action space contains the action."""
    vector = make(SIGN, actions=actions)
    single = metarl.make(SIGN, actions=actions)
    assert vector.single_action_space == single.action_space
    vector.reset(options={"tasks": TASKS})
    single.reset(options={"task": TASKS[0]})
    for factor in (9.0, -9.0):
        rewards = vector.step(factor * ones(vector))[1]
        one = np.asarray(np.full(single.action_space.shape, factor), np.float32)
        assert rewards[0] == pytest.approx(single.step(one)[1])
        assert rewards[1] == -rewards[0]
    if actions == "wide number":
        assert rewards[0] == -2.0


@pytest.mark.parametrize("actions", ["some ends", "number", "wide number"])
def test_the_checker_takes_boxes_without_axes_and_with_some_ends(actions: str) -> None:
    assert metarl.check_family(SIGN, actions=actions) == []


@pytest.mark.parametrize("actions", ["box", "some ends", "wide number", "discrete", "multi"])
def test_an_environment_with_mapped_actions_can_be_copied_and_pickled(actions: str) -> None:
    env = metarl.make(SIGN, actions=actions, task=[1.0])
    env.reset(seed=1)
    action = np.zeros(env.action_space.shape, env.action_space.dtype)
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = env.step(action)[1]
    assert [one.step(action)[1] for one in copies] == [expected] * 2


def in_pool(workers: int | None) -> Any:
    slow = "toy_families:toy/Slow-v0"
    if workers is None:
        return choose_workers(slow, 40)
    try:
        WorkerFamilyVectorEnv(slow, 4, workers=workers, step_timeout=10.0)
    except ValueError as error:
        return str(error)
    return None


def test_a_daemonic_process_starts_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.current_process()
    monkeypatch.setattr(type(process), "daemon", property(lambda _: True))
    assert in_pool(None) == 1
    assert in_pool(2) == (
        "workers is 2, but this process is daemonic, as those of multiprocessing.Pool are, so it may not start others; "
        'use learning.workers = 1 or "auto"'
    )


def test_counted_seeds_stay_below_those_of_c(make: Any) -> None:
    vector = make("toy_families:toy/SeedOfC-v0")
    for seed in (2**31 - 1, 2**31, 2**40):
        vector.reset(seed=seed)
    assert task_tools.spread_seed(2**31 - 2, 3) == [2**31 - 2, 2**31 - 1, 0]
    assert task_tools.spread_seed(7, 3) == [7, 8, 9]
    with pytest.raises(RolloutError, match="raised error in reset") as caught:
        vector.reset(seed=[1, 2**31, 1])
    assert caught.value.env_index == 1
    with pytest.raises(ValueError, match="2 seeds for 3 sub-environments; expected one for each"):
        metarl.make_vec(SIGN, 3).reset(seed=[1, 2])


def test_words_are_tasks(make: Any) -> None:
    family = "toy_families:toy/Words-v0"
    assert metarl.check_family(family) == []
    env = metarl.make(family)
    assert metarl.as_task(env, "left") == "left"
    for wrong in ("", "too long", "a b", 3, None, ["a"]):
        with pytest.raises(ValueError, match="expected a text of 1 to 5 of the characters"):
            metarl.as_task(env, wrong)
    tasks = metarl.sample_tasks(family, 3, seed=1)
    assert task_tools.plain(tasks) == [str(task) for task in tasks]
    space = task_tools.task_space(env)
    repeated = task_tools.repeat_tasks(task_tools.stack_tasks(space, ["a", "left"]), 2)
    assert task_tools.unstack_tasks(space, repeated) == ["a", "a", "left", "left"]
    vector = make(family, 4)
    vector.reset(options={"tasks": repeated})
    assert vector.step(ones(vector))[1].tolist() == [1.0, 1.0, 4.0, 4.0]
    inside = spaces.Dict({"word": space, "size": spaces.Box(0.0, 1.0, (2,), np.float32)})
    task = {"size": np.array([0.5, 0.25], np.float32), "word": "up"}
    batch = task_tools.stack_tasks(inside, [task, task])
    assert task_tools.plain(task_tools.unstack_tasks(inside, batch)[1]) == {"size": [0.5, 0.25], "word": "up"}
    with pytest.raises(ValueError, match="have texts, which cannot be turned into numbers; use a Discrete space"):
        task_tools.to_vectors(inside, batch)
