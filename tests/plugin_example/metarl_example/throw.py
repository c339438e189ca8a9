"""A family in the fewest lines: throw at a target whose distance is the hidden task."""

import gymnasium
import numpy as np
from gymnasium import spaces


class ThrowEnv(gymnasium.Env):
    """The observation is how far the last throw went, the reward minus how far it missed the target."""

    metadata = {"render_modes": []}

    def __init__(self):
        self.task_space = spaces.Box(0.2, 0.8, (1,), np.float32)  # the target's distance
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._target = np.array([0.5], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options and "task" in options:
            self._target = options["task"]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        distance = np.clip(action, -1.0, 1.0).astype(np.float32)
        reward = -float(np.abs(distance - self._target)[0])
        return distance, reward, False, False, {}
