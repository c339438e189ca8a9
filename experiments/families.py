"""The list that ``metarl envs`` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from metarl.envs import list_families, make
from metarl.envs.tasks import task_space


def describe_families() -> list[dict[str, Any]]:
    """Return each installed family with its spaces; one that cannot be made with its fault instead."""
    described = []
    for listing in list_families():
        entry: dict[str, Any] = dataclasses.asdict(listing)
        if listing.fault is None:
            try:
                env = make(listing.id)
            except Exception as error:  # a broken plug-in must not hide the others
                entry["fault"] = f"{type(error).__name__}: {error}"
            else:
                entry["task_space"] = str(task_space(env))
                entry["observation_space"] = str(env.observation_space)
                entry["action_space"] = str(env.action_space)
                entry["max_episode_steps"] = env.spec.max_episode_steps if env.spec is not None else None
                env.close()
        described.append(entry)
    return described
