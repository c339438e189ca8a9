"""What ``--vary NAME=VALUES`` means: the range of a parameter of ``metarl/Parameterized-v0``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

USAGE = (
    "expected NAME=LOW..HIGH, as in gravity=5..15 (also gravity=5..15:log, size=5..8:int), or NAME=A,B,C, as in "
    "length=0.5,1,2"
)
# The word after a colon -> what is added to the range.
_KINDS: dict[str, dict[str, Any]] = {
    "log": {"log": True},
    "int": {"integer": True},
    "scale": {"as": "scale"},
    "absolute": {"as": "absolute"},
}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Return the ``parameters`` of ``metarl/Parameterized-v0`` that some ``--vary`` say.

    >>> parse_parameters(["gravity=5..15", "length=0.5,1,2", "size=5..8:int"])
    {'gravity': [5, 15], 'length': {'choices': [0.5, 1, 2]}, 'size': {'low': 5, 'high': 8, 'integer': True}}

    Raises:
        ValueError: one of them cannot be read, or two are of the same parameter.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, values = _parse(text)
        if name in found:
            raise ValueError(f"--vary names {name!r} twice; give each parameter one range")
        found[name] = values
    return found


def _parse(text: str) -> tuple[str, Any]:
    # Names may have signs of equality, as params['a=b'] has; ranges have none.
    name, separator, written = text.rpartition("=")
    name, written = name.strip(), written.strip()
    if not separator or not name or not written:
        raise ValueError(f"--vary {text!r} says no values; {USAGE}")
    values, *kinds = (part.strip() for part in written.split(":"))
    interval = re.fullmatch(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})", values)
    if interval is not None and "..." not in values:
        return name, _interval(text, _number(interval[1]), _number(interval[2]), kinds)
    if ".." in values or "…" in values or re.search(r"[\[\]{}]", values):
        raise ValueError(f"--vary {text!r} has the range {values!r}, whose ends are no two numbers; {USAGE}")
    if "," not in values:
        raise ValueError(f"--vary {text!r} has the single value {written!r}; {USAGE}")
    return name, {"choices": _choices(text, written)}


def _interval(text: str, low: float, high: float, kinds: Sequence[str]) -> Any:
    added: dict[str, Any] = {}
    for kind in kinds:
        if kind not in _KINDS:
            raise ValueError(f"--vary {text!r} ends in {kind!r}; expected one of {', '.join(_KINDS)}")
        if set(_KINDS[kind]) & set(added):
            raise ValueError(f"--vary {text!r} says twice how the range is meant; give {kind!r} or the other")
        added |= _KINDS[kind]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"--vary {text!r} has an end that is too large for a number; expected finite ones")
    if not low < high:
        raise ValueError(f"--vary {text!r} goes from {low} to {high}; expected the lower end first")
    if "log" in added and low <= 0:
        raise ValueError(
            f"--vary {text!r} begins at {low}; expected ends above 0 for log, which spreads factors evenly"
        )
    if "integer" in added and ("log" in added or "as" in added):
        raise ValueError(
            f"--vary {text!r} is int and {kinds[0] if kinds[0] != 'int' else kinds[1]}; expected one of them"
        )
    if "integer" in added and not (low == int(low) and high == int(high)):
        raise ValueError(f"--vary {text!r} is int, with the ends {low} and {high}; expected whole numbers")
    if "integer" in added:
        low, high = int(low), int(high)
    return {"low": low, "high": high, **added} if added else [low, high]


def _choices(text: str, written: str) -> list[Any]:
    choices = [_choice(part.strip()) for part in written.split(",")]
    if any(choice == "" for choice in choices):
        raise ValueError(f"--vary {text!r} has an empty choice; {USAGE}")
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise ValueError(f"--vary {text!r} has a choice twice; give each once")
    return choices


def _choice(text: str) -> Any:
    if re.fullmatch(_NUMBER, text):
        return _number(text)
    return {"true": True, "false": False}.get(text, text)


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
