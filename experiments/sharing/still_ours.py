"""Ends the training of a run that another process has taken, since this one had not been heard of for long."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

from metarl.experiments.sharing.claims import Claim


class LostError(Exception):
    """Another process has taken the run."""


class StillOurs(BaseCallback):
    """Raises ``LostError`` before a checkpoint of a run is written that another process has taken.

    Args:
        claim: this process's on the run.
    """

    def __init__(self, claim: Claim) -> None:
        super().__init__()
        self._claim = claim

    def _on_step(self) -> bool:
        if self._claim.lost:
            raise LostError
        return True
