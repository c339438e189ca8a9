"""Descriptions of families, for ``metarl envs`` and docs/families.md."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.envs import list_families, make
from metarl.envs.tasks import attribute, task_space


def describe_families() -> list[dict[str, Any]]:
    """Return a description of each installed family; of a family that cannot be made, its fault."""
    described = []
    for listing in list_families():
        entry: dict[str, Any] = dataclasses.asdict(listing)
        if listing.fault is None:
            try:
                env = make(listing.id)
            except Exception as error:  # a broken plug-in must not hide the others
                entry["fault"] = f"{type(error).__name__}: {error}"
            else:
                entry.update(_describe(env))
                env.close()
        described.append(entry)
    return described


def _describe(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    sheet = re.sub(r"\s+", " ", type(env.unwrapped).__doc__ or "")
    source = re.search(r"\*\*Source\*\*: (.*?)(?: - \*\*|$)", sheet)
    return {
        "task_space": str(task_space(env)),
        "observation_space": str(env.observation_space),
        "action_space": str(env.action_space),
        "max_episode_steps": env.spec.max_episode_steps if env.spec is not None else None,
        "task": in_words(task_space(env)),
        "observation": in_words(env.observation_space, ranges=False),
        "action": in_words(env.action_space),
        "oracle": attribute(env, "oracle_return") is not None,
        "literature": source.group(1) if source else None,
    }


def in_words(space: spaces.Space[Any], *, ranges: bool = True) -> str:
    """Return a short description of a space in words.

    >>> in_words(spaces.Dict({"gravity": spaces.Box(5.0, 15.0, ()), "side": spaces.Discrete(2)}))
    'gravity: 5 to 15; side: one of 2'
    """
    if isinstance(space, spaces.Dict):
        return "; ".join(f"{name}: {in_words(part, ranges=ranges)}" for name, part in space.spaces.items())
    if isinstance(space, spaces.Discrete):
        return f"one of {space.n}"
    if isinstance(space, spaces.Box):
        size = " x ".join(str(length) for length in space.shape or (1,))
        size += " number" if size == "1" else " numbers"
        if not ranges:
            return size
        low, high = float(np.min(space.low)), float(np.max(space.high))
        interval = f"{low:.3g} to {high:.3g}" if np.isfinite([low, high]).all() else "unbounded"
        return interval if space.shape == () else f"{size}, {interval}"
    return str(space)
