"""Which modules a checkpoint names, and whether loading it may import them.

A checkpoint names classes and environments of its user's own by ``module:Name``. To import such a module is to run it,
so a file that somebody else made must not choose which.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.envs.references import may_be_called
from metarl.untrusted import shown, walk

Allowed = bool | str | Iterable[str]
"""Modules that loading may import: a name or several, with all modules inside a package of that name; True for any."""

# metarl's, and those of the packages that it is made of: none of them does anything when it is imported.
_KNOWN = ("metarl", "torch", "stable_baselines3", "gymnasium", "numpy")
# Arguments of metarl/Parameterized-v0 whose values are called.
_CALLED = ("env", "wrappers", "set", "derive")
_OF_POLICY = ("name", "features_extractor_class")
_ENTRY_POINTS = ("metarl.envs", "metarl.learners")
_REFERENCE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::|\.)[^\W\d]\w*(?:[.\w/-]*)")


def modules_named(facts: Mapping[str, Any]) -> list[str]:
    """Return the modules that loading a checkpoint would import, in order, each once.

    They are those of the learner, the policy and the family; and those in the family's arguments and the step
    sizes, at any depth: of environments, of wrappers, and of any other text ``module:Name`` or ``module.Name``
    that such a module exists for.

    Args:
        facts: of the checkpoint.

    >>> modules_named({"learner": "my.learners:Mine", "settings": {"family": "toys:Sign-v0", "family_kwargs": {}}})
    ['my.learners', 'toys']
    """
    settings = facts["settings"]
    policy = settings.get("policy")
    found = [
        str(facts["learner"]).partition(":")[:2],
        *(str(policy.get(key) if isinstance(policy, dict) else "").partition(":")[:2] for key in _OF_POLICY),
        str(settings.get("family")).rpartition(":")[:2],
    ]
    named = [module for module, separator in found if separator]
    arguments = policy.get("features_extractor_kwargs") if isinstance(policy, dict) else None
    for part in (arguments, *(settings.get(name) for name in ("family_kwargs", "inner", "outer"))):
        for key, value in walk(part):
            if isinstance(value, str):
                named.extend(_of_argument(key, value))
    return list(dict.fromkeys(named))


def _of_argument(key: str, value: str) -> Iterator[str]:
    module, separator, _ = value.rpartition(":")
    if separator and key in _CALLED:
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
    settings = facts["settings"]
    steps = [(key, text) for part in ("inner", "outer") for key, text in walk(settings.get(part))]
    called = [("family", settings.get("family")), *_texts_called(settings.get("family_kwargs")), *steps]
    for what, text in called:
        if isinstance(text, str) and ":" in text and not _within(text.rpartition(":")[0], granted):
            _refuse_other_functions(path, what, text)


def _texts_called(arguments: Any) -> Iterator[tuple[str, Any]]:
    """Yield the texts in a family's arguments that stand for what is called: environments, wrappers and functions."""
    if not isinstance(arguments, Mapping):
        return
    for key in _CALLED:
        given = arguments.get(key)
        for value in given.values() if isinstance(given, Mapping) else given if isinstance(given, list) else [given]:
            yield key, value


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


def _refuse_other_functions(path: Path, what: str, text: str) -> None:
    """Refuse what would be called and may be any function of a module that the program has imported."""
    try:
        harmless = may_be_called(text)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be loaded: {what}: {error}") from error
    if not harmless:
        module = text.rpartition(":")[0]
        raise ValueError(
            f"{str(path)!r} names {shown(text, 100)!r} ({what}), which is no environment's class and no wrapper, and "
            f"to load it would call that; if you trust the file, pass allow={shown(module, 100)!r}"
        )
