"""Small families whose environments behave differently from task to task, as those of different ranks may."""

from __future__ import annotations

import time
from typing import Any

from toy_families import SignEnv


class TellsSometimes(SignEnv):
    """Tells of success and speed in ``info``, but only of tasks above 0.5."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        told = {"success": self.time == 2, "speed": float(self.time * self.task[0])} if self.task[0] > 0.5 else {}
        return *rest, {**info, **told}


class Breaks(SignEnv):
    """Raises an error in the second step of a task above 0.5.

    Args:
        slow: seconds that each step takes.
    """

    def __init__(self, slow: float = 0.0) -> None:
        super().__init__()
        self._slow = slow

    def step(self, action: Any) -> Any:
        time.sleep(self._slow)
        if self.time == 1 and self.task[0] > 0.5 and not self._slow:
            raise OSError("broken")
        return super().step(action)
