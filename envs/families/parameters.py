"""Where in an environment a parameter is found.

A parameter is given by a method or function that sets it, or it is a field of a MuJoCo model, an argument of the
constructor, a key of the dictionary ``config``, an attribute, or what a path such as ``physics.mass`` leads to. The
places
are searched in this order.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from metarl.envs.families import model_fields
from metarl.envs.families.constructors import configuration_of, constructor_arguments, layers_of
from metarl.envs.families.places import (
    Place,
    attribute_names,
    called,
    derived_attributes,
    parse_path,
    values_in,
)
from metarl.envs.references import resolve


class Argument:
    """An argument of the constructor; for another value another environment is made."""

    def __init__(self, name: str, own: Any) -> None:
        self.name = name
        self.own = own


class Setter:
    """A parameter that a method of the environment, or a function, sets.

    Args:
        env: the environment.
        name: the parameter's.
        how: the name of a method, which is called with the value; or ``module:function``, called with the unwrapped
            environment and the value.

    Attributes:
        own: the value of the attribute, or at the path, of the parameter's name; None where there is none.

    Raises:
        ValueError: there is no such method or function.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str, how: Any) -> None:
        self.name = name
        self._how = how
        self._function(env)
        steps = parse_path(name)
        try:
            self.own = Place(env, name, steps).own if steps is not None else None
        except ValueError:
            self.own = None

    def _function(self, env: gymnasium.Env[Any, Any]) -> Any:
        return hook(env, self._how, f"set of parameter {self.name!r}")

    def set(self, env: gymnasium.Env[Any, Any], value: Any) -> None:
        """Give the environment a value."""
        call_hook(env, self._how, f"set of parameter {self.name!r}", value)


_OF_THE_ENGINE = ("close", "render", "reset", "step")


def hook(env: gymnasium.Env[Any, Any], how: Any, what: str) -> Any:
    """Return the method of an environment, or of a wrapper, or the function ``module:function`` that a person named.

    Raises:
        ValueError: there is none.
    """
    if how in _OF_THE_ENGINE:
        raise ValueError(
            f"{what} is {how!r}, which every environment has for the course of its episodes; expected a method of "
            f"{called(env)} that sets or computes numbers"
        )
    if isinstance(how, str) and ":" in how:
        found = resolve(how)
    elif isinstance(how, str) and env.has_wrapper_attr(how):
        found = env.get_wrapper_attr(how)
    else:
        methods = [name for name in dir(env.unwrapped) if not name.startswith("_")]
        methods = [name for name in methods if inspect.ismethod(getattr(env.unwrapped, name, None))]
        near = f"; {nearest(how, methods)}" if isinstance(how, str) and methods else ""
        raise ValueError(
            f"{what} is {how!r}; expected the name of a method of {called(env)}, or a function as "
            f"'module:function'{near}"
        )
    if not callable(found):
        raise ValueError(f"{what} is {how!r}, which is no method but {found!r}; name a method or function")
    return found


def call_hook(env: gymnasium.Env[Any, Any], how: str, what: str, *arguments: Any) -> None:
    """Call a hook: a method with the arguments, a function with the unwrapped environment before them."""
    found = hook(env, how, what)
    found(*((env.unwrapped, *arguments) if ":" in how else arguments))


Target = Place | Argument | Setter | model_fields.ModelField


def find_target(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str, arguments: Mapping[str, Any]) -> Target | None:
    """Return where in an environment a parameter is, or None where only a call of the constructor can tell.

    Args:
        env: the environment.
        spec: its registration.
        name: the parameter's.
        arguments: those with which the environment was made.

    Raises:
        ValueError: there is no such parameter, and the message names the nearest; or it is computed from others.
    """
    model, keys = model_fields.model_of(env), configuration_of(env)
    wrong_field: ValueError | None = None
    if model is not None and ("/" in name or name in model_fields.field_names(model)):
        try:
            return model_fields.ModelField(model, name)
        except ValueError as error:
            wrong_field = error
    known, open_ended = constructor_arguments(spec)
    if name in known:
        own = arguments.get(name, spec.kwargs.get(name, known[name]))
        return Argument(name, None if own is inspect.Parameter.empty else own)
    derived = derived_attributes(env)
    if name in derived:
        sources = " and ".join(repr(source) for source in derived[name][0])
        raise ValueError(f"parameter {name!r} of {called(env)} is computed from {sources}; vary those")
    if name in keys:
        return Place(env, name, [("attribute", "config"), ("key", name)])
    steps = parse_path(name)
    if steps is not None and any(hasattr(layer, steps[0][1]) for layer in layers_of(env)):
        return Place(env, name, steps)
    if wrong_field is not None:
        raise wrong_field
    if "/" in name:
        raise ValueError(
            f"parameter {name!r} names a field of a MuJoCo model, which {called(env)} does not have, and it is no "
            f"key of its config and no attribute either; {_nearest(env, spec, name)}"
        )
    if open_ended:
        return None
    raise unknown(env, spec, name)


def refuse_no_number(env: gymnasium.Env[Any, Any], name: str, own: Any) -> None:
    """Refuse a parameter whose own value is neither a number nor a text, so that no number can stand in its place.

    Raises:
        ValueError: it is; the message names numbers inside it.
    """
    if own is None or isinstance(own, numbers.Real | str | np.ndarray):
        return
    if inspect.ismethod(own):
        base = name.removeprefix("set_")
        raise ValueError(
            f"parameter {name!r} of {called(env)} is a method; name the parameter as you like and let the method set "
            f"it: {base} with its range, and set = {{{base} = {name!r}}}"
        )
    inside = [path for path, _ in values_in(own, name)][:5]
    there = f"name a number in it, as {', '.join(inside)}" if inside else "give choices = [...], or name a number in it"
    raise ValueError(f"parameter {name!r} of {called(env)} is no number but a {type(own).__name__}; {there}")


def unknown(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> ValueError:
    """Return the error for a parameter that does not exist; it names the nearest that do."""
    setter = f"set_{name}"
    if name.isidentifier() and inspect.ismethod(getattr(env.unwrapped, setter, None)):
        return ValueError(
            f"{called(env)} has no parameter {name!r}; {_nearest(env, spec, name)} (or let its method {setter!r} set "
            f"it: set = {{{name} = {setter!r}}}, on the command line family_kwargs.set.{name}={setter})"
        )
    return ValueError(f"{called(env)} has no parameter {name!r}; {_nearest(env, spec, name)}")


def ignored(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> ValueError:
    """Return the error for an argument that a constructor accepts and ignores; it names the nearest parameters."""
    return ValueError(
        f"{called(env)} accepts the argument {name!r} and ignores it; check its spelling, {_nearest(env, spec, name)}"
    )


def parameter_names(env: gymnasium.Env[Any, Any], spec: EnvSpec) -> list[str]:
    """Return what can be a parameter of an environment, nested values as their paths."""
    model = model_fields.model_of(env)
    fields = model_fields.field_names(model) if model is not None else []
    nested = [path for path, _ in values_in(env.unwrapped, "") if not path.startswith(("spec.", "render_mode"))]
    names = [*constructor_arguments(spec)[0], *configuration_of(env), *attribute_names(env), *fields, *nested]
    return list(dict.fromkeys(str(name) for name in names))


def _nearest(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> str:
    names = parameter_names(env, spec)
    ends = [path for path in names if path.rstrip("]'").endswith(name) and path != name]
    return f"did you mean {' or '.join(ends[:3])}?" if ends else nearest(name, names)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence that names the known names nearest to a wrong one."""
    names = sorted(set(names))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not near:
        return f"there are {', '.join(names[:12])}" if names else "there is none that is a plain value"
    return f"the nearest are {', '.join(near)}" if len(near) > 1 else f"the nearest is {', '.join(near)}"
