"""Making families, tasks as people write them, the checker, and vector environments of single ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import metarl
from metarl.envs import registry
from metarl.envs import tasks as task_tools

SIGN = "toy_families:toy/Sign-v0"


def test_a_foreign_box_is_mapped_to_the_unit_box_alike_for_single_and_vector() -> None:
    for family in (SIGN, "toy_families:toy/SignBatched-v0"):
        env, vector = metarl.make(family, task=[1.0]), metarl.make_vec(family, 2)
        assert env.action_space == vector.single_action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
        env.reset()
        vector.reset(options={"tasks": np.array([[1.0], [-1.0]], np.float32)})
        assert env.step(np.array([0.5], np.float32))[1] == pytest.approx(1.0)
        assert vector.step(np.array([[0.5], [7.0]], np.float32))[1].tolist() == pytest.approx([1.0, -2.0])


@pytest.mark.parametrize("actions", ["discrete", "multi"])
def test_discrete_actions_start_at_zero(actions: str) -> None:
    env = metarl.make(SIGN, task=[1.0], actions=actions)
    vector = metarl.make_vec(SIGN, 2, actions=actions)
    vector.reset(options={"tasks": np.ones((2, 1), np.float32)})
    env.reset()
    lowest = np.zeros(env.action_space.shape, np.int64)
    assert env.action_space.contains(lowest)
    expected = -1.0 if actions == "discrete" else 0.0
    assert env.step(lowest)[1] == expected
    assert vector.step(np.stack([lowest, lowest]))[1].tolist() == [expected] * 2


def test_a_fixed_task_is_played_unless_another_is_named() -> None:
    env = metarl.make(SIGN, task=[0.5])
    rewards = []
    for options in (None, {"task": np.array([-1.0], np.float32)}, None):
        env.reset(options=options)
        rewards.append(env.step(np.ones(1, np.float32))[1])
    assert rewards == pytest.approx([1.0, -2.0, 1.0])
    with pytest.raises(ValueError, match="outside its space"):
        metarl.make(SIGN, task=[5.0])


def test_random_tasks_are_new_each_episode_and_repeat_with_the_seed() -> None:
    env = metarl.RandomTask(metarl.make(SIGN))

    def rewards() -> list[float]:
        played = []
        for seed in (3, None, None):
            env.reset(seed=seed)
            played.append(float(env.step(np.ones(1, np.float32))[1]))
        return played

    first = rewards()
    assert len(set(first)) == 3
    assert rewards() == first
    with pytest.raises(ValueError, match="unknown split"):
        metarl.RandomTask(metarl.make(SIGN), split="tets")


def test_finished_sub_environments_wait() -> None:
    vector = metarl.make_vec(SIGN, 2)
    tasks = np.array([[1.0], [-1.0]], np.float32)
    vector.reset(options={"tasks": tasks})
    actions = np.ones((2, 1), np.float32)
    for _ in range(3):
        observations, rewards, terminated, _, _ = vector.step(actions)
    assert terminated.all()
    assert rewards.tolist() == [2.0, -2.0]
    again, rewards, terminated, truncated, _ = vector.step(actions)
    np.testing.assert_array_equal(again, observations)
    assert rewards.tolist() == [0.0, 0.0]
    assert not (terminated | truncated).any()
    vector.reset(options={"reset_mask": np.array([True, False])})
    assert vector.step(actions)[1].tolist() == [2.0, 0.0]
    with pytest.raises(ValueError, match="3 tasks for 2 sub-environments"):
        vector.reset(options={"tasks": np.ones((3, 1), np.float32)})


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("TaskIgnored", "episodes of different tasks are the same"),
        ("OutsideSpace", "outside observation_space"),
        ("NotSeeded", "the same seed and task do not give the same episode"),
        ("NanReward", "the reward of step 1 is nan"),
        ("TasksOutside", "outside task_space"),
        ("WrongDtype", "outside observation_space"),
        ("Disagreeing", "differs between the batched and the single environment"),
        ("LeaksTasks", "sub-environments leak tasks into each other"),
        ("GivesAway", "the first observation differs between tasks"),
        ("GivesAwayLater", "entry 1 of the observations after the first is always entry 0 of the task"),
        ("SharesMemory", "share memory"),
        ("Unbatchable", "cannot be batched"),
        ("Forgets", "a reset without a task does not play the last one again"),
        ("NotReseeded", "check_env finds"),
        ("Redraws", "a reset without a task does not play the last one again"),
        ("SeedOfC", r"reset(seed=2147483648) raises error"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_checker_names_each_fault(name: str, fault: str) -> None:
    faults = metarl.check_family(f"toy_families:toy/{name}-v0")
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize("name", ["Sign", "SignBatched", "SaysSo", "NumpyEnds", "ChangingInfo", "KeepsConfig"])
def test_the_checker_finds_nothing_in_sound_families(name: str) -> None:
    assert metarl.check_family(f"toy_families:toy/{name}-v0") == []


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("shape", "the observation as an array of shape (3,)"),
        ("four", "returned a tuple of 4 values, expected five values"),
        ("info", "gave the info None"),
    ],
)
def test_the_checker_names_what_an_environment_must_not_return(wrong: str, fault: str) -> None:
    faults = metarl.check_family("toy_families:toy/Returns-v0", wrong=wrong)
    assert len(faults) == 1
    assert fault in faults[0]


def test_the_checker_names_a_key_that_no_policy_can_take() -> None:
    faults = metarl.check_family(SIGN, observations="dots")
    assert len(faults) == 1
    assert "the observation has the key 'robot.arm'" in faults[0]
    assert metarl.check_family(SIGN, observations="dict") == []


def test_the_checker_says_that_it_needs_assertions() -> None:
    code = "import metarl; print(metarl.check_family('metarl/Navigation2D-v0'))"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("['Python runs without assertions"), done.stdout + done.stderr


def test_an_environment_that_is_no_family_is_told_how_to_become_one() -> None:
    calls = (
        lambda: metarl.make("CartPole-v1"),
        lambda: metarl.make_vec("CartPole-v1", 2),
        lambda: metarl.make_vec("Pendulum-v1", 2),
        lambda: metarl.check_family("CartPole-v1"),
        lambda: metarl.sample_tasks("CartPole-v1", 2),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"'metarl/Parameterized-v0' with env='\w+-v1' and parameters={'name': "):
            call()


def test_unknown_families_offer_the_nearest() -> None:
    for name in ("metarl/Navigation2D", "navigation2d-v0", "metarl/Navigation-v0"):
        with pytest.raises(ValueError, match="metarl/Navigation2D-v0"):
            metarl.make(name)
    with pytest.raises(ValueError, match="cannot be imported"):
        metarl.make("no_such_module:X-v0")
    with pytest.raises(ValueError, match="registers no environment"):
        metarl.make("toy_families:toy/Nothing-v0")
    with pytest.raises(TypeError, match="no environment family"):
        metarl.make("toy_families:toy/NoSpace-v0")


class Entry:
    """Stands in for an entry point of an installed package."""

    def __init__(self, name: str, value: str, error: Exception | None = None) -> None:
        self.name, self.value, self.error = name, value, error
        self.module = value

    def load(self) -> Any:
        if self.error is not None:
            raise self.error
        return __import__(self.module)


def test_a_broken_plug_in_is_listed_with_its_fault_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry("bad", "bad_module", ImportError("no such thing")), Entry("toys", "toy_families")]
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: entries)
    listings = registry.list_families()
    assert listings[0].source == "metarl"
    faulty = [listing for listing in listings if listing.fault is not None]
    assert [(listing.source, listing.fault) for listing in faulty] == [("bad", "ImportError: no such thing")]
    assert "toy/Sign-v0" in [listing.id for listing in listings if listing.source == "toys"]


SPACES: list[tuple[spaces.Space[Any], Any, Any]] = [
    (spaces.Box(-1, 1, (2,), np.float32), [0.5, -1], np.array([0.5, -1], np.float32)),
    (spaces.Box(-1, 1, (), np.float32), 0.25, np.array(0.25, np.float32)),
    (spaces.Discrete(3, start=1), 3, np.int64(3)),
    (spaces.MultiDiscrete([2, 3]), [1, 2], np.array([1, 2])),
    (
        spaces.Dict({"mass": spaces.Box(0, 1, (1,), np.float32), "kind": spaces.Discrete(2)}),
        {"mass": [0.5], "kind": 1},
        {"mass": np.array([0.5], np.float32), "kind": np.int64(1)},
    ),
    (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]), [0, 1], (np.int64(0), np.int64(1))),
]


class Holder(gymnasium.Env[Any, Any]):
    def __init__(self, space: spaces.Space[Any]) -> None:
        self.task_space = space


@pytest.mark.parametrize(("space", "written", "expected"), SPACES)
def test_tasks_are_written_as_json_and_stacked_again(space: spaces.Space[Any], written: Any, expected: Any) -> None:
    task = metarl.as_task(Holder(space), written)
    assert space.contains(task)
    assert task_tools.plain(task) == task_tools.plain(expected) == written
    batch = task_tools.repeat_tasks(task_tools.stack_tasks(space, [task, task]), 3)
    assert task_tools.count_tasks(batch) == 6
    singles = task_tools.unstack_tasks(space, batch)
    assert len(singles) == 6
    assert task_tools.plain(singles[5]) == written


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (SPACES[0][0], [0.5]),
        (SPACES[0][0], [0.5, 2.0]),
        (SPACES[0][0], [0.5, float("nan")]),
        (SPACES[0][0], "left"),
        (SPACES[0][0], None),
        (SPACES[0][0], [True, False]),
        (SPACES[2][0], 0),
        (SPACES[2][0], 1.5),
        (SPACES[2][0], True),
        (SPACES[3][0], [1.5, 1]),
        (SPACES[4][0], {"mass": [0.5]}),
        (SPACES[4][0], {"mass": [5.0], "kind": 1}),
        (SPACES[5][0], [0]),
    ],
)
def test_what_is_no_task_is_refused_in_a_sentence(space: spaces.Space[Any], value: Any) -> None:
    with pytest.raises(ValueError, match=r"^task .* (expected|outside)"):
        metarl.as_task(Holder(space), value)


@pytest.mark.parametrize(("n", "split", "seed"), [(0, "test", 0), (-1, "test", 0), (1, "tst", 0), (1, "test", -1)])
def test_bad_draws_are_refused(n: int, split: str, seed: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        metarl.sample_tasks(SIGN, n, seed=seed, split=split)


@pytest.mark.parametrize("actions", ["box", "standard box", "matrix"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_in_a_sentence(actions: str, wrong: float) -> None:
    env = metarl.make("toy_families:toy/Sign-v0", task=[0.5], actions=actions)
    env.reset()
    with pytest.raises(ValueError, match="expected finite numbers"):
        env.step(np.full(env.action_space.shape, wrong, np.float32))
