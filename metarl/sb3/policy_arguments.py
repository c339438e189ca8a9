"""Policy arguments as JSON, for checkpoints: torch's and stable-baselines3's classes by name, other classes not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common import torch_layers

from metarl.untrusted import shown

# The modules in which classes are looked up by name.
_KNOWN = {"torch": (torch.nn, torch.optim), "stable_baselines3": (torch_layers,)}


def encode(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return policy arguments as JSON; values that JSON cannot hold are marked as missing, with their names."""
    return {key: _encode(value) for key, value in policy_kwargs.items()}


def decode(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return policy arguments from JSON; those in ``given`` replace the ones in JSON.

    Raises:
        ValueError: an argument is marked as missing and not given, or is none that ``encode`` writes; the message names
            it.
    """
    return {key: _decode(key, value) for key, value in kept.items() if key not in given} | given


def _encode(value: Any) -> Any:
    if isinstance(value, type):
        for library, modules in _KNOWN.items():
            if any(getattr(module, value.__name__, None) is value for module in modules):
                return {library: value.__name__}
        return {"missing": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, dict):
        return {"dict": {str(key): _encode(entry) for key, entry in value.items()}}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"missing": repr(value)}


def _decode(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(key, entry) for entry in value]
    if not isinstance(value, dict):
        return value
    kind, entry = next(iter(value.items())) if len(value) == 1 else ("", None)
    if kind == "missing":
        raise ValueError(
            f"the checkpoint cannot keep {key} = {shown(entry)}; give it again: "
            f"load(..., policy_kwargs={{{key!r}: ...}})"
        )
    if kind == "dict" and isinstance(entry, dict):
        return {name: _decode(key, one) for name, one in entry.items()}
    if kind in _KNOWN and isinstance(entry, str):
        found = [one for module in _KNOWN[kind] if isinstance(one := getattr(module, entry, None), type)]
        if found:
            return found[0]
    raise ValueError(f"the policy's argument {key} is {shown(value)}, which save() does not write")
