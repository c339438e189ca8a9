"""The settings that a sweep searches, as its command line gives them: ``outer.learning_rate=1e-4..1e-2:log``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metarl.experiments.configuration import parse_override
from metarl.experiments.start.vary import parse_parameters

USAGE = (
    "expected KEY=LOW..HIGH, as in inner.step_size=0.01..0.5 (also outer.learning_rate=1e-4..1e-2:log, "
    "inner.steps=1..5:int), or KEY=A,B,C, as in policy.activation=tanh,relu"
)
_CALL = re.compile(r"\s*(log|int|uniform|choice)\s*\((.*)\)\s*")
_COMMA = re.compile(r",(?![^\[\]]*\])")  # commas within brackets belong to a list


@dataclass(frozen=True)
class Searched:
    """What one setting is chosen from.

    Attributes:
        low: the lowest number of a range; None for choices.
        high: the highest.
        log: whether factors are spread evenly, in place of differences.
        integer: whether the numbers are whole.
        choices: one of these; empty for a range.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values of which each has to be a valid setting."""
        return self.choices or (self.low, self.high)

    def as_plain(self) -> dict[str, Any]:
        """Return what JSON can hold, by which two sweeps are known to search the same."""
        found: dict[str, Any] = json.loads(json.dumps(self.__dict__))
        return found


def split(texts: Sequence[str]) -> tuple[list[tuple[str, Any]], dict[str, Searched]]:
    """Return the settings that are given, and those that are searched.

    Args:
        texts: ``KEY=VALUE``, ``KEY=LOW..HIGH`` with ``:log`` or ``:int``, ``KEY=A,B,C``; also ``KEY=log(LOW,HIGH)``,
            ``int(LOW,HIGH)``, ``uniform(LOW,HIGH)``, ``choice(A,B,C)``.

    Raises:
        ValueError: one of them cannot be read, or a setting is searched twice.

    >>> split(["inner.steps=1..5:int", "seed=2"])
    ([('seed', 2)], {'inner.steps': Searched(low=1, high=5, log=False, integer=True, choices=())})
    """
    given: list[tuple[str, Any]] = []
    searched: dict[str, Searched] = {}
    for text in texts:
        key, value = parse_override(text)
        found = _searched(text, key, value)
        if found is None:
            given.append((key, value))
        elif key in searched:
            raise ValueError(f"{key} is searched twice; give each setting one range")
        else:
            searched[key] = found
    return given, searched


def _searched(text: str, key: str, value: Any) -> Searched | None:
    if not isinstance(value, str):
        return None
    call = _CALL.fullmatch(value)
    kind, inside = (call[1], call[2]) if call else ("choice", value)
    parts = [part.strip() for part in _COMMA.split(inside)]
    if call and kind != "choice":
        if len(parts) != 2:
            raise ValueError(f"{text!r} has {len(parts)} values; expected two, as in log(1e-4,1e-2)")
        value = f"{parts[0]}..{parts[1]}" + {"log": ":log", "int": ":int", "uniform": ""}[kind]
    elif call or len(parts) > 1:
        return _choices(text, parts)
    if ".." not in value:
        return None
    try:
        (found,) = parse_parameters([f"{key}={value}"]).values()
    except ValueError as error:
        raise ValueError(f"{str(error).removeprefix('--vary ').partition('; expected NAME')[0]}; {USAGE}") from error
    if isinstance(found, list):
        found = {"low": found[0], "high": found[1]}
    if "as" in found:
        raise ValueError(f"{text!r} ends in {found['as']!r}, which is for --vary; {USAGE}")
    return Searched(found["low"], found["high"], "log" in found, "integer" in found)


def _choices(text: str, parts: Sequence[str]) -> Searched:
    choices = tuple(parse_override(f"x={part}")[1] for part in parts)
    if "" in choices:
        raise ValueError(f"{text!r} has an empty choice; {USAGE}")
    if len(choices) < 2 or len({json.dumps(choice) for choice in choices}) < len(choices):
        raise ValueError(f"{text!r} has a choice twice or only one; expected different ones")
    return Searched(choices=choices)
