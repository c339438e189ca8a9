"""What ``--profile`` measures: a trace of one iteration, and how much the ranks of a run send each other."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import profile

from metarl.distributed import Group


class Profile(BaseCallback):
    """Writes ``profile.json``, a trace of one iteration that https://ui.perfetto.dev opens.

    It is the second iteration, since the first one warms up; the first if there is only one.
    """

    def __init__(self, folder: Path, iterations: int) -> None:
        super().__init__()
        self._path = folder / "profile.json"
        self._wait = min(iterations - 1, 1)
        self._profiler: profile | None = None

    def _on_rollout_start(self) -> None:
        if self._wait == 0:
            config = _ExperimentalConfig(profile_all_threads=True)
            self._profiler = profile(experimental_config=config)
            self._profiler.start()
        self._wait -= 1

    def _on_step(self) -> bool:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._path))
            self._profiler = None
        return True


class Traffic(BaseCallback):
    """Counts messages, their bytes, and the seconds that rank 0 waits for them, in each iteration without validation.

    Attributes:
        iterations: ``(messages, bytes, seconds of waiting, seconds)`` of each.
    """

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.iterations: list[tuple[float, ...]] = []
        self._group = group
        self._before: tuple[float, ...] = ()

    def _now(self) -> tuple[float, ...]:
        return self._group.messages, self._group.bytes, self._group.seconds, time.perf_counter()

    def _on_rollout_start(self) -> None:
        self._before = self._now()

    def _on_rollout_end(self) -> None:
        self.iterations.append(tuple(np.subtract(self._now(), self._before).tolist()))

    def _on_step(self) -> bool:
        return True

    def in_words(self) -> str:
        """Return the medians over iterations as a sentence."""
        if not self.iterations:
            return "No iteration was made, so no messages were counted"
        messages, size, waiting, seconds = np.median(self.iterations, axis=0).tolist()
        share = waiting / seconds
        return (
            f"An iteration exchanges {messages:.0f} messages with {size / 1e6:,.3g} MB in all between "
            f"{self._group.size} processes; rank 0 waits for them for {share:.0%} of its {seconds:.3g} seconds "
            f"(medians of {len(self.iterations)})"
        )
