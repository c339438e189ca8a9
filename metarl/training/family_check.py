"""The check of a family before training begins."""

from __future__ import annotations

import warnings

from metarl.envs import quick_check
from metarl.settings import Settings


def check_family(settings: Settings) -> None:
    """Play a few episodes if ``learning.check`` is on, and warn of what may be wrong.

    Not where ``learning.workers`` keeps environments in other processes, since this plays in the caller's own.

    Raises:
        ValueError: no episode ends and there is no time limit.
        RolloutError: an observation or reward is not finite.
    """
    if settings.learning.check and settings.learning.workers in ("auto", 1):
        for sentence in quick_check(settings.family, **settings.family_kwargs):
            warnings.warn(sentence, UserWarning, stacklevel=4)
