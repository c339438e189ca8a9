"""Dosing: the kinetics, the window, the measured level, the best doses and the textbook's."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.envs.dosing import kinetics
from metarl.envs.dosing.optimum import best_doses, course
from metarl.envs.dosing.rule import clearance_from_level, play_rules, textbook_doses

FAMILY = "metarl/Dosing-v0"


@pytest.mark.parametrize("route", ["oral", "intravenous"])
@pytest.mark.parametrize(("clearance", "volume"), [(0.06, 0.5), (0.2, 0.3), (0.8, 0.5)])
def test_concentrations_solve_the_differential_equations(route: str, clearance: float, volume: float) -> None:
    start, gut, steps = 7.0, 4.0, 60000
    concentration, amount = start + (gut / volume if route == "intravenous" else 0.0), gut if route == "oral" else 0.0
    found, after = kinetics.concentrations(start, gut, clearance, volume, route)
    for step in range(steps):
        absorbed, cleared = 1.6 * amount * 6 / steps, clearance * concentration * 6 / steps
        concentration, amount = concentration + (absorbed - cleared) / volume, amount - absorbed
        if (step + 1) % 10000 == 0:
            assert found[step // 10000] == pytest.approx(concentration, rel=1e-3)
    assert after == pytest.approx(amount, abs=1e-4)


def test_the_closeness_falls_by_one_for_each_factor_of_two() -> None:
    levels = np.array([10.0, 15.0, 20.0, 5.0, 40.0, 40 * 2**0.5, 0.0, 1e4])
    np.testing.assert_allclose(kinetics.closeness(levels), [1, 1, 1, 0, 0, -0.5, -1, -1], atol=1e-12)
    assert kinetics.inside(np.array([[10.0, 20.0], [9.9, 15.0], [15.0, 20.1]])).tolist() == [True, False, False]


def test_patients_are_drawn_as_in_the_source() -> None:
    tasks = metarl.sample_tasks(FAMILY, 4000).batch
    for name, middle, variation in (("clearance", 0.0614, 0.385), ("volume", 0.485, 0.125)):
        logs = np.log(tasks[name])
        assert np.exp(logs.mean()) == pytest.approx(middle, rel=0.02)
        assert logs.std() == pytest.approx(np.sqrt(np.log(1 + variation**2)), rel=0.05)


def play(env: gymnasium.Env[Any, Any], doses: Any, **options: Any) -> tuple[list[Any], float, list[bool]]:
    """Give doses in mg/kg; return observations, the return, and what each info said of success."""
    observation, _ = env.reset(**options)
    observations, total, successes = [observation], 0.0, []
    for dose in doses:
        observation, reward, terminated, _, info = env.step(kinetics.to_actions([dose]))
        observations.append(observation)
        total += reward
        successes.append(info["success"])
    assert terminated
    return observations, total, successes


def test_a_course_in_the_window_is_a_success_at_its_end() -> None:
    env = gymnasium.make(FAMILY)
    oracle = env.unwrapped
    task = {"clearance": 0.05, "volume": 0.5}
    best = oracle.oracle_doses(task)
    _, total, successes = play(env, best, seed=1, options={"task": task})
    assert total == pytest.approx(oracle.oracle_return(task), abs=1e-5)
    assert successes == [False] * 11 + [True]
    _, worse, successes = play(env, [*best[:11], 0.0], seed=1)
    assert worse < total
    assert not any(successes)


def test_one_level_is_measured_with_an_error() -> None:
    env = gymnasium.make(FAMILY)
    doses = textbook_doses(kinetics.CLEARANCE, 12)
    true = course(doses, kinetics.CLEARANCE, kinetics.VOLUME)[2, -1]
    seen = []
    for seed in range(200):
        observations, _, _ = play(env, doses, seed=seed)
        levels = [observation[1] * 20 for observation in observations]
        assert levels[:3] == [0.0] * 3
        assert len(set(levels[3:])) == 1
        seen.append(levels[3])
    assert np.mean(seen) == pytest.approx(true, rel=0.03)
    assert np.std(seen) / np.mean(seen) == pytest.approx(0.106, rel=0.2)
    never = gymnasium.make(FAMILY, level_after=0)
    observations, _, _ = play(never, doses, seed=1)
    assert all(observation[1] == 0.0 for observation in observations)
    np.testing.assert_allclose([o[0] for o in observations], np.arange(13) / 12, rtol=1e-6)
    np.testing.assert_allclose([o[2] for o in observations[1:]], doses / 15, rtol=1e-6)


@pytest.mark.parametrize("route", ["oral", "intravenous"])
def test_no_change_of_the_best_doses_is_better(route: str) -> None:
    rng = np.random.default_rng(0)
    for clearance, volume in ((0.03, 0.45), (0.0614, 0.485), (0.15, 0.6)):
        best = best_doses(clearance, volume, 12, route)

        def worth(doses: Any, patient: tuple[float, float] = (clearance, volume)) -> float:
            return float(kinetics.closeness(course(doses, *patient, route)).mean(axis=1).sum())

        for _ in range(60):
            change = rng.normal(scale=rng.choice([0.1, 1.0]), size=12) * (rng.random(12) < 0.3)
            changed = np.clip(best + change, 0.0, kinetics.LARGEST_DOSE)
            assert worth(changed) <= worth(best) + 0.02
        assert worth(best) > worth(textbook_doses(kinetics.CLEARANCE, 12)) - 0.02


def test_the_textbook_is_better_with_a_level_and_worse_than_knowing() -> None:
    tasks = metarl.sample_tasks(FAMILY, 200, split="test")
    found = play_rules(tasks.batch, seed=0)
    oracle = gymnasium.make(FAMILY).unwrapped
    best = np.array([oracle.oracle_return(task) for task in list(tasks)[:60]])
    population, level = (found[name]["return"] for name in ("population", "one level"))
    assert population.mean() + 0.5 < level.mean()
    assert (level[:60] <= best + 0.02).all()
    assert found["population"]["success"].mean() + 0.1 < found["one level"]["success"].mean() < 1.0


def test_a_level_tells_the_clearance() -> None:
    doses = textbook_doses(kinetics.CLEARANCE, 3)
    true = np.array([0.03, 0.0614, 0.12])
    levels = np.array([course(doses, clearance, kinetics.VOLUME)[-1, -1] for clearance in true])
    found = clearance_from_level(levels, np.tile(doses, (3, 1)))
    assert found[1] == pytest.approx(true[1], rel=0.02)
    assert (np.abs(np.log(found / true)) < 0.2).all()
    assert true[0] < found[0] < found[1] < found[2] < true[2]  # drawn towards the population's


def test_wrong_input_is_one_sentence() -> None:
    for wrong, message in (
        ({"route": "rectal"}, "route is 'rectal'; expected one of oral, intravenous"),
        ({"doses": 3}, "doses is 3; expected a whole number of at least 4"),
        ({"level_after": -1}, "level_after is -1; expected a whole number of at least 0"),
        ({"level_after": 12}, "level_after is 12, and a course has 12 doses; expected fewer"),
    ):
        with pytest.raises(ValueError, match=message):
            metarl.make(FAMILY, **wrong)
    for wrong in (-0.5, np.inf, np.nan):
        for use in (kinetics.to_actions, lambda doses: course(doses, 0.06, 0.5)):
            with pytest.raises(ValueError, match=f"a dose is {wrong:g} mg/kg; expected finite numbers from 0 on"):
                use([5.0, wrong])
        with pytest.raises(ValueError, match=f"a dose is {wrong:g} mg/kg"):
            clearance_from_level([10.0], [[5.0, wrong]])


def test_wrong_patients_levels_and_routes_are_one_sentence() -> None:
    env = metarl.make(FAMILY).unwrapped
    for clearance, volume, message in (
        (-0.09, 0.5, "a clearance is -0.09 L/h/kg; expected finite numbers from 0 on"),
        (np.nan, 0.5, "a clearance is nan L/h/kg"),
        (0.06, 0.0, "a volume is 0 L/kg; expected finite numbers above 0"),
        ("high", 0.5, "a clearance is high .*; expected finite numbers from 0 on, in L/h/kg"),
    ):
        for use in (
            lambda c=clearance, v=volume: env.oracle_doses({"clearance": c, "volume": v}),
            lambda c=clearance, v=volume: env.oracle_return({"clearance": c, "volume": v}),
            lambda c=clearance, v=volume: course([5.0], c, v),
        ):
            with pytest.raises(ValueError, match=message):
                use()
    with pytest.raises(ValueError, match="expected a dict with the keys clearance and volume"):
        env.oracle_doses({"clearance": 0.06})
    for level in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"a level is {level:g} mg/L; expected finite numbers above 0"):
            clearance_from_level([level], [[5.0, 5.0]])
    with pytest.raises(ValueError, match="route is 'nose'; expected one of oral, intravenous"):
        course([5.0], 0.06, 0.5, route="nose")
    with pytest.raises(ValueError, match=r"a dose is much .*; expected finite numbers from 0 on, in mg/kg"):
        kinetics.to_actions("much")
    with pytest.raises(ValueError, match="a dose is masked"):
        kinetics.to_actions(np.ma.masked_greater([1.0, 2.0], 1.5))


def test_actions_stand_for_doses() -> None:
    np.testing.assert_allclose(kinetics.to_actions([0.0, 7.5, 15.0, 20.0]), [-1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(kinetics.to_doses([-2.0, 0.0, 0.2, 1.0]), [0.0, 7.5, 9.0, 15.0])
