"""What the driver sees in highway-env's traffic, computed fast enough to learn from; needs the extra [driving]."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

OWN_FEATURES = 4
FEATURES = 5  # of another vehicle
SIGHT = 50.0  # metres
SPEED_SCALE = 20.0  # metres a second


class Traffic(gymnasium.ObservationWrapper[Any, Any, Any]):
    """The ego vehicle and the nearest others in highway-env, as a row of numbers in the ego vehicle's own axes.

    It stands for highway-env's ``Kinematics``, which spends most of a step in pandas. Together with
    ``observation = {type = "AttributesObservation", attributes = ["time"]}``, which leaves highway-env nothing to
    compute, it makes steps several times as fast.

    The observation is, of the ego vehicle, its lane (0: the leftmost, 1: the rightmost), its speed (in 20 m/s), the
    cosine and the sine of its heading; and of each of the nearest ``vehicles`` within 50 m a 1, how far ahead and how
    far to the right it is (in 50 m), and how fast it moves away in these directions (in 20 m/s); zeros where there is
    none.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], vehicles: int = 3) -> None:
        super().__init__(env)
        self._vehicles = vehicles
        high = np.full(OWN_FEATURES + FEATURES * vehicles, 10.0, np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """Return what is seen of the traffic, in place of what highway-env returns."""
        env: Any = self.env.unwrapped
        ego = env.vehicle
        cosine, sine = np.cos(ego.heading), np.sin(ego.heading)
        lanes = len(env.road.network.all_side_lanes(ego.lane_index))
        seen = np.zeros((self._vehicles, FEATURES))
        others = [vehicle for vehicle in env.road.vehicles if vehicle is not ego]
        if others:
            # y points to the right of somebody who looks along x.
            own_axes = np.array([[cosine, -sine], [sine, cosine]])
            places = (np.array([vehicle.position for vehicle in others]) - ego.position) @ own_axes
            speeds = (np.array([vehicle.velocity for vehicle in others]) - ego.velocity) @ own_axes
            distances = np.hypot(*places.T)
            near = np.argsort(distances, kind="stable")[: self._vehicles]
            near = near[distances[near] <= SIGHT]
            seen[: len(near), 0] = 1.0
            seen[: len(near), 1:3] = places[near] / SIGHT
            seen[: len(near), 3:5] = speeds[near] / SPEED_SCALE
        own = [ego.lane_index[2] / max(lanes - 1, 1), ego.speed / SPEED_SCALE, cosine, sine]
        row: NDArray[np.float32] = np.concatenate([own, seen.ravel()]).clip(-10.0, 10.0).astype(np.float32)
        return row
