"""What an environment's ``info`` tells, found out by playing an episode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.envs import make
from metarl.envs import tasks as task_tools
from metarl.envs.sync import close_or_warn
from metarl.settings import Settings
from metarl.statistics import STATISTICS, SUCCESS_INFO

STEPS = 1000  # of the episode that is played


def refuse_unknown_infos(settings: Settings) -> None:
    """Refuse settings that name an entry of ``info`` that an episode of random actions does not show.

    Nothing is played where no setting names one.

    Raises:
        ValueError: there is no such entry, it is no number, or it is measured anyway.
    """
    record = settings.evaluation.record
    if again := [name for name in record if name in STATISTICS]:
        raise ValueError(f"evaluation.record names {again[0]!r}, which is measured anyway; leave it out")
    by_success = settings.evaluation.best == "success"
    if not record and not by_success:
        return
    told = _numbers_told(settings)
    listed = f"it tells {', '.join(map(repr, told))}" if told else "it tells no numbers"
    for name in record:
        if name not in told:
            raise ValueError(
                f"evaluation.record names {name!r}, but no info of {settings.family} has a number of this name in an "
                f"episode of random actions; {listed}"
            )
    if by_success and not set(SUCCESS_INFO) & set(told):
        raise ValueError(
            f"evaluation.best is 'success', but no info of {settings.family} tells of success ('success' or "
            f"'is_success') in an episode of random actions; {listed}; set evaluation.best = 'return'"
        )


def _numbers_told(settings: Settings) -> Sequence[str]:
    """Return the names of the numbers in the infos of an episode of random actions."""
    env = make(settings.family, **settings.family_kwargs)
    try:
        task = task_tools.unstack_tasks(
            task_tools.task_space(env),
            task_tools.draw_tasks(env, 1, task_tools.task_rng(settings.seed, "train"), "train"),
        )[0]
        env.reset(seed=0, options={"task": task})
        env.action_space.seed(0)
        told: dict[str, None] = {}
        for _ in range(STEPS):
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            for name, value in info.items():
                number = np.asarray(value)
                if number.shape == () and number.dtype.kind in "biuf" and not np.isnan(number):
                    told[str(name)] = None
            if terminated or truncated:
                break
        return list(told)
    finally:
        close_or_warn(env)
