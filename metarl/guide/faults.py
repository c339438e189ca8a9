"""Sentences for settings that are wrong: what was given, what is expected, and the nearest key that there is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from metarl.guide.elsewhere import names_here

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_NEAR, _VERY_NEAR = 0.6, 0.8  # likeness (difflib's ratio) from which a key of the section, or of any, is meant

# What a setting expects where pydantic's own words are of no help, by the last part of its name.
_EXPECTED = {
    "family": "the id of a family, as in 'metarl/Navigation2D-v0', or 'module:Name' for one of your own",
    "learner": "the name of a meta-learner, as in 'maml', or 'module:Class' for one of your own",
    "device": "the name of a device, as in 'auto', 'cpu', 'cuda' or 'cuda:1'",
    "name": "'MlpPolicy', 'CnnPolicy', 'SmallCnnPolicy', 'MultiInputPolicy', 'GruPolicy', or 'module:Class' for a "
    "policy of your own",
    "hidden_sizes": "whole numbers of at least 1, as in [64, 64]",
    "adapts": "'all', 'head', 'biases', 'norms', 'lora', 'context', or names and patterns, as in "
    "['action_net.*', 'log_std']",
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
    """Return the end of a sentence on an unknown key: those that are meant, or those of its section.

    >>> nearest("learning.task", ["learning", "learning.tasks", "evaluation.tasks"])
    "the nearest is 'learning.tasks'"
    >>> nearest("learning.batch_size", ["learning", "learning.tasks", "learning.episodes"])
    "the nearest are 'learning.tasks' and 'learning.episodes'"
    >>> nearest("learning.horizon", ["learning", "learning.tasks", "learning.gamma", "outer.path"])
    'the settings of [learning] are tasks, gamma'
    """
    section = key.rpartition(".")[0]
    found = meant(key, keys)
    if found:
        return f"the nearest {'is' if len(found) == 1 else 'are'} {' and '.join(map(repr, found))}"
    beside = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == section]
    if not beside:
        return f"[{section}] has no settings here" if section in keys else f"the sections are {', '.join(_tops(keys))}"
    return f"the settings of [{section}] are {', '.join(beside)}" if section else f"there are {', '.join(beside)}"


def meant(key: str, keys: Sequence[str]) -> list[str]:
    """Return the settings that an unknown key may mean: by a name of elsewhere, or the one most alike; or none.

    Args:
        key: dotted, or the last part of a setting's name.
        keys: the dotted names of all settings.
    """
    section, _, last = key.rpartition(".")
    own = {name.rpartition(".")[2]: name for name in keys if name.rpartition(".")[0] == section}
    every = {name.rpartition(".")[2]: name for name in reversed(keys)}

    def like(names: dict[str, str], likeness: float) -> list[str]:
        return [names[one] for one in difflib.get_close_matches(last, names, n=1, cutoff=likeness)]

    return like(own, _VERY_NEAR) or names_here(last, keys, section) or like(every, _VERY_NEAR) or like(own, _NEAR)


def _tops(keys: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in keys))
