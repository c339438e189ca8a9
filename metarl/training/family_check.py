"""The check of a family before training begins."""

from __future__ import annotations

import warnings

from metarl.envs import quick_check
from metarl.settings import Settings
from metarl.training.infos import refuse_unknown_infos


def check_family(settings: Settings) -> None:
    """Refuse settings that name what no ``info`` has; with ``learning.check``, warn of what may be wrong.

    A few episodes are played, but not where ``learning.workers`` keeps environments in other processes, since this
    plays in the caller's own.

    Raises:
        ValueError: no episode ends and there is no time limit, or no ``info`` has what a setting names.
        RolloutError: an observation or reward is not finite.
    """
    refuse_unknown_infos(settings)
    if settings.learning.check and settings.learning.workers in ("auto", 1):
        for sentence in quick_check(settings.family, **settings.family_kwargs):
            warnings.warn(sentence, UserWarning, stacklevel=4)
