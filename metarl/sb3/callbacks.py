"""stable-baselines3's callbacks: accepted forms, and the variables that they read after an iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from metarl.agents import Rollouts


def as_callback(callback: Any) -> BaseCallback:
    """Return a callback, a list of them, a function, or None as one callback.

    Raises:
        ValueError: it is none of these.
    """
    if callback is None:
        return CallbackList([])
    if isinstance(callback, list | tuple):
        return CallbackList([as_callback(one) for one in callback])
    if isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        made = f", as in {callback.__name__}(...)" if isinstance(callback, type) else ""
        raise ValueError(
            f"callback is {callback!r}; expected a callback of stable-baselines3{made}, a list of them, or a function "
            "of two arguments, the local and the global variables"
        )
    return ConvertCallback(callback)


def episodes_for_callbacks(rollouts: Sequence[Rollouts]) -> dict[str, Any]:
    """Return an iteration's episodes as callbacks read them: as if all sub-environments ended in one step."""
    if not rollouts:
        return {}
    returns = torch.cat([(part.rewards * part.mask).sum(dim=2).flatten() for part in rollouts]).double().numpy()
    lengths = torch.cat([part.mask.sum(dim=2).flatten() for part in rollouts]).long().tolist()
    infos = [{"episode": {"r": float(r), "l": length}} for r, length in zip(returns, lengths, strict=True)]
    return {"rewards": returns, "dones": np.ones(len(returns), dtype=np.bool_), "infos": infos}
