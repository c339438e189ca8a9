"""Parameterized environments: time limits inside wrappers, sharing, slashes in names, ignored arguments, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.envs.families.model_fields import ModelField

PARAMETERIZED = "metarl/Parameterized-v0"
PENDULUM = {"env": "Pendulum-v1", "parameters": {"g": [5, 15]}}
CLASS_CONFIG = {"env": "toy_families:toy/ClassConfig-v0", "parameters": {"factor": [0.0, 4.0]}}
SWALLOWS = {"env": "toy_families:toy/Swallows-v0", "parameters": {"factor": [0.0, 4.0]}}


def length(env: gymnasium.Env) -> int:
    env.reset(seed=1)
    env.action_space.seed(1)
    for step in range(1, 2000):
        if any(env.step(env.action_space.sample())[2:4]):
            return step
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(
    ("limit", "steps"), [({}, 50), ({"max_episode_steps": 22}, 6), ({"max_episode_steps": 400}, 100)]
)
def test_the_time_limit_counts_the_environments_steps_and_wrappers_see_it(limit: dict[str, int], steps: int) -> None:
    wrappers = ["toy_edges:SkipFrames"]
    env = metarl.make(PARAMETERIZED, **PENDULUM, wrappers=wrappers, **limit)
    for episode in (1, 2):
        assert length(env) == steps
        assert env.unwrapped.inner.cuts == episode
    vector = metarl.make_vec(PARAMETERIZED, 2, **PENDULUM, wrappers=wrappers, **limit)
    vector.reset(seed=1)
    cuts = [vector.step(np.zeros((2, 1), np.float32))[3].tolist() for _ in range(steps)]
    assert cuts == [[False, False]] * (steps - 1) + [[True, True]]


@pytest.mark.parametrize("limit", [None, 22, 400])
def test_wrappers_find_the_time_limit_below_them(limit: int | None) -> None:
    wrappers = ["toy_edges:NeedsLimit"]
    kwargs = {} if limit is None else {"max_episode_steps": limit}
    env = metarl.make(PARAMETERIZED, **PENDULUM, wrappers=wrappers, **kwargs)
    assert env.unwrapped.inner.limit == env.get_wrapper_attr("inner").limit == (limit or 200)
    assert length(env) == (limit or 200)


def reward(env: gymnasium.Env) -> float:
    env.reset(seed=1)
    return float(env.step(np.zeros(env.action_space.shape, np.float32))[1])


@pytest.mark.parametrize("of_module", [False, True])
def test_a_config_of_the_class_or_module_is_shared_by_nobody(of_module: bool) -> None:
    kwargs = {**CLASS_CONFIG, "env_kwargs": {"of_module": of_module}}
    tasks = {"factor": np.array([1.0, 2.0, 3.0])}
    vector = metarl.make_vec(PARAMETERIZED, 3, **kwargs)
    vector.reset(options={"tasks": tasks})
    assert vector.step(np.zeros((3, 1), np.float32))[1].tolist() == [1.0, 2.0, 3.0]
    assert metarl.check_family(PARAMETERIZED, **kwargs) == []
    untouched = gymnasium.make("toy/ClassConfig-v0", of_module=of_module, disable_env_checker=True)
    assert reward(untouched) == 1.0


def test_dicts_given_to_it_are_shared_by_nobody() -> None:
    given = {"sign": 0.0}
    choices = [{"sign": 0.25}, {"sign": 0.5}]
    kwargs = {
        "env": "toy_families:toy/KeepsConfig-v0",
        "parameters": {"config": {"choices": choices}},
        "env_kwargs": {"config": given},
    }
    vector = metarl.make_vec(PARAMETERIZED, 2, **kwargs)
    vector.reset(options={"tasks": {"config": np.array([1, 1])}})
    configs = [env.unwrapped.inner.unwrapped.config for env in vector.envs]
    configs[0]["sign"] = 7.0
    assert configs[1] == {"sign": 0.0}  # the toy writes its task into it at reset
    assert given == {"sign": 0.0}
    assert choices == [{"sign": 0.25}, {"sign": 0.5}]


def test_a_key_of_the_config_may_have_a_slash() -> None:
    kwargs = {**CLASS_CONFIG, "parameters": {"robot/arm": [0.0, 4.0]}}
    env = metarl.make(PARAMETERIZED, **kwargs, task={"robot/arm": 3.0})
    assert reward(env) == 3.0
    with pytest.raises(ValueError, match=r"which toy/ClassConfig-v0 does not have, and it is no key of its config"):
        metarl.make(PARAMETERIZED, **{**CLASS_CONFIG, "parameters": {"robot/leg": [0.0, 4.0]}})


BODIES = """
<mujoco><worldbody>
<body name="robot/arm"><geom name="arm/0" size="1" mass="2"/>
<body name="robot"><geom name="arm" size="1" mass="3"/></body></body>
</worldbody></mujoco>
"""


def test_an_object_of_a_model_may_have_slashes_in_its_name() -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(BODIES)
    assert ModelField(model, "body_mass/robot/arm").own == pytest.approx(2.0)
    assert ModelField(model, "body_mass/robot").own == pytest.approx(3.0)
    model.geom("arm").friction[:] = 0.1, 0.2, 0.3
    model.geom("arm/0").friction[:] = 0.4, 0.5, 0.6
    assert ModelField(model, "geom_friction/arm/2").own == 0.3
    np.testing.assert_array_equal(ModelField(model, "geom_friction/arm/0").own, [[0.4, 0.5, 0.6]])
    assert ModelField(model, "geom_friction/arm/0/2").own == 0.6
    with pytest.raises(ValueError, match="no body 'robot/leg'; the nearest are robot, robot/arm"):
        ModelField(model, "body_mass/robot/leg")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"parameters": {"facter": [0.0, 4.0]}}, "accepts the argument 'facter' and ignores it.*factor"),
        ({"env_kwargs": {"ofset": 1.0}}, "accepts the argument 'ofset' and ignores it.*offset"),
    ],
)
def test_arguments_that_an_environment_ignores_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metarl.make(PARAMETERIZED, **{**SWALLOWS, **kwargs})


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_arguments_that_are_read_are_taken_even_with_the_default_value(offset: float) -> None:
    env = metarl.make(PARAMETERIZED, **SWALLOWS, env_kwargs={"offset": offset}, task={"factor": 3.0})
    assert reward(env) == 3.0 + offset


COPIED = [
    (PENDULUM, "Pendulum-v1", None),
    ({"env": "CartPole-v1", "parameters": {"gravity": [5, 15]}}, "CartPole-v1", None),
    ({"env": "HalfCheetah-v5", "parameters": {"body_mass/torso": [0.5, 2.0]}}, "HalfCheetah-v5", "mujoco"),
    (
        {"env": "minigrid:MiniGrid-Empty-5x5-v0", "parameters": {"size": {"low": 5, "high": 8, "integer": True}},
         "wrappers": ["minigrid.wrappers:ImgObsWrapper"]},
        "MiniGrid",
        "minigrid",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kwargs", "name", "package"), COPIED, ids=[name for _, name, _ in COPIED])
def test_it_can_be_copied_and_pickled_and_keeps_its_task(
    kwargs: dict[str, Any], name: str, package: str | None
) -> None:
    if package is not None:
        pytest.importorskip(package)
    first, second = metarl.sample_tasks(PARAMETERIZED, 2, seed=3, **kwargs)
    env = metarl.make(PARAMETERIZED, **kwargs, task=first)
    env.reset(seed=1)
    bare = env.env  # without the fixed task: what the copies play is what they kept
    copies = [copy.deepcopy(bare), pickle.loads(pickle.dumps(bare))]
    expected = play(bare)
    assert [play(one) for one in copies] == [expected] * 2
    bare.reset(options={"task": second})
    assert play(copies[0]) == expected


def play(env: gymnasium.Env) -> list[Any]:
    env.action_space.seed(1)
    played = [np.asarray(env.reset(seed=1)[0]).tolist()]
    for _ in range(20):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        played.append((np.asarray(observation).tolist(), reward))
        if terminated or truncated:
            break
    return played


def test_the_environment_gets_seeds_below_those_of_c() -> None:
    env = metarl.make(PARAMETERIZED, env="toy_families:toy/SeedOfC-v0", parameters={"time": [0, 1]})
    np.testing.assert_array_equal(env.reset(seed=2**31 + 5)[0], env.reset(seed=5)[0])
    with pytest.raises(Exception, match="format requires"):
        gymnasium.make("toy/SeedOfC-v0", disable_env_checker=True).reset(seed=2**31)


@pytest.mark.parametrize("written", [[5, 10, 15], (5, 10, 15), range(5, 16, 5), np.array([5, 10, 15])])
def test_more_than_two_values_are_choices(written: Any) -> None:
    env = metarl.make(metarl.parameterized("CartPole-v1", gravity=written))
    env.reset(seed=1, options={"task": {"gravity": 2}})
    assert (env.unwrapped.task_space["gravity"].n, env.unwrapped.inner.unwrapped.gravity) == (3, 15)


def test_texts_and_truth_values_are_choices() -> None:
    env = metarl.make(metarl.parameterized("CartPole-v1", kinematics_integrator=["euler", "other"]))
    env.reset(seed=1, options={"task": {"kinematics_integrator": 1}})
    assert env.unwrapped.inner.unwrapped.kinematics_integrator == "other"
    env = metarl.make(metarl.parameterized("CartPole-v1", sutton_barto_reward=[True, False]))
    assert env.unwrapped.task_space["sutton_barto_reward"].n == 2


class Grid(gymnasium.Env):
    """A number in an array of two dimensions."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.n = np.ones((2, 2))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.n[1, :1].astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.n[1, :1].astype(np.float32), float(self.n[1, 0]), False, True, {}


@pytest.mark.parametrize("path", ["n[1,0]", "n[1, 0]", "n[1][0]", "n[-1,0]"])
def test_an_entry_of_an_array_in_two_dimensions(path: str) -> None:
    env = metarl.make(metarl.parameterized(Grid, {path: (2, 5)}, max_episode_steps=9))
    observation, _ = env.reset(seed=1, options={"task": {path: 4.0}})
    assert observation == [4.0]


@pytest.mark.parametrize("name", ["close", "reset", "step", "render"])
def test_no_method_of_the_episodes_course_sets_or_derives(name: str) -> None:
    with pytest.raises(ValueError, match=f"derive is '{name}', which every environment has"):
        metarl.make(metarl.parameterized("CartPole-v1", gravity=(5, 15), derive=name))
    with pytest.raises(ValueError, match=f"'{name}', which every environment has"):
        metarl.make(metarl.parameterized("CartPole-v1", {"pull": (5, 15)}, set={"pull": name}))


class Tuned(Grid):
    """Its mass is set by a method."""

    mass_now = 1.0

    def set_mass(self, mass: float) -> None:
        """Set the mass."""
        self.mass_now = mass


def test_a_method_that_sets_is_no_parameter_but_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"'set_mass' of .* is a method; .* set = \{mass = 'set_mass'\}"):
        metarl.make(metarl.parameterized(Tuned, set_mass=(1, 2)))
    with pytest.raises(ValueError, match=r"no parameter 'mass'; .* its method 'set_mass' set it: set = \{mass = "):
        metarl.make(metarl.parameterized(Tuned, mass=(1, 2)))


class Fixed(Grid):
    """Its array cannot be written to, and its reset takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.n.flags.writeable = False
        self.gain = 1.0

    def reset(self) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return super().reset()


def test_what_cannot_be_written_or_reset_is_named() -> None:
    with pytest.raises(ValueError, match=r"Fixed does not let 'n\[0,0\]' be set \(assignment destination"):
        metarl.make(metarl.parameterized(Fixed, {"n[0,0]": (1, 2)}))
    with pytest.raises(ValueError, match=r"reset of .*Fixed does not take what Gymnasium's resets take"):
        metarl.make(metarl.parameterized(Fixed, gain=(1, 2))).reset(seed=1)
    with pytest.raises(ValueError, match="expected ends whose difference is a number"):
        metarl.make(metarl.parameterized(Grid, {"n[0,0]": (-1e308, 1e308)}))
