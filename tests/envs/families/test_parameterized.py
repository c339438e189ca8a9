"""Any Gymnasium environment as a family: where parameters are found, what follows from them, and what is refused."""

from __future__ import annotations

import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import metarl
from metarl.envs import tasks as task_tools

PARAMETERIZED = "metarl/Parameterized-v0"
CARTPOLE = {"env": "CartPole-v1", "parameters": {"gravity": [5, 15]}}
CHEETAH = {
    "env": "HalfCheetah-v5",
    "parameters": {
        "body_mass/torso": [0.5, 2.0],
        "geom_friction": [0.5, 1.5],
        "dof_damping/bthigh": [0.5, 2.0],
        "actuator_gear/bfoot/0": {"low": 30.0, "high": 90.0, "as": "absolute"},
        "opt/gravity/2": {"low": -12.0, "high": -8.0, "as": "absolute"},
        "ctrl_cost_weight": [0.05, 0.2],
    },
}
MINIGRID = {
    "env": "minigrid:MiniGrid-Empty-5x5-v0",
    "parameters": {"size": {"low": 5, "high": 8, "integer": True}},
    "wrappers": ["minigrid.wrappers:ImgObsWrapper"],
}
MINATAR = {
    "env": "minatar.gym:MinAtar/Freeway-v1",
    "parameters": {"sticky_action_prob": [0.0, 0.5]},
}
MINATAR_GAMES = {
    "env": "minatar.gym:MinAtar/Breakout-v0",
    "parameters": {"game": {"choices": ["breakout", "asterix"]}},
}
HIGHWAY = {
    "env": "highway_env:highway-v0",
    "parameters": {"vehicles_density": [0.5, 2.0], "high_speed_reward": [0.2, 0.6]},
    "env_kwargs": {"config": {"vehicles_count": 4, "duration": 5}},
}
FAMILIES = {
    "cartpole": (CARTPOLE, None),
    "cheetah": (CHEETAH, "mujoco"),
    "minigrid": (MINIGRID, "minigrid"),
    "minatar": (MINATAR, "minatar"),
    "minatar-games": (MINATAR_GAMES, "minatar"),
    "highway": (HIGHWAY, "highway_env"),
}


def make(**kwargs: Any) -> gymnasium.Env:
    return metarl.make(PARAMETERIZED, **kwargs)


def play(env: gymnasium.Env, seed: int = 1, **options: Any) -> list[Any]:
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed, options=options or None)
    played = [(np.asarray(observation).tolist(), 0.0, False, False)]
    while not (played[-1][2] or played[-1][3]):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        played.append((np.asarray(observation).tolist(), reward, terminated, truncated))
    return played


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of these packages' own
@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_a_sound_family(name: str) -> None:
    kwargs, package = FAMILIES[name]
    if package is not None:
        pytest.importorskip(package)
    assert metarl.check_family(PARAMETERIZED, **kwargs) == []
    for split in task_tools.SPLITS:
        tasks = metarl.sample_tasks(PARAMETERIZED, 4, split=split, **kwargs)
        assert set(tasks[0]) == set(kwargs["parameters"])


@pytest.mark.parametrize(
    ("env", "parameter"),
    [
        ("CartPole-v1", "gravity"),
        ("Pendulum-v1", "g"),
        ("MountainCarContinuous-v0", "power"),
        ("Acrobot-v1", "LINK_MASS_1"),
    ],
)
def test_the_default_task_is_the_environment_as_it_is(env: str, parameter: str) -> None:
    own = getattr(gymnasium.make(env).unwrapped, parameter)
    family = gymnasium.make(PARAMETERIZED, env=env, parameters={parameter: [own / 2, own * 2]})
    assert family.unwrapped.default_task == {parameter: own}
    assert play(family, seed=3) == play(gymnasium.make(env), seed=3)


def test_a_task_is_as_if_the_environment_had_been_changed_by_hand() -> None:
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.length, env.unwrapped.masspole = 0.8, 0.3
    env.unwrapped.polemass_length, env.unwrapped.total_mass = 0.8 * 0.3, 1.3
    parameters = {"length": [0.3, 1.0], "masspole": [0.1, 0.5]}
    family = make(env="CartPole-v1", parameters=parameters, task={"length": 0.8, "masspole": 0.3})
    assert play(family, seed=3) == play(env, seed=3)
    default = {"length": 0.5, "masspole": 0.1}
    assert play(family, seed=3, task=default) == play(gymnasium.make("CartPole-v1"), seed=3)


def test_what_is_derived_from_attributes_is_known_where_gymnasium_derives_it() -> None:
    """The rules give Gymnasium's own values, and name every attribute that is computed from others."""
    env = gymnasium.make("CartPole-v1").unwrapped
    own = {name: getattr(env, name) for name in ("total_mass", "polemass_length")}
    family = make(env="CartPole-v1", parameters={"masscart": [0.5, 2.0]}, task={"masscart": 1.0})
    family.reset(seed=1)
    assert {name: family.unwrapped.inner.get_wrapper_attr(name) for name in own} == own
    with pytest.raises(ValueError, match="'total_mass' of CartPole-v1 is computed from 'masscart' and 'masspole'"):
        make(env="CartPole-v1", parameters={"total_mass": [1, 2]})


def test_fields_of_a_mujoco_model_are_scaled_or_replaced_and_what_follows_is_computed() -> None:
    mujoco = pytest.importorskip("mujoco")
    task = {
        "body_mass/torso": 1.5,
        "geom_friction": 0.7,
        "dof_damping/bthigh": 2.0,
        "actuator_gear/bfoot/0": 40.0,
        "opt/gravity/2": -9.0,
        "ctrl_cost_weight": 0.2,
    }
    env = gymnasium.make("HalfCheetah-v5", ctrl_cost_weight=0.2)
    model = env.unwrapped.model
    model.body("torso").mass[:] *= 1.5
    model.geom_friction[:] *= 0.7
    model.joint("bthigh").damping[:] *= 2.0
    model.actuator("bfoot").gear[0] = 40.0
    model.opt.gravity[2] = -9.0
    mujoco.mj_setConst(model, env.unwrapped.data)
    family = gymnasium.make(PARAMETERIZED, **CHEETAH)
    expected = play(env)
    assert play(family, task=task) == expected
    assert len(expected) == 1001
    plain = {**dict.fromkeys(list(task)[:3], 1.0), "actuator_gear/bfoot/0": 60.0, "opt/gravity/2": -9.81}
    assert play(family, task={**plain, "ctrl_cost_weight": 0.1}) == play(gymnasium.make("HalfCheetah-v5"))


def test_arguments_make_the_environment_anew_and_again_for_the_same_value() -> None:
    pytest.importorskip("minigrid")
    family = make(**MINIGRID)
    sizes = []
    for size in (5, 8, 5):
        family.reset(seed=1, options={"task": {"size": size}})
        sizes.append(family.unwrapped.inner.get_wrapper_attr("width"))
    assert sizes == [5, 8, 5]
    games = make(**MINATAR_GAMES) if pytest.importorskip("minatar") else None
    assert games is not None
    assert play(games, task={"game": 0}) != play(games, task={"game": 1})
    assert games.unwrapped.splits_share_tasks
    assert not make(**CARTPOLE).unwrapped.splits_share_tasks


def test_keys_of_a_configuration_reach_the_environment() -> None:
    pytest.importorskip("highway_env")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        family = make(**HIGHWAY)
        family.reset(seed=1, options={"task": {"vehicles_density": 1.7, "high_speed_reward": 0.5}})
    assert family.unwrapped.inner.unwrapped.config["vehicles_density"] == 1.7
    assert family.unwrapped.inner.unwrapped.config["vehicles_count"] == 4


def test_the_time_limit_is_the_environments_own_or_another() -> None:
    kwargs = {"env": "Pendulum-v1", "parameters": {"g": [5, 15]}}
    assert len(play(make(**kwargs))) == 201
    assert len(play(make(max_episode_steps=7, **kwargs))) == 8
    assert len(play(make(max_episode_steps=300, **kwargs))) == 301
    vector = metarl.make_vec(PARAMETERIZED, 2, max_episode_steps=2, **kwargs)
    vector.reset(seed=1)
    ends = [vector.step(np.zeros((2, 1), np.float32))[3].tolist() for _ in range(2)]
    assert ends == [[False, False], [True, True]]
    assert make(**kwargs).action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_it_reads_from_toml_as_from_python() -> None:
    text = """
    env = "HalfCheetah-v5"
    [parameters]
    "body_mass/torso" = [0.5, 2.0]
    "opt/gravity/2" = {low = -12.0, high = -8.0, as = "absolute"}
    exclude_current_positions_from_observation = {choices = [true, false]}
    """
    pytest.importorskip("mujoco")
    family = make(**tomllib.loads(text))
    space = family.get_wrapper_attr("task_space")
    assert space["body_mass/torso"] == spaces.Box(0.5, 2.0, (), np.float64)
    assert space["opt/gravity/2"] == spaces.Box(-12.0, -8.0, (), np.float64)
    assert space["exclude_current_positions_from_observation"] == spaces.Discrete(2)
    task = {"body_mass/torso": 1.0, "opt/gravity/2": -9.0, "exclude_current_positions_from_observation": 1}
    with pytest.raises(ValueError, match=r"changes the observation_space from .*\(17,\).* to .*\(18,\)"):
        family.reset(options={"task": task})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"env": "CartPole-v1"}, "no parameter of CartPole-v1 is given a range.*as in env = 'CartPole-v1'"),
        ({"env": "CartPole-v1", "parameters": {"gravty": [5, 15]}}, "CartPole-v1 has no parameter 'gravty'.*gravity"),
        ({"env": "CartPole-v9", "parameters": {"gravity": [5, 15]}}, "env 'CartPole-v9' is unknown"),
        ({"env": "nothing:CartPole-v1", "parameters": {"gravity": [5, 15]}}, "cannot be imported"),
        ({"env": "CartPole-v1", "parameters": {"gravity": 5}}, r"'gravity' is 5; expected \[low, high\]"),
        ({"env": "CartPole-v1", "parameters": {"gravity": [15, 5]}}, "from 15 to 5; expected the lower end first"),
        ({"env": "CartPole-v1", "parameters": {"gravity": [5, float("inf")]}}, "expected \\[low, high\\]"),
        ({"env": "CartPole-v1", "parameters": {"gravity": {"low": 5}}}, "expected \\[low, high\\]"),
        ({"env": "CartPole-v1", "parameters": {"gravity": {"choices": [5]}}}, "expected a list of at least two"),
        (
            {"env": "CartPole-v1", "parameters": {"gravity": {"low": 1.5, "high": 3, "integer": True}}},
            "an integer has whole ends",
        ),
        (
            {"env": "CartPole-v1", "parameters": {"kinematics_integrator": {"low": 1, "high": 3, "as": "scale"}}},
            "'kinematics_integrator' is 'euler', which cannot be scaled",
        ),
        ({"env": "CartPole-v1", "parameters": {"body_mass/torso": [0.5, 2]}}, "which CartPole-v1 does not have"),
        ({**CARTPOLE, "wrappers": ["ImgObsWrapper"]}, "the wrapper is 'ImgObsWrapper'; expected 'module:Class'"),
        ({**CARTPOLE, "wrappers": ["gymnasium.wrappers:Nothing"]}, "cannot be imported"),
    ],
)
def test_wrong_arguments_are_one_sentence_each(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "written", "message"),
    [
        ("body_mass/trso", [0.5, 2], "no body 'trso'; the nearest are torso"),
        ("body_mas/torso", [0.5, 2], "no field 'body_mas'; the nearest are body_mass"),
        ("body_mas", [0.5, 2], "HalfCheetah-v5 has no parameter 'body_mas'.*body_mass"),
        ("geom_friction/floor/3", [0.5, 2], "expected an entry from 0 to 2"),
        (
            "geom_friction/floor",
            {"low": 0.5, "high": 2, "as": "absolute"},
            r"the shape \(1, 3\), and only one number can be replaced",
        ),
        ("opt/gravty", [0.5, 2], "no option 'opt/gravty'.*opt/gravity"),
    ],
)
def test_wrong_fields_of_a_model_are_named_with_the_nearest(parameter: str, written: Any, message: str) -> None:
    pytest.importorskip("mujoco")
    with pytest.raises(ValueError, match=message):
        make(env="HalfCheetah-v5", parameters={parameter: written})


def test_an_action_that_is_not_finite_is_refused() -> None:
    env = make(env="Pendulum-v1", parameters={"g": [5, 15]})
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"the action is \[nan\]; expected finite numbers"):
        env.step(np.array([np.nan], np.float32))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages' own
def test_the_pages_examples_are_families_as_they_stand() -> None:
    page = (Path(__file__).parents[3] / "docs/any-environment.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        kwargs = tomllib.loads(block)["family_kwargs"]
        package = kwargs["env"].partition(":")[0].partition(".")[0] if ":" in kwargs["env"] else "mujoco"
        pytest.importorskip(package)
        tasks = metarl.sample_tasks(PARAMETERIZED, 2, **kwargs)
        assert set(tasks[0]) == set(kwargs["parameters"])


def test_a_task_outside_its_ranges_is_refused() -> None:
    with pytest.raises(ValueError, match="key 'gravity', is outside its space"):
        make(**CARTPOLE, task={"gravity": 20.0})
    with pytest.raises(ValueError, match="expected a dict with the keys"):
        make(**CARTPOLE, task={"length": 20.0})


def test_a_parameter_that_makes_no_difference_is_warned_of() -> None:
    parameters = {"gravity": [5, 15], "x_threshold": [2.3, 2.5]}
    with pytest.warns(UserWarning, match="'x_threshold' makes no difference: 3 whole episodes") as caught:
        assert metarl.check_family(PARAMETERIZED, env="CartPole-v1", parameters=parameters) == []
    assert len(caught) == 1


def test_without_arguments_it_is_cartpole_with_gravity() -> None:
    env = make()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*-?infinity. This is probably too")
        check_env(env.unwrapped, skip_render_check=True)
    assert env.get_wrapper_attr("task_space") == make(**CARTPOLE).get_wrapper_attr("task_space")
    assert list(metarl.sample_tasks(PARAMETERIZED, 3)[0]) == ["gravity"]


def test_it_draws_what_the_environment_draws() -> None:
    pytest.importorskip("minigrid")
    env = make(**MINIGRID, render_mode="rgb_array")
    env.reset(seed=1)
    assert env.render().ndim == 3
    env.close()
