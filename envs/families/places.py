"""Values inside an environment by their path, as ``gravity``, ``physics.mass``, ``params["mass"]`` or ``wind/0``."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import numbers
import re
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence
from typing import Any

import gymnasium
import numpy as np

from metarl.envs.families.constructors import layers_of

# Attributes that Gymnasium's environments compute from other attributes when they are made.
DERIVED: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {
    "CartPoleEnv": {
        "total_mass": (("masscart", "masspole"), lambda env: env.masspole + env.masscart),
        "polemass_length": (("masspole", "length"), lambda env: env.masspole * env.length),
    },
}
DEPTH = 3  # how deep values are looked for, to name them in messages
_FIRST = re.compile(r"[A-Za-z_]\w*")
_NEXT = re.compile(
    r"""
    \.(?P<attribute>[A-Za-z_]\w*)
    | \[(?P<numbers>-?\d+(?:\s*,\s*-?\d+)*)\]
    | \[(?P<quote>["'])(?P<key>.*?)(?P=quote)\]
    | /(?P<any>[^/]+)
    """,
    re.VERBOSE,
)
Step = tuple[str, Any]  # how an object is entered: "attribute", "key" or "any" of these that there is; and the name


def parse_path(name: str) -> list[Step] | None:
    """Return the steps of a path, or None where the name is no path."""
    first = _FIRST.match(name)
    if first is None:
        return None
    steps: list[Step] = [("attribute", first.group())]
    position = first.end()
    while position < len(name):
        found = _NEXT.match(name, position)
        if found is None:
            return None
        kind = next(group for group in ("attribute", "numbers", "key", "any") if found[group] is not None)
        if kind == "numbers":  # the entry of an array in several dimensions is one of its rows' entries
            steps += [("key", int(number)) for number in found["numbers"].split(",")]
        else:
            # A dot before a name is also how people write the entry of a dict in TOML.
            steps.append(("key" if kind == "key" else "any", found[kind]))
        position = found.end()
    return steps


class Place:
    """A value inside an environment, or inside one of its wrappers where the environment has no such attribute.

    Objects, dicts, lists and arrays on the way are changed; tuples and frozen dataclasses are replaced by changed
    copies.
    What Gymnasium's own environments derive from an attribute (``DERIVED``) is computed again.

    Args:
        env: the environment.
        name: for messages.
        steps: the path.

    Attributes:
        own: the environment's own value.
        whole: whether it can only be a whole number.

    Raises:
        ValueError: there is nothing at this path, or it cannot be set.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, steps: list[Step]) -> None:
        self.name = name
        self._steps = steps
        *around, found = self.containers(env)
        self.own = found.item() if isinstance(found, np.generic) else copy.deepcopy(found)
        # numpy would cut the fraction of a number that is put into an array of whole numbers.
        self.whole = bool(around) and isinstance(around[-1], np.ndarray) and around[-1].dtype.kind in "iu"
        try:
            self.set(env, found)
        except (AttributeError, TypeError, KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{called(env)} does not let {name!r} be set ({error})") from error

    @property
    def head(self) -> str:
        """The attribute in which the path begins."""
        return str(self._steps[0][1])

    def get(self, env: gymnasium.Env[Any, Any]) -> Any:
        """Return the value that the environment has now."""
        return self.containers(env)[-1]

    def containers(self, env: gymnasium.Env[Any, Any]) -> list[Any]:
        """Return the objects on the way, from the value of the first attribute to the value itself.

        Raises:
            ValueError: the path leads nowhere; the message says what there is.
        """
        found: Any = _layer(env, self.head)
        walked: list[Any] = []
        for number, step in enumerate(self._steps):
            try:
                found = _enter(found, step)
            except (AttributeError, KeyError, IndexError, TypeError) as error:
                raise ValueError(self._nothing(env, found, number)) from error
            walked.append(found)
        return walked

    def _nothing(self, env: gymnasium.Env[Any, Any], found: Any, number: int) -> str:
        if number == 0:
            return f"{called(env)} has no attribute {self.head!r}, with which parameter {self.name!r} begins"
        inside = [f"{path} ({value!r})" for path, value in values_in(found, "", 1)][:8]
        there = f"; in it there are {', '.join(inside)}" if inside else ""
        return (
            f"parameter {self.name!r} of {called(env)} leads nowhere: {type(found).__name__} has no "
            f"{self._steps[number][1]!r}{there}"
        )

    def set(self, env: gymnasium.Env[Any, Any], value: Any) -> None:
        """Give the environment a value."""
        _put(_layer(env, self.head), self._steps, value)
        derived = derived_attributes(env)
        for name, (_, compute) in derived.items():
            setattr(env.unwrapped, name, compute(env.unwrapped))


def _layer(env: gymnasium.Env[Any, Any], name: str) -> Any:
    """Return the unwrapped environment, or the innermost of its wrappers that has an attribute which it has not."""
    return next((layer for layer in reversed(layers_of(env)) if hasattr(layer, name)), env.unwrapped)


def _enter(container: Any, step: Step) -> Any:
    kind, name = step
    if kind == "attribute":
        return getattr(container, name)
    if kind == "key" or isinstance(container, Mapping):
        return container[_key(container, name)]
    if hasattr(container, "__getitem__") and str(name).lstrip("-").isdecimal():
        return container[int(name)]
    return getattr(container, name)


def _key(container: Any, name: Any) -> Any:
    """Return the key as it is in a dict, where numbers may be keys too."""
    if isinstance(container, Mapping) and name not in container and str(name).lstrip("-").isdecimal():
        return int(name)
    return name


def _put(container: Any, steps: list[Step], value: Any) -> Any:
    """Set the value at the end of the steps, and return the container, or a changed copy if it cannot be changed."""
    step, *rest = steps
    inside = _put(_enter(container, step), rest, value) if rest else value
    kind, name = step
    if rest and inside is _enter(container, step):
        return container
    if kind == "attribute" or (kind == "any" and not _has_items(container, name)):
        if not isinstance(container, tuple) and is_replaced(container):
            return dataclasses.replace(container, **{name: inside})
        if isinstance(container, tuple) and name in getattr(container, "_fields", ()):
            return container._replace(**{name: inside})  # type: ignore[attr-defined]
        setattr(container, name, inside)
        return container
    key = _key(container, name)
    if isinstance(container, tuple):
        changed = list(container)
        changed[int(key)] = inside
        return type(container)(*changed) if hasattr(container, "_fields") else tuple(changed)
    if isinstance(key, str) and not isinstance(container, Mapping):
        key = int(key)
    container[key] = inside
    return container


def is_replaced(container: Any) -> bool:
    """Whether an object cannot be changed, so that a changed copy takes its place."""
    dataclass: Any = getattr(type(container), "__dataclass_params__", None)
    return isinstance(container, tuple) or (dataclass is not None and bool(dataclass.frozen))


def _has_items(container: Any, name: Any) -> bool:
    return isinstance(container, Mapping) or (hasattr(container, "__getitem__") and str(name).lstrip("-").isdecimal())


def values_in(container: Any, prefix: str, depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """Yield path and value of the single numbers, truth values and texts inside an object, as a person writes them."""
    if depth == 0:
        return
    if isinstance(container, MutableMapping):
        items = [(f"{prefix}[{key!r}]", value) for key, value in container.items() if isinstance(key, str | int)]
    elif isinstance(container, MutableSequence | tuple) or (isinstance(container, np.ndarray) and container.ndim == 1):
        items = [(f"{prefix}[{index}]", value) for index, value in enumerate(container)][:20]
    elif isinstance(container, type | gymnasium.Space) or inspect.ismodule(container) or callable(container):
        return
    else:
        names = [name for name in getattr(container, "__dict__", {}) if not name.startswith("_")]
        items = [(f"{prefix}.{name}" if prefix else name, getattr(container, name, None)) for name in names]
    for path, value in items:
        if isinstance(value, numbers.Real | str | np.generic):
            yield path, value
        else:
            yield from values_in(value, path, depth - 1)


def called(env: gymnasium.Env[Any, Any]) -> str:
    """Return the name of an environment for messages."""
    return str(env.spec.id) if env.spec is not None else type(env.unwrapped).__name__


def derived_attributes(env: gymnasium.Env[Any, Any]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Return what Gymnasium's class of an environment derives: name to the attributes it needs, and the function."""
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for base in type(env.unwrapped).__mro__:
        found.update(DERIVED.get(base.__name__, {}))
    return found


def attribute_names(env: gymnasium.Env[Any, Any]) -> list[str]:
    """Return the public attributes of the unwrapped environment that are plain values."""
    names = [name for name in dir(env.unwrapped) if not name.startswith("_") and name not in ("render_mode", "spec")]
    plain = (numbers.Real, str, np.generic)
    return [name for name in names if isinstance(inspect.getattr_static(env.unwrapped, name), plain)]
