"""Sentences for settings that are wrong: what was given, what is expected, and the nearest key that there is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_NEAR, _VERY_NEAR = 0.6, 0.8  # likeness (difflib's ratio) from which a key of the section, or of any, is meant

# What a setting expects where pydantic's own words are of no help, by the last part of its name.
_EXPECTED = {
    "family": "the id of a family, as in 'metarl/Navigation2D-v0', or 'module:Name' for one of your own",
    "learner": "the name of a meta-learner, as in 'maml', or 'module:Class' for one of your own",
    "device": "the name of a device, as in 'auto', 'cpu', 'cuda' or 'cuda:1'",
    "name": "'MlpPolicy', 'CnnPolicy', 'MultiInputPolicy', 'GruPolicy', or 'module:Class' for a policy of your own",
    "hidden_sizes": "whole numbers of at least 1, as in [64, 64]",
    "seed": "a whole number of at least 0 and below 2**32, as in 1",
}


def sentences(problems: Sequence[Any], describe: Callable[[str, Any], str]) -> list[str]:
    """Return a sentence for each wrong setting; for a setting with several types it says what each expects.

    Args:
        problems: pydantic's ``ValidationError.errors()``.
        describe: dotted name of a setting, and the problem -> its sentence.
    """
    found: dict[str, str] = {}
    for problem in problems:
        # Pydantic adds the type that was tried, as in ("learning", "workers", "literal['auto']").
        key = ".".join(str(part) for part in problem["loc"] if not re.search(r"[\[-]", str(part)))
        text = describe(key, problem)
        if key in found and text != found[key]:
            text = f"{found[key]}, or {problem['msg'].replace('Input should ', '', 1)}"
        found[key] = text
    return list(found.values())


def sentence(key: str, problem: Any, keys: Sequence[str]) -> str:
    """Return the sentence for one of pydantic's problems with the setting ``key``."""
    given = shown(problem["input"])
    if is_unknown(problem):
        return f"unknown setting {key!r}; {nearest(key, keys)}"
    if problem["type"] in ("dataclass_type", "dict_type"):
        return f"{key or 'the configuration'} is {given}; expected a table of settings (in Python a dict)"
    name = next((part for part in reversed(key.split(".")) if part in _EXPECTED), None)
    if name is not None and not key.startswith("outer."):
        return f"{key} is {given}; expected {_EXPECTED[name]}"
    message = problem["msg"].replace("Input should", "it should", 1)
    return f"{key} is {given}; {message}" if key else message


def is_unknown(problem: Any) -> bool:
    """Whether a problem of pydantic's is a key that does not exist."""
    return problem["type"] in _UNKNOWN


def shown(value: Any) -> str:
    """Return a value as a sentence names it: a class by its name, and no more than a line of anything."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def nearest(key: str, keys: Sequence[str]) -> str:
    """Return the end of a sentence on an unknown key: the nearest one, or those of its section where none is near.

    >>> nearest("learning.task", ["learning", "learning.tasks", "evaluation.tasks"])
    "the nearest is 'learning.tasks'"
    >>> nearest("learning.batch", ["learning", "learning.tasks", "learning.gamma", "outer.path"])
    'the settings of [learning] are tasks, gamma'
    """
    section, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == section]
    own = {name: ".".join(filter(None, (section, name))) for name in beside}
    every = {name.rpartition(".")[2]: name for name in reversed(keys)}
    for names, likeness in ((own, _VERY_NEAR), (every, _VERY_NEAR), (own, _NEAR)):
        match = difflib.get_close_matches(last, names, n=1, cutoff=likeness)
        if match:
            return f"the nearest is {names[match[0]]!r}"
    if not beside:
        return f"[{section}] has no settings here" if section in keys else f"the sections are {', '.join(_tops(keys))}"
    return f"the settings of [{section}] are {', '.join(beside)}" if section else f"there are {', '.join(beside)}"


def _tops(keys: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in keys))
