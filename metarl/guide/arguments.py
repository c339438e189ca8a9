"""The sentence for an argument of a learner's class that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.guide import faults
from metarl.guide.elsewhere import BATCH

ARGUMENTS = (
    *("policy", "family", "family_kwargs", "learning", "inner", "outer", "augment", "evaluation"),
    *("policy_kwargs", "seed", "device", "verbose", "tensorboard_log"),
)


def refuse_argument(learner: str, name: str, value: Any, keys: Mapping[str, Sequence[str]]) -> None:
    """Refuse an argument of a learner's class that it does not have, and say what to write in its place.

    Args:
        learner: the name of its class.
        name: of the argument.
        value: of the argument.
        keys: the settings of the learner by dotted name, for each ``outer.update`` that it can have, the default first.

    Raises:
        TypeError: always.
    """
    usual = next(iter(keys.values()))
    meant = faults.meant(name, usual)
    if meant == list(BATCH):  # what one number says elsewhere are two here
        written = ["learning={'tasks': ..., 'episodes': ...}"]
    else:
        written = [_in_python(key, value) for key in meant]
    for update, names in keys.items():
        meant = [key for key in faults.meant(name, names) if key not in usual]
        written += [_in_python(key, value, {"update": repr(update)}) for key in meant]
    near = difflib.get_close_matches(name, ARGUMENTS, n=1, cutoff=0.75)
    if written:
        advice = f"write {' or '.join(dict.fromkeys(written))}"
    elif near:
        advice = f"the nearest is {near[0]!r}"
    else:
        advice = f"help({learner}) lists its arguments"
    raise TypeError(f"{learner} has no argument {name!r}; {advice}")


def _in_python(key: str, value: Any, beside: Mapping[str, str] | None = None) -> str:
    """Return how a setting is given to a learner's class, with the settings ``beside`` that it needs."""
    section, _, name = key.rpartition(".")
    if not section:
        return f"{name}={faults.shown(value)}"
    entries = {**(beside or {}), name: faults.shown(value)}
    argument = "policy_kwargs" if section == "policy" else section
    return f"{argument}={{{', '.join(f'{entry!r}: {text}' for entry, text in entries.items())}}}"
