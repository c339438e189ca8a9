"""Which modules a checkpoint names, and whether loading it may import them.

A checkpoint names classes and environments of its user's own by ``module:Name``. To import such a module is to run it,
so a file that somebody else made must not choose which.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from metarl.untrusted import shown, walk

Allowed = bool | str | Iterable[str]
"""Modules that loading may import: a name or several, with all modules inside a package of that name; True for any."""

# metarl's, and those of the packages that it is made of: none of them does anything when it is imported.
_KNOWN = ("metarl", "torch", "stable_baselines3", "gymnasium", "numpy")
_ENTRY_POINTS = ("metarl.envs", "metarl.learners")
_REFERENCE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::|\.)[^\W\d]\w*(?:[.\w/-]*)")


def modules_named(facts: Mapping[str, Any]) -> list[str]:
    """Return the modules that loading a checkpoint would import, in order, each once.

    They are those of the learner, the policy and the family; and those in the family's arguments, at any depth: of
    environments, of wrappers, and of any other text ``module:Name`` or ``module.Name`` that such a module exists for.

    Args:
        facts: of the checkpoint.

    >>> modules_named({"learner": "my.learners:Mine", "settings": {"family": "toys:Sign-v0", "family_kwargs": {}}})
    ['my.learners', 'toys']
    """
    settings = facts["settings"]
    policy = settings.get("policy")
    found = [
        str(facts["learner"]).partition(":")[:2],
        str(policy.get("name") if isinstance(policy, dict) else "").partition(":")[:2],
        str(settings.get("family")).rpartition(":")[:2],
    ]
    named = [module for module, separator in found if separator]
    for key, value in walk(settings.get("family_kwargs")):
        if isinstance(value, str):
            named.extend(_of_argument(key, value))
    return list(dict.fromkeys(named))


def _of_argument(key: str, value: str) -> Iterator[str]:
    module, separator, _ = value.rpartition(":")
    if separator and key in ("env", "wrappers"):
        yield module
    elif len(value) < 1000 and (match := _REFERENCE.fullmatch(value)) is not None and _exists(match[1]):
        yield match[1]


def _exists(module: str) -> bool:
    """Return whether the outermost package of a module can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def refuse_imports(path: Path, facts: Mapping[str, Any], allow: Allowed) -> None:
    """Refuse a checkpoint that names modules which may not be imported.

    Without permission are: modules that the program has imported already; metarl's own and those of torch,
    stable_baselines3, gymnasium and numpy; those that installed packages name in the entry-point groups ``metarl.envs``
    and ``metarl.learners``.

    Args:
        path: of the checkpoint.
        facts: of it.
        allow: further modules; see ``Allowed``.

    Raises:
        ValueError: a module may not be imported; the message names it and what to pass. Or ``allow`` is no such names.
    """
    granted = _granted(allow)
    if granted is None:
        return
    for module in modules_named(facts):
        if not _within(module, granted) and not _needs_no_permission(module):
            raise ValueError(
                f"{str(path)!r} names the module {shown(module, 100)!r}, and to load it would run that module's code; "
                f"if you trust the file, import the module before or pass allow={shown(module, 100)!r}"
            )
    for key, value in walk(facts["settings"].get("family_kwargs")):
        if key == "wrappers" and isinstance(value, str) and not _within(value.rpartition(":")[0], granted):
            _refuse_no_wrapper(path, value)


def _granted(allow: Allowed) -> tuple[str, ...] | None:
    """Return the modules that are allowed; None for all."""
    if isinstance(allow, bool):
        return None if allow else ()
    names = (allow,) if isinstance(allow, str) else tuple(allow) if isinstance(allow, Iterable) else (None,)
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"allow is {shown(allow, 100)}; expected the name of a module, several names, or True for any")
    return tuple(str(name) for name in names)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _needs_no_permission(module: str) -> bool:
    if sys.modules.get(module) is not None or _within(module, _KNOWN):
        return True
    entries = (entry.module for group in _ENTRY_POINTS for entry in importlib.metadata.entry_points(group=group))
    return _within(module, entries)


def _refuse_no_wrapper(path: Path, name: str) -> None:
    """Refuse as a wrapper what would be called with an environment and is none: any function of any module."""
    module, _, attribute = name.rpartition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
        raise ValueError(
            f"{str(path)!r} names the wrapper {shown(name, 100)!r}, which is no gymnasium.Wrapper, and to load it "
            f"would call that; if you trust the file, pass allow={shown(module, 100)!r}"
        )
