"""Friction and steering gain of highway-env's ego vehicle, as parameters of tasks."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import metarl
from metarl.envs.families.handling import GRAVITY, held_angle

pytest.importorskip("highway_env", reason="needs the extra [driving]")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of highway-env's own
LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)


def driven(action: int, steps: int = 2, **task: float) -> tuple[Any, float]:
    """Return the ego vehicle after some steps, and where it was across the road before them."""
    family = metarl.parameterized(
        "highway_env:highway-v0",
        {"friction": (0.05, 1.0), "steering_gain": (0.1, 2.0)},
        env_kwargs={
            "config": {
                "observation": {"type": "AttributesObservation", "attributes": ["time"]},
                "vehicles_count": 0,
                "simulation_frequency": 5,
            }
        },
        wrappers=["metarl.envs.families.handling:Handling", "metarl.envs.families.driving:Traffic"],
        max_episode_steps=10,
    )
    env = metarl.make(family, task={"friction": 1.0, "steering_gain": 1.0, **task})
    env.reset(seed=3)
    ego = env.unwrapped.inner.unwrapped.vehicle
    across = float(ego.position[1])
    for _ in range(steps):
        env.step(action)
    return ego, across


def test_with_both_at_one_nothing_changes_and_less_friction_brakes_less() -> None:
    speeds = [driven(SLOWER, friction=friction)[0].speed for friction in (0.05, 0.2, 1.0)]
    assert speeds[0] > speeds[1] > speeds[2]
    assert speeds[0] == pytest.approx(25.0 - 0.05 * GRAVITY * 2.0, abs=0.05)


def test_steering_gain_and_friction_change_how_fast_a_lane_is_left() -> None:
    def moved(**task: float) -> float:
        ego, across = driven(LEFT, steps=1, **task)
        return abs(float(ego.position[1]) - across)

    usual = moved()
    assert usual > 1.0
    assert moved(steering_gain=0.3) < usual
    assert moved(friction=0.05) < usual


@given(st.floats(-1.0, 1.0), st.floats(0.0, 40.0), st.floats(0.05, 1.0))
def test_no_turn_asks_more_of_tyres_than_they_hold(angle: float, speed: float, friction: float) -> None:
    found = held_angle(angle, speed, 5.0, friction * GRAVITY)
    across = speed**2 * math.sin(math.atan(math.tan(found) / 2.0)) / 2.5
    assert abs(across) <= friction * GRAVITY + 1e-6 or np.isclose(found, angle)
    assert abs(found) <= abs(angle) + 1e-12


def test_a_friction_that_is_none_is_refused() -> None:
    env = metarl.envs.families.handling.Handling(gymnasium.make("CartPole-v1"))
    env.friction = 0.0
    with pytest.raises(ValueError, match=r"^friction is 0\.0; expected a number above 0$"):
        env.reset()
