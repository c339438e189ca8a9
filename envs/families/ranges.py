"""Ranges of parameters: how a person writes them, and what an entry of a task means."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

RANGE_KEYS = {"low", "high", "as", "integer", "log"}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values that a parameter takes: numbers between two ends, whole numbers, or one of several choices.

    Attributes:
        space: the space of the parameter's entry in a task, which is a number or the index of a choice.
        choices: the choices in the order of their indices; None where the entry is a number.
        scale: True: the number multiplies the environment's own value; False: it replaces it.
        log: True: the logarithm of the number is drawn uniformly; False: the number.
    """

    space: spaces.Box | spaces.Discrete
    choices: tuple[Any, ...] | None = None
    scale: bool = False
    log: bool = False

    def spread(self, entries: Any) -> Any:
        """Return entries that were drawn uniformly from the space as entries of this range."""
        if not self.log:
            return entries
        low, high = float(self.space.low), float(self.space.high)  # type: ignore[union-attr]
        spread = low * (high / low) ** ((entries - low) / (high - low))
        return np.clip(spread, low, high)  # rounding may end outside

    def value(self, entry: Any, own: Any) -> Any:
        """Return the value for the environment: ``entry`` is the task's, ``own`` the environment's own value."""
        if self.choices is not None:
            return copy.deepcopy(self.choices[int(entry)])
        number = int(entry) if isinstance(self.space, spaces.Discrete) else float(entry)
        return own * number if self.scale else number

    def ends(self) -> tuple[Any, Any]:
        """Return the first and the last entry."""
        if isinstance(self.space, spaces.Discrete):
            return self.space.start, self.space.start + self.space.n - 1
        return self.space.low, self.space.high

    def default(self, own: Any) -> Any:
        """Return the entry for the environment's ``own`` value; if that is outside, the middle or the first choice."""
        if self.choices is not None:
            return np.int64(self.choices.index(own) if own in self.choices else 0)
        is_number = _is_number(own)
        if isinstance(self.space, spaces.Discrete):
            fits = is_number and own == int(own) and self.space.contains(np.int64(own))
            return np.int64(own if fits else self.space.start)
        low, high = float(self.space.low), float(self.space.high)
        unchanged = 1.0 if self.scale else own
        inside = (self.scale or is_number) and low <= float(unchanged) <= high
        return np.array(float(unchanged) if inside else (low + high) / 2)


def read_range(name: str, written: Any, scale_by_default: bool) -> Range:
    """Return the range that a person wrote.

    Args:
        name: the parameter's, for errors.
        written: ``[low, high]``; a list of choices, which are more than two or no numbers; Python's
            ``range(low, after_high)``; a dict with ``choices``, a list; or a dict with ``low``, ``high`` and, if
            wanted, ``integer`` or ``log`` (True or False) and ``as`` (``"scale"`` or ``"absolute"``).
        scale_by_default: whether a number multiplies where ``as`` is not written.

    Raises:
        ValueError: ``written`` is none of these.
    """
    wrong = (
        f"parameter {name!r} is {written!r}; expected [low, high], three or more choices, {{low, high}} with "
        "perhaps integer = true, log = true or as = 'scale' or 'absolute', or {choices = [...]}"
    )
    written = plain_range(written)
    if isinstance(written, list) and len(written) == 2 and all(map(_is_number, written)):
        written = {"low": written[0], "high": written[1]}
    elif isinstance(written, list) and len(written) >= 2:
        written = {"choices": written}
    if not isinstance(written, Mapping):
        raise ValueError(wrong)
    if set(written) == {"choices"}:
        choices = written["choices"]
        if not isinstance(choices, list) or len(choices) < 2:
            raise ValueError(f"the choices of parameter {name!r} are {choices!r}; expected a list of at least two")
        return Range(space=spaces.Discrete(len(choices)), choices=tuple(choices))
    kind = written.get("as", "scale" if scale_by_default else "absolute")
    integer, log = written.get("integer", False), written.get("log", False)
    if not {"low", "high"} <= set(written) <= RANGE_KEYS:
        raise ValueError(wrong)
    if kind not in ("scale", "absolute") or not isinstance(integer, bool) or not isinstance(log, bool):
        raise ValueError(wrong)
    low, high = written["low"], written["high"]
    for end in (low, high):
        if not _is_number(end) or not math.isfinite(end):
            raise ValueError(wrong)
    if not low < high:
        raise ValueError(f"parameter {name!r} goes from {low} to {high}; expected the lower end first")
    if not math.isfinite(float(high) - float(low)):
        raise ValueError(f"parameter {name!r} goes from {low} to {high}; expected ends whose difference is a number")
    if log and low <= 0:
        raise ValueError(f"parameter {name!r} goes from {low}, and log = true; logarithms need numbers above 0")
    if not integer:
        return Range(space=spaces.Box(float(low), float(high), (), np.float64), scale=kind == "scale", log=log)
    if low != int(low) or high != int(high) or kind == "scale" or log:
        raise ValueError(f"parameter {name!r} is {written!r}; an integer has whole ends, is absolute and not log")
    return Range(space=spaces.Discrete(int(high - low) + 1, start=int(low)))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain_range(written: Any) -> Any:
    """Return a range as a list or dict that TOML can hold."""
    if isinstance(written, range) and written.step == 1 and len(written) > 1:
        return {"low": written.start, "high": written.stop - 1, "integer": True}
    if isinstance(written, range):
        return {"choices": list(written)}
    if isinstance(written, Mapping):
        return {str(key): plain_range(value) for key, value in written.items()}
    if isinstance(written, list | tuple | np.ndarray):
        return [plain_range(value) for value in written]
    return written.item() if isinstance(written, np.generic) else written


def flat_ranges(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return parameters with the tables that TOML makes of dotted names (``physics.mass``) as such names again."""
    flat: dict[str, Any] = {}
    for name, written in parameters.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        is_range = not isinstance(written, Mapping) or not written or set(written) & {"low", "high", "choices"}
        flat.update({path: written} if is_range else flat_ranges(written, path))
    return flat
