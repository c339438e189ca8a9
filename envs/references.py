"""Names of families: texts that stand for classes and functions, so that a configuration or a checkpoint can hold them.

``"module:Name"`` stands for what can be imported. What cannot, such as a lambda or a class made inside a function,
gets a
text that holds in this program only.
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

# Packages that the project's extras install.
_EXTRAS = {"highway_env": "driving", "minatar": "games", "minigrid": "games"}

# What cannot be imported, by its text; and all texts that the program has asked for.
_HERE: dict[str, Any] = {}
_GIVEN: set[str] = set()


def reference_to(thing: Callable[..., Any]) -> str:
    """Return the text that stands for a class or function: ``module:Name`` where it can be imported.

    The same object has the same text. In another program, ``resolve`` understands the text of an object that cannot be
    imported after this function was called there with one of the same name, in the same order.
    """
    module = getattr(thing, "__module__", None) or type(thing).__module__
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    text = f"{module}:{name}"
    if _find(sys.modules.get(module), name) is thing:
        _GIVEN.add(text)
        return text
    for number in itertools.count(1):
        numbered = text if number == 1 else f"{text}-{number}"
        if _HERE.setdefault(numbered, thing) is thing:
            return numbered
    raise AssertionError  # count never ends


def resolve(text: str) -> Any:
    """Return the object that a text stands for; its module is imported.

    Raises:
        ValueError: there is no such object, or its module cannot be imported.
    """
    if text in _HERE:
        return _HERE[text]
    module, _, name = text.rpartition(":")
    if module == "__main__" or "<" in name:
        found = _find(sys.modules.get(module), name)
        if found is None:
            raise ValueError(
                f"{text!r} was defined in the program that used it and is not known in this one; define it here in the "
                "same way first, or put it into a module of its own and name it 'module:Name'"
            )
        return found
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a module may raise anything when it is imported
        raise ValueError(f"the module of {text!r} cannot be imported ({type(error).__name__}: {error})") from error
    found = _find(loaded, name)
    if found is None:
        raise ValueError(f"the module {module!r} was imported but has no {name!r}")
    return found


def how_to_install(module: str) -> str:
    """Return what to do where a module cannot be imported: the command, where an extra has its package."""
    extra = _EXTRAS.get(module.partition(".")[0])
    return "install its package" if extra is None else f"pip install 'metarl-suite[{extra}]'"


def may_be_called(text: str) -> bool:
    """Whether a text in a file stands for what is harmless to call; else a file could name ``os:abort``.

    Harmless are registered environments, environments' classes, and what the program itself has named with
    ``reference_to``.
    """
    if text in _HERE or text in _GIVEN or text.rpartition(":")[2] in gymnasium.registry:
        return True
    found = resolve(text)
    return isinstance(found, type) and issubclass(found, gymnasium.Env | gymnasium.vector.VectorEnv)


def unregistered(text: str) -> EnvSpec:
    """Return a registration, outside Gymnasium's registry, of the class or function that a text stands for.

    Raises:
        ValueError: there is none, or it makes no environments.
    """
    made_by = resolve(text)
    if not callable(made_by):
        raise ValueError(f"{text!r} is {made_by!r}; expected an environment's class or a function that makes one")
    if isinstance(made_by, type) and not issubclass(made_by, gymnasium.Env):
        raise ValueError(f"{text!r} is the class {made_by.__name__}, which is no gymnasium.Env; subclass gymnasium.Env")
    return EnvSpec(unregistered_id(text), entry_point=made_by)


def unregistered_id(text: str) -> str:
    """Return a text as an id that Gymnasium accepts."""
    return re.sub(r"[^\w:.-]", "_", text)


def stays_here(text: str) -> bool:
    """Whether a text stands for an object that other processes cannot import."""
    return text in _HERE or text.startswith("__main__:")


def _find(module: Any, qualified_name: str) -> Any:
    """Return an object inside a module, as ``Outer.Inner``, or None."""
    found = module
    for part in qualified_name.split("."):
        found = getattr(found, part, None)
    return found


@dataclass(frozen=True)
class Family:
    """A family with the arguments of its constructor, for everything that takes the id of a family.

    Attributes:
        id: of the family; ``module:Id``, ``module:Class`` or ``module:function`` where its module is imported first.
        kwargs: arguments of its constructor, which a TOML file can hold as ``[family_kwargs]``.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def as_family(family: Any, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the id of a family and the arguments of its constructor.

    Args:
        family: its id, a ``Family``, or a class or function that makes its environments.
        kwargs: further arguments, which replace those of a ``Family``.

    Raises:
        ValueError: ``family`` is none of these.
    """
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"family_kwargs is {kwargs!r}; expected a dict, as in {{'max_episode_steps': 200}}")
    if isinstance(family, Family):
        return family.id, {**family.kwargs, **kwargs}
    if isinstance(family, str) and family:
        return family, dict(kwargs)
    if callable(family):
        return reference_to(family), dict(kwargs)
    if isinstance(family, gymnasium.Env):
        name = type(family.unwrapped).__name__
        raise ValueError(
            f"the family is an environment that is already made ({name}), but many of its kind are needed; give its "
            f"class, {name}, or a function that makes one, as in lambda: {name}(...)"
        )
    raise ValueError(
        f"the family is {family!r}; expected its id, as in 'metarl/Navigation2D-v0', an environment's class, or a "
        "function that makes one"
    )
