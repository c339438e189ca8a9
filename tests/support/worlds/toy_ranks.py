"""Small families whose environments behave differently from task to task, as those of different ranks may."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from toy_families import SignEnv


class TellsSometimes(SignEnv):
    """Tells of success and speed in ``info``, but only of tasks above 0.5."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        told = {"success": self.time == 2, "speed": float(self.time * self.task[0])} if self.task[0] > 0.5 else {}
        return *rest, {**info, **told}


class FailsOnce(SignEnv):
    """Dies with its process or hangs in the second step of the first task above 0.5, and writes a file so as to know.

    Args:
        mark: the file.
        hangs: whether it hangs.
    """

    def __init__(self, mark: str, hangs: bool = False) -> None:
        super().__init__()
        self._mark, self._hangs = Path(mark), hangs

    def step(self, action: Any) -> Any:
        if self.time == 1 and self.task[0] > 0.5 and not self._mark.exists():
            self._mark.touch()
            time.sleep(60.0 if self._hangs else 0.0)
            os._exit(7)
        return super().step(action)


class Breaks(SignEnv):
    """Raises an error in the second step of a task above 0.5."""

    def step(self, action: Any) -> Any:
        if self.time == 1 and self.task[0] > 0.5:
            raise OSError("broken")
        return super().step(action)
