"""Classic control: equal to Gymnasium's own where the task is its own, and other where it is another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.envs import tasks as task_tools

Act = Callable[[np.random.Generator, Any], Any]
COUNT = 8


def balance(rng: np.random.Generator, seen: Any) -> Any:
    """Hold the pole for most of the episode."""
    push = (seen[:, 2] + 0.5 * seen[:, 3] + 0.05 * seen[:, 0] + 0.1 * seen[:, 1] > 0).astype(np.int64)
    return np.where(rng.random(COUNT) < 0.1, rng.integers(0, 2, COUNT), push)


def swing(rng: np.random.Generator, seen: Any) -> Any:
    """Push the first link the way it goes, half the time."""
    return np.where(rng.random(COUNT) < 0.5, 1 + np.sign(seen[:, 4]).astype(np.int64), rng.integers(0, 3, COUNT))


def ride(rng: np.random.Generator, seen: Any) -> Any:
    """Push the car the way it goes."""
    return (np.where(seen[:, 1:] < 0, -1.0, 1.0) * rng.random((COUNT, 1))).astype(np.float32)


def anything(rng: np.random.Generator, seen: Any) -> Any:
    return rng.uniform(-1.0, 1.0, (COUNT, 1)).astype(np.float32)


TWINS = [
    ("metarl/CartPoleParams-v0", "CartPole-v1", balance, 1),
    ("metarl/CartPoleParams-v0", "CartPole-v1", lambda rng, seen: rng.integers(0, 2, COUNT), 1),
    ("metarl/PendulumParams-v0", "Pendulum-v1", anything, 2),
    ("metarl/MountainCarContinuousParams-v0", "MountainCarContinuous-v0", anything, 1),
    ("metarl/MountainCarContinuousParams-v0", "MountainCarContinuous-v0", ride, 1),
    ("metarl/AcrobotParams-v0", "Acrobot-v1", swing, 1),
]


@pytest.mark.parametrize(("family", "original", "act", "scale"), TWINS)
def test_the_default_task_is_gymnasiums_environment(family: str, original: str, act: Act, scale: int) -> None:
    ours = metarl.make_vec(family, COUNT)
    theirs = gymnasium.make_vec(original, COUNT, vectorization_mode="sync")
    limit = gymnasium.spec(original).max_episode_steps
    assert gymnasium.spec(family).max_episode_steps == limit
    assert ours.single_observation_space == theirs.single_observation_space
    rng = np.random.default_rng(0)
    seeds = list(range(100, 100 + COUNT))
    seen, _ = ours.reset(seed=seeds)
    expected, _ = theirs.reset(seed=seeds)
    running = np.ones(COUNT, dtype=bool)
    for _ in range(limit):
        np.testing.assert_allclose(seen[running], expected[running], rtol=0, atol=1e-6)
        actions = act(rng, seen)
        seen, rewards, terminated, truncated, _ = ours.step(actions)
        expected, due, over, cut, _ = theirs.step(actions * scale)
        np.testing.assert_allclose(rewards[running], due[running], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(terminated[running], over[running])
        np.testing.assert_array_equal(truncated[running], cut[running])
        running &= ~(terminated | truncated)
    assert not running.any()


@pytest.mark.parametrize("family", sorted({family for family, *_ in TWINS}))
def test_episodes_of_a_seed_start_and_go_on_as_gymnasiums_do(family: str) -> None:
    original = next(name for ours, name, *_ in TWINS if ours == family)
    ours, theirs = metarl.make(family), gymnasium.make(original)
    for seed in (3, None, None):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])


@pytest.mark.parametrize("family", sorted({family for family, *_ in TWINS}))
def test_each_constant_changes_the_motion(family: str) -> None:
    env = metarl.make(family)
    default = task_tools.attribute(env, "default_task")
    space = task_tools.task_space(env)
    assert space.contains(default)

    def end(task: Any) -> Any:
        observation, _ = env.reset(seed=1, options={"task": task})
        env.action_space.seed(1)
        for _ in range(9):
            observation, *_ = env.step(env.action_space.sample())
        return observation.tolist()

    ends = [end(default)] + [end({**default, name: part.high}) for name, part in space.spaces.items()]
    assert len({str(entry) for entry in ends}) == len(space.spaces) + 1


def one_step(family: str, task: dict[str, float], state: list[float], action: Any) -> Any:
    """Step once from a state; return the state that follows."""
    env = metarl.make(family)
    env.reset(options={"task": task})
    env.unwrapped.batch.state[:, 0] = state
    env.step(action)
    return env.unwrapped.state


def test_cartpole_derives_total_mass_and_pole_moment() -> None:
    task = {"gravity": 10.0, "masscart": 0.8, "masspole": 0.2, "length": 1.0, "force_mag": 5.0}
    # Upright and at rest, pushed to the right: push = 5, theta_acc = -5 / (4/3 - 0.2), x_acc = 5 - 0.2 theta_acc.
    angular = -5.0 / (4.0 / 3.0 - 0.2)
    after = one_step("metarl/CartPoleParams-v0", task, [0.0, 0.0, 0.0, 0.0], 1)
    np.testing.assert_allclose(after, [0.0, 0.02 * (5.0 - 0.2 * angular), 0.0, 0.02 * angular])
    # The pole spinning at 2 rad/s, leaning by 0.1: push = -5 + 0.2 * 1.0 * 4 * sin.
    sin, cos = np.sin(0.1), np.cos(0.1)
    push = -5.0 + 0.8 * sin
    angular = (10.0 * sin - cos * push) / (4.0 / 3.0 - 0.2 * cos**2)
    after = one_step("metarl/CartPoleParams-v0", task, [1.0, 0.5, 0.1, 2.0], 0)
    np.testing.assert_allclose(after, [1.01, 0.5 + 0.02 * (push - 0.2 * angular * cos), 0.14, 2.0 + 0.02 * angular])


def test_half_of_the_motors_may_be_reversed() -> None:
    family = "metarl/CartPoleParams-v0"
    forces = metarl.sample_tasks(family, 1000, polarity="either")["force_mag"]
    assert (forces < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(forces).min() >= 5.0
    assert metarl.sample_tasks(family, 1000)["force_mag"].min() >= 5.0
    assert metarl.check_family(family, polarity="either") == []
    task = {**task_tools.attribute(metarl.make(family), "default_task"), "force_mag": -10.0}
    env = metarl.make(family, polarity="either", task=task)
    observation, _ = env.reset(seed=0)
    assert env.step(1)[0][1] < observation[1]
    with pytest.raises(ValueError, match="outside its space"):
        metarl.make(family, task=task)
    with pytest.raises(ValueError, match="polarity is 'both'; expected 'normal' or 'either'"):
        metarl.make(family, polarity="both")


def test_a_unit_of_action_is_two_newton_metres_on_the_pendulum_and_more_is_clipped() -> None:
    task = {"g": 10.0, "m": 0.5, "l": 0.5}
    for action in (1.0, 7.0):
        after = one_step("metarl/PendulumParams-v0", task, [0.0, 0.0], np.array([action], np.float32))
        # 3 u / (m l^2) dt = 3 * 2 / 0.125 * 0.05 = 2.4 rad/s
        np.testing.assert_allclose(after, [0.12, 2.4])
    after = one_step("metarl/PendulumParams-v0", task, [np.pi / 2, 0.0], np.zeros(1, np.float32))
    # 3 g / (2 l) dt = 1.5 rad/s
    np.testing.assert_allclose(after, [np.pi / 2 + 0.075, 1.5])


def test_the_car_gains_its_power_and_loses_to_gravity() -> None:
    task = {"power": 0.002, "gravity": 0.003}
    after = one_step("metarl/MountainCarContinuousParams-v0", task, [-0.5, 0.0], np.array([0.5], np.float32))
    velocity = 0.001 - 0.003 * np.cos(-1.5)
    np.testing.assert_allclose(after, [-0.5 + velocity, velocity], rtol=1e-5)


def test_acrobots_links_hang_still_without_torque() -> None:
    task = {
        key: float(part.low)
        for key, part in metarl.make("metarl/AcrobotParams-v0").get_wrapper_attr("task_space").items()
    }
    np.testing.assert_allclose(one_step("metarl/AcrobotParams-v0", task, [0.0] * 4, 1), [0.0] * 4, atol=1e-12)


def test_acrobot_conserves_energy_without_torque() -> None:
    """The mechanical energy stays within what Runge-Kutta at 0.2 s loses: the constants enter every term rightly."""
    task = {"gravity": 9.0, "link_mass_1": 1.2, "link_mass_2": 0.8, "link_com_pos_1": 0.4, "link_com_pos_2": 0.6}
    g, m1, m2, c1, c2, moi = 9.0, 1.2, 0.8, 0.4, 0.6, 1.3

    def energy(state: Any) -> float:
        t1, t2, w1, w2 = state
        speed2 = w1**2 + (c2 * (w1 + w2)) ** 2 + 2 * c2 * w1 * (w1 + w2) * np.cos(t2)
        moving = 0.5 * m1 * (c1 * w1) ** 2 + 0.5 * m2 * speed2 + 0.5 * moi * w1**2 + 0.5 * moi * (w1 + w2) ** 2
        return float(moving - m1 * g * c1 * np.cos(t1) - m2 * g * (np.cos(t1) + c2 * np.cos(t1 + t2)))

    env = metarl.make("metarl/AcrobotParams-v0", task={**task, "link_moi": moi})
    env.reset()
    env.unwrapped.batch.state[:, 0] = [0.6, -0.5, 0.0, 0.0]
    before = energy(env.unwrapped.state)
    for _ in range(20):
        env.step(1)
    assert energy(env.unwrapped.state) == pytest.approx(before, abs=0.01)
    assert np.abs(env.unwrapped.state[2:]).max() > 0.1
