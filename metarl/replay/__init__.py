"""Replays: episodes of one task before and after each adaptation step, side by side in a moving picture."""

from __future__ import annotations

from metarl.replay.replay import Replay
from metarl.replay.show import show, test_task

__all__ = ["Replay", "show", "test_task"]
