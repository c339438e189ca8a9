"""Policy arguments as JSON, for checkpoints: torch's own classes by name; other objects have to be given again."""

from __future__ import annotations

from typing import Any

import torch


def encode(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return policy arguments as JSON; what it cannot keep is marked as missing, with its name."""
    return {key: _encode(value) for key, value in policy_kwargs.items()}


def decode(kept: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return policy arguments from JSON; those in ``given`` take the place of what was kept.

    Raises:
        ValueError: an argument is missing and not given; the message names it.
    """
    return {key: _decode(key, value) for key, value in kept.items() if key not in given} | given


def _encode(value: Any) -> Any:
    if isinstance(value, type):
        own = any(getattr(module, value.__name__, None) is value for module in (torch.nn, torch.optim))
        return {"torch": value.__name__} if own else {"missing": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, dict):
        return {"dict": {str(key): _encode(entry) for key, entry in value.items()}}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"missing": repr(value)}


def _decode(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(key, entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "missing" in value:
        raise ValueError(
            f"the checkpoint cannot keep {key} = {value['missing']}; give it again: "
            f"load(..., policy_kwargs={{{key!r}: ...}})"
        )
    if "torch" in value:
        return getattr(torch.nn, value["torch"], None) or getattr(torch.optim, value["torch"])
    return {name: _decode(key, entry) for name, entry in value["dict"].items()}
