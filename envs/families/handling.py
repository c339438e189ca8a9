"""How highway-env's ego vehicle holds the road and steers, as parameters of tasks; needs the extra [driving]."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium

GRAVITY = 9.81  # m/s^2


class Handling(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives the ego vehicle of highway-env a friction and a steering gain, both of which are 1 at first.

    Tyres on a road of friction ``mu`` hold accelerations up to ``mu g`` along the road, and as much across it: the
    vehicle neither brakes nor turns harder. The steering angle is the steering gain times the one asked for.

    Attributes:
        friction: of the road, above 0; about 0.9 if it is dry, 0.5 if it is wet and 0.15 if it is icy.
        steering_gain: factor on the steering angle, above 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.friction = 1.0
        self.steering_gain = 1.0

    def reset(self, **arguments: Any) -> Any:
        """Begin an episode.

        Raises:
            ValueError: friction or steering gain is not a number above 0.
        """
        for name in ("friction", "steering_gain"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} is {value}; expected a number above 0")
        found = self.env.reset(**arguments)
        inner: Any = self.env.unwrapped
        vehicle = inner.vehicle
        vehicle.step = functools.partial(self._step, vehicle, vehicle.step)
        return found

    def _step(self, vehicle: Any, step: Any, seconds: float) -> None:
        asked = vehicle.action
        limit = self.friction * GRAVITY
        angle = held_angle(self.steering_gain * float(asked["steering"]), vehicle.speed, vehicle.LENGTH, limit)
        acceleration = max(-limit, min(float(asked["acceleration"]), limit))
        vehicle.action = {"steering": angle, "acceleration": acceleration}
        step(seconds)
        vehicle.action = asked


def held_angle(angle: float, speed: float, length: float, limit: float) -> float:
    """Return the steering angle whose turn tyres can hold, in highway-env's bicycle model.

    The slip angle is ``beta = arctan(tan(delta) / 2)``, and the heading turns by ``v sin(beta) / (length / 2)`` per
    second, so that the acceleration across the road is ``v^2 sin(beta) / (length / 2)``.

    Args:
        angle: delta, in radians.
        speed: v, in m/s.
        length: of the vehicle, in m.
        limit: of the acceleration across the road, in m/s^2.
    """
    most = limit * length / 2.0 / max(speed * speed, 1e-6)
    if most >= 1.0:
        return angle
    largest = math.atan(2.0 * math.tan(math.asin(most)))
    return max(-largest, min(angle, largest))
