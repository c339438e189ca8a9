"""Driving in highway-env: what is seen of the traffic, and that what is hidden makes a difference."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import metarl
from metarl.experiments.configuration import read_configuration

pytest.importorskip("highway_env", reason="needs the extra [driving]")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of highway-env's own


def made(name: str, changes: tuple[tuple[str, Any], ...] = (), **task: Any) -> Any:
    settings = read_configuration(name, list(changes))[1]
    env = metarl.make(settings.family, **settings.family_kwargs)
    return env if not task else metarl.make(settings.family, task=task, **settings.family_kwargs)


def played(env: Any) -> tuple[Any, Any]:
    observations, rewards = [env.reset(seed=3)[0]], []
    for action in (1, 2, 1, 0, 1, 1):
        observation, reward, terminated, _, info = env.step(action)
        assert bool(info["crashed"]) == terminated
        observations.append(observation)
        rewards.append(reward)
        if terminated:
            break
    return np.array(observations), np.array(rewards)


def test_others_are_seen_in_the_axes_of_the_ego_vehicle() -> None:
    env = made("highway", (("family_kwargs.env_kwargs.config.vehicles_count", 3),))
    env.reset(seed=1)
    inner = env.unwrapped.inner.unwrapped
    ego, *others = inner.road.vehicles
    ego.position, ego.heading, ego.speed = np.array([100.0, 4.0]), np.pi / 2, 10.0
    ego.lane_index = ("0", "1", 1)
    ahead, right, behind = others
    for vehicle, place, speed in (
        (ahead, (100.0, 24.0), 0.0),
        (right, (90.0, 4.0), 20.0),
        (behind, (100.0, -26.0), 0.0),
    ):
        vehicle.position, vehicle.heading, vehicle.speed = np.array(place), np.pi / 2, speed
    seen = env.unwrapped.inner.observation(None)
    np.testing.assert_allclose(seen[:4], [0.5, 0.5, 0.0, 1.0], atol=1e-6)
    expected = [[1.0, 0.0, 0.2, 0.5, 0.0], [1.0, 0.4, 0.0, -0.5, 0.0], [1.0, -0.6, 0.0, -0.5, 0.0]]
    np.testing.assert_allclose(seen[4:].reshape(3, 5), expected, atol=1e-6)
    right.position = np.array([100.0, 400.0])
    np.testing.assert_allclose(env.unwrapped.inner.observation(None)[14:], 0.0)


def test_the_rule_of_lanes_shows_only_in_the_reward() -> None:
    right, left = (played(made("highway", right_lane_reward=sign, vehicles_density=1.0)) for sign in (1.0, -1.0))
    np.testing.assert_array_equal(right[0], left[0])
    lanes = right[0][1:, 0]
    assert lanes.max() > 0.0
    assert np.abs(right[1] - left[1]).max() >= 1.0


def test_how_the_others_drive_and_what_the_passenger_wants_is_hidden_in_the_roundabout() -> None:
    one, other, hurried = (
        played(made("roundabout", other_vehicles_type=manners, high_speed_reward=wish))
        for manners, wish in ((0, -0.5), (1, -0.5), (0, 0.5))
    )
    assert one[0].shape != other[0].shape or np.abs(one[0] - other[0]).max() > 0.01
    np.testing.assert_array_equal(one[0], hurried[0])
    assert (one[1] <= hurried[1]).all()
    assert (one[1] < hurried[1]).any()


@pytest.mark.parametrize("name", ["highway", "roundabout"])
def test_the_checker_finds_nothing(name: str) -> None:
    settings = read_configuration(name, [])[1]
    assert metarl.check_family(settings.family, **settings.family_kwargs) == []


def test_without_highway_env_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highway_env", None)
    with pytest.raises(ValueError, match=r"pip install 'metarl-suite\[driving\]'") as caught:
        made("highway")
    assert "\n" not in str(caught.value)
