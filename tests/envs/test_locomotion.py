"""Locomotion: Gymnasium's physics to the last bit, the rewards of the data sheets, and what is asked of bad input."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.envs import tasks as task_tools
from metarl.envs.processes import available_cores, core_numbers

mujoco = pytest.importorskip("mujoco", reason="needs the extra [mujoco]")

ROWS = 5
STEPS = 60
Reward = Callable[[dict[str, Any], np.ndarray, Any, np.ndarray], float]


def cost(action: np.ndarray) -> float:
    return float(np.square(action.astype(np.float64)).sum())


def along(info: dict[str, Any], angle: float) -> float:
    return float(np.cos(angle) * info["x_velocity"] + np.sin(angle) * info["y_velocity"])


WITHOUT_FORCES = {"include_cfrc_ext_in_observation": False}
PARTS = ("body_mass", "body_inertia", "geom_friction", "dof_damping")
FORWARDS: Reward = lambda info, a, task, obs: info["x_velocity"] + 1 - 0.001 * cost(a)  # noqa: E731
# Family, arguments, Gymnasium's id and arguments, and the reward of the data sheet from Gymnasium's info.
CASES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], Reward]] = {
    "cheetah-dir": (
        "HalfCheetahDir-v0",
        {},
        "HalfCheetah-v5",
        {},
        lambda info, a, task, obs: (1, -1)[task] * info["x_velocity"] - 0.05 * cost(a),
    ),
    "cheetah-vel": (
        "HalfCheetahVel-v0",
        {"max_velocity": 2.0},
        "HalfCheetah-v5",
        {},
        lambda info, a, task, obs: -abs(info["x_velocity"] - task) - 0.05 * cost(a),
    ),
    "ant-two": (
        "AntDir-v0",
        {},
        "Ant-v5",
        WITHOUT_FORCES,
        lambda info, a, task, obs: (1, -1)[task] * info["x_velocity"] - 0.5 * cost(a) + 1,
    ),
    "ant-any": (
        "AntDir-v0",
        {"directions": "any"},
        "Ant-v5",
        WITHOUT_FORCES,
        lambda info, a, task, obs: along(info, task) - 0.5 * cost(a) + 1,
    ),
    "ant-vel": (
        "AntVel-v0",
        {},
        "Ant-v5",
        WITHOUT_FORCES,
        lambda info, a, task, obs: 1 - abs(info["x_velocity"] - task) - 0.5 * cost(a) + 1,
    ),
    "ant-goal": (
        "AntGoal-v0",
        {},
        "Ant-v5",
        {**WITHOUT_FORCES, "exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False},
        lambda info, a, task, obs: -np.abs(obs[:2] - task).sum() - 0.1 * cost(a),
    ),
    "humanoid-dir": (
        "HumanoidDir-v0",
        {},
        "Humanoid-v5",
        WITHOUT_FORCES,
        lambda info, a, task, obs: 1.25 * along(info, task) - 0.1 * cost(a) + 5,
    ),
    "walker-params": ("Walker2DParams-v0", {}, "Walker2d-v5", {}, FORWARDS),
    "hopper-params": ("HopperParams-v0", {}, "Hopper-v5", {}, FORWARDS),
}


def gymnasiums(case: str, tasks: Sequence[Any]) -> list[gymnasium.Env]:
    """Gymnasium's environments, with the physics of the tasks put into their models by hand."""
    _, _, name, kwargs, _ = CASES[case]
    envs = [gymnasium.make(name, disable_env_checker=True, **kwargs) for _ in tasks]
    for env, task in zip(envs, tasks, strict=True):
        if isinstance(task, dict):
            for part in PARTS:
                getattr(env.unwrapped.model, part)[:] *= task[part]
            mujoco.mj_setConst(env.unwrapped.model, env.unwrapped.data)
    return envs


def compare(case: str, batch: Any) -> int:
    """Step a batch beside Gymnasium's environments; return how many episodes ended before the limit."""
    family, kwargs, *_, reward_of = CASES[case]
    vector = metarl.make_vec(f"metarl/{family}", ROWS, max_episode_steps=STEPS, **kwargs).unwrapped
    tasks = task_tools.unstack_tasks(vector.task_space, batch)
    envs = gymnasiums(case, tasks)
    observations, _ = vector.reset(seed=[10, 11, 12, 13, 14], options={"tasks": batch})
    for row, env in enumerate(envs):
        np.testing.assert_array_equal(env.reset(seed=10 + row)[0], observations[row])
    rng = np.random.default_rng(0)
    box = envs[0].action_space
    scale = 0.4 if case == "humanoid-dir" else 1.0
    running = [True] * ROWS
    fell = 0
    for step in range(STEPS):
        actions = rng.uniform(-1.0, 1.0, (ROWS, *box.shape)).astype(np.float32)
        observations, rewards, terminated, truncated, _ = vector.step(actions)
        for row, env in enumerate(envs):
            if not running[row]:
                assert rewards[row] == 0.0
                continue
            action = actions[row].astype(np.float64) * scale
            observation, _, ended, _, info = env.step(action)
            np.testing.assert_array_equal(observations[row], observation)
            state = vector.simulations.values
            np.testing.assert_array_equal(state["qpos"][row], env.unwrapped.data.qpos)
            np.testing.assert_array_equal(state["qvel"][row], env.unwrapped.data.qvel)
            assert rewards[row] == pytest.approx(reward_of(info, action, tasks[row], observation), abs=1e-9)
            assert terminated[row] == ended
            assert truncated[row] == (step == STEPS - 1 and not ended)
            running[row] = not ended
            fell += ended
    vector.close()
    return fell


@pytest.mark.parametrize("case", CASES)
def test_the_default_task_is_gymnasiums_physics_to_the_last_bit(case: str) -> None:
    family, kwargs, *_ = CASES[case]
    env = metarl.make(f"metarl/{family}", **kwargs)
    default = env.unwrapped.default_task
    fell = compare(case, task_tools.stack_tasks(env.unwrapped.task_space, [default] * ROWS))
    assert (fell > 0) == (case not in ("cheetah-dir", "cheetah-vel", "ant-goal"))


@pytest.mark.parametrize("case", CASES)
def test_every_task_has_the_reward_and_the_physics_of_its_data_sheet(case: str) -> None:
    family, kwargs, *_ = CASES[case]
    assert compare(case, metarl.sample_tasks(f"metarl/{family}", ROWS, seed=1, **kwargs)) <= ROWS


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        vector = metarl.make_vec("metarl/AntDir-v0", 7)
        vector.reset(seed=1, options={"tasks": metarl.sample_tasks("metarl/AntDir-v0", 7)})
        vector.action_space.seed(1)
        found.append([vector.step(vector.action_space.sample())[:2] for _ in range(30)])
        vector.close()
    for (one, reward_one), (three, reward_three) in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)
        np.testing.assert_array_equal(reward_one, reward_three)


def test_locomotion_starts_where_the_system_does_not_tell_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    assert core_numbers() == frozenset()
    assert available_cores() == os.cpu_count()
    vector = metarl.make_vec("metarl/AntDir-v0", 3)
    vector.reset(seed=1)
    assert np.isfinite(vector.step(np.ones(vector.action_space.shape, np.float32))[1]).all()
    vector.close()


@pytest.mark.parametrize("family", ["metarl/HalfCheetahDir-v0", "metarl/AntDir-v0"])
def test_two_directions_are_discrete_tasks_and_both_are_in_every_split(family: str) -> None:
    env = metarl.make(family)
    assert env.get_wrapper_attr("splits_share_tasks")
    assert metarl.make_vec(family, 2).unwrapped.splits_share_tasks
    for split in task_tools.SPLITS:
        tasks = metarl.sample_tasks(family, 7, split=split)
        assert sorted(np.bincount(tasks)) == [3, 4]
        assert np.bincount(metarl.sample_tasks(family, 40, split=split)).tolist() == [20, 20]
    with pytest.raises(ValueError, match="expected a whole number from 0 to 1"):
        env.reset(options={"task": -1})
    with pytest.raises(ValueError, match="expected a whole number from 0 to 1"):
        env.reset(options={"task": 1.0})


@pytest.mark.parametrize("family", ["metarl/AntGoal-v0", "metarl/HopperParams-v0"])
def test_a_copy_goes_on_as_the_original_does(family: str) -> None:
    vector = metarl.make_vec(family, 4)
    vector.reset(seed=1, options={"tasks": metarl.sample_tasks(family, 4)})
    vector.action_space.seed(1)
    actions = [vector.action_space.sample() for _ in range(6)]
    vector.step(actions[0])
    twin = copy.deepcopy(vector)
    expected = [vector.step(action)[:2] for action in actions[1:]]
    for action, (observations, rewards) in zip(actions[1:], expected, strict=True):
        found = twin.step(action)
        np.testing.assert_array_equal(found[0], observations)
        np.testing.assert_array_equal(found[1], rewards)
    assert any((one != other).any() for (one, _), (other, _) in itertools.pairwise(expected))


def test_goals_are_uniform_by_area_over_the_disc() -> None:
    goals = np.asarray(metarl.sample_tasks("metarl/AntGoal-v0", 2000))
    squares = (goals**2).sum(axis=1)
    assert squares.max() <= 9.0
    assert squares.mean() == pytest.approx(4.5, abs=0.2)
    assert not metarl.make("metarl/AntGoal-v0").get_wrapper_attr("splits_share_tasks")


@pytest.mark.parametrize("family", ["metarl/Walker2DParams-v0", "metarl/HopperParams-v0"])
def test_physics_is_log_uniform_and_one_model_serves_all_sub_environments_of_a_task(family: str) -> None:
    tasks = metarl.sample_tasks(family, 300, seed=2)
    for name, base in (("body_mass", 1.5), ("body_inertia", 1.5), ("geom_friction", 1.5), ("dof_damping", 1.3)):
        exponents = np.log(tasks[name]) / np.log(base)
        assert np.abs(exponents).max() <= 3 + 1e-9
        assert exponents.mean() == pytest.approx(0.0, abs=0.15)
        assert exponents.std() == pytest.approx(np.sqrt(3), abs=0.1)
    vector = metarl.make_vec(family, 6)
    repeated = task_tools.repeat_tasks(task_tools.take_tasks(tasks, np.arange(2)), 3)
    vector.reset(options={"tasks": repeated})
    models = vector.unwrapped.simulations.models
    assert [models[row] is models[0] for row in range(6)] == [True] * 3 + [False] * 3
    mask = np.array([True] * 3 + [False] * 3)
    kept = models[3]
    vector.reset(
        options={"tasks": task_tools.repeat_tasks(task_tools.take_tasks(tasks, np.arange(2, 4)), 3), "reset_mask": mask}
    )
    assert models[3] is kept
    masses = vector.unwrapped.model.body_mass
    np.testing.assert_array_equal(models[0].body_mass, masses * tasks["body_mass"][2])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="max_velocity is -1; expected a finite number above 0"):
        metarl.make("metarl/HalfCheetahVel-v0", max_velocity=-1)
    with pytest.raises(ValueError, match="directions is 'three'; expected 'two' or 'any'"):
        metarl.make_vec("metarl/AntDir-v0", 2, directions="three")
    with pytest.raises(ValueError, match="outside its space"):
        metarl.make("metarl/HalfCheetahVel-v0", task=2.5, max_velocity=2)
    assert metarl.make("metarl/HalfCheetahVel-v0", task=2.5).reset(seed=1)[0].shape == (17,)


def test_without_mujoco_the_families_are_registered_and_say_what_to_install() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "import gymnasium, metarl\n"
        "assert 'metarl/HalfCheetahDir-v0' in gymnasium.registry\n"
        "for make in (metarl.make, lambda family: metarl.make_vec(family, 2)):\n"
        "    try: make('metarl/AntGoal-v0')\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    sentence = (
        "family metarl/AntGoal-v0 cannot be made: the locomotion families need MuJoCo: "
        "pip install 'gymnasium[mujoco]>=1.1'"
    )
    assert done.stdout.splitlines() == [sentence, sentence], done.stderr


def test_importing_metarl_imports_no_mujoco() -> None:
    code = "import sys, metarl; assert 'mujoco' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_picture_shows_the_body() -> None:
    code = (
        "import numpy as np, metarl\n"
        "env = metarl.make('metarl/HopperParams-v0', render_mode='rgb_array')\n"
        "env.reset(seed=1)\n"
        "first = env.render().copy()\n"
        "assert first.shape == (256, 256, 3) and first.dtype == np.uint8 and len(np.unique(first)) > 20\n"
        "for _ in range(10): env.step(np.ones(3, np.float32))\n"
        "assert (env.render() != first).any()\n"
        "task = metarl.sample_tasks('metarl/HopperParams-v0', 1)\n"
        "env.reset(seed=1, options={'task': task[0]})\n"
        "assert (env.render() == first).mean() > 0.99\n"
        "env.close()\n"
    )
    probe = "import mujoco; mujoco.GLContext(64, 64).make_current()"
    with_egl = {**os.environ, "MUJOCO_GL": "egl"}
    if subprocess.run([sys.executable, "-c", probe], env=with_egl, capture_output=True, check=False).returncode:
        pytest.skip("no EGL on this machine to render with")
    done = subprocess.run([sys.executable, "-c", code], env=with_egl, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_where_nothing_can_be_drawn_the_error_says_what_to_install() -> None:
    code = (
        "import os, metarl\n"
        "env = metarl.make('metarl/HalfCheetahDir-v0', render_mode='rgb_array')\n"
        "env.reset(seed=1)\n"
        "os.environ['MUJOCO_GL'] = 'nothing'\n"
        "try: env.unwrapped.render()\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("MuJoCo cannot draw here ("), done.stderr
    assert "set the environment variable MUJOCO_GL to egl or osmesa" in done.stdout
