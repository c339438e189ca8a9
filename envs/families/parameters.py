"""Parameters of an environment: how their ranges are written, and where in the environment they are found.

A parameter is a field of a MuJoCo model, an argument of the constructor, a key of the dictionary ``config`` or an
attribute. The places are searched in this order.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from metarl.envs.families import model_fields
from metarl.envs.families.constructors import configuration_of, constructor_arguments

# Attributes that Gymnasium's environments compute from other attributes when they are made.
DERIVED: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {
    "CartPoleEnv": {
        "total_mass": (("masscart", "masspole"), lambda env: env.masspole + env.masscart),
        "polemass_length": (("masspole", "length"), lambda env: env.masspole * env.length),
    },
}


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values that a parameter takes: numbers between two ends, whole numbers, or one of several choices.

    Attributes:
        space: the space of the parameter's entry in a task, which is a number or the index of a choice.
        choices: the choices in the order of their indices; None where the entry is a number.
        scale: True: the number multiplies the environment's own value; False: it replaces it.
    """

    space: spaces.Box | spaces.Discrete
    choices: tuple[Any, ...] | None
    scale: bool

    def value(self, entry: Any, own: Any) -> Any:
        """Return the value for the environment: ``entry`` is the task's, ``own`` the environment's own value."""
        if self.choices is not None:
            return copy.deepcopy(self.choices[int(entry)])
        number = int(entry) if isinstance(self.space, spaces.Discrete) else float(entry)
        return own * number if self.scale else number

    def ends(self) -> tuple[Any, Any]:
        """Return the first and the last entry."""
        if isinstance(self.space, spaces.Discrete):
            return self.space.start, self.space.start + self.space.n - 1
        return self.space.low, self.space.high

    def default(self, own: Any) -> Any:
        """Return the entry for the environment's ``own`` value; if that is outside, the middle or the first choice."""
        if self.choices is not None:
            return np.int64(self.choices.index(own) if own in self.choices else 0)
        is_number = isinstance(own, numbers.Real) and not isinstance(own, bool)
        if isinstance(self.space, spaces.Discrete):
            fits = is_number and own == int(own) and self.space.contains(np.int64(own))
            return np.int64(own if fits else self.space.start)
        low, high = float(self.space.low), float(self.space.high)
        unchanged = 1.0 if self.scale else own
        inside = (self.scale or is_number) and low <= float(unchanged) <= high
        return np.array(float(unchanged) if inside else (low + high) / 2)


def read_range(name: str, written: Any, scale_by_default: bool) -> Range:
    """Return the range that a person wrote.

    Args:
        name: the parameter's, for errors.
        written: ``[low, high]``, or a dict with ``choices``, a list; or a dict with ``low``, ``high`` and, if wanted,
            ``integer`` (True or False) and ``as`` (``"scale"`` or ``"absolute"``).
        scale_by_default: whether a number multiplies where ``as`` is not written.

    Raises:
        ValueError: ``written`` is none of these.
    """
    wrong = (
        f"parameter {name!r} is {written!r}; expected [low, high], {{low, high}} with perhaps integer = true and "
        "as = 'scale' or 'absolute', or {choices = [...]}"
    )
    if isinstance(written, list | tuple | np.ndarray) and len(written) == 2:
        written = {"low": written[0], "high": written[1]}
    if not isinstance(written, Mapping):
        raise ValueError(wrong)
    if set(written) == {"choices"}:
        choices = written["choices"]
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise ValueError(f"the choices of parameter {name!r} are {choices!r}; expected a list of at least two")
        return Range(space=spaces.Discrete(len(choices)), choices=tuple(choices), scale=False)
    kind, integer = written.get("as", "scale" if scale_by_default else "absolute"), written.get("integer", False)
    if not {"low", "high"} <= set(written) <= {"low", "high", "as", "integer"}:
        raise ValueError(wrong)
    if kind not in ("scale", "absolute") or not isinstance(integer, bool):
        raise ValueError(wrong)
    low, high = written["low"], written["high"]
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, numbers.Real) or not np.isfinite(float(end)):
            raise ValueError(wrong)
    if not low < high:
        raise ValueError(f"parameter {name!r} goes from {low} to {high}; expected the lower end first")
    if not integer:
        return Range(space=spaces.Box(float(low), float(high), (), np.float64), choices=None, scale=kind == "scale")
    if low != int(low) or high != int(high) or kind == "scale":
        raise ValueError(f"parameter {name!r} is {written!r}; an integer has whole ends and is absolute")
    return Range(space=spaces.Discrete(int(high - low) + 1, start=int(low)), choices=None, scale=False)


class Attribute:
    """An attribute of the unwrapped environment; attributes in ``DERIVED`` are computed again when it is set."""

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        self.name = name
        self.own = getattr(env.unwrapped, name)
        try:
            setattr(env.unwrapped, name, self.own)
        except AttributeError as error:
            raise ValueError(f"{_called(env)} does not let its attribute {name!r} be set") from error

    def set(self, env: gymnasium.Env[Any, Any], value: Any) -> None:
        """Give the environment a value."""
        setattr(env.unwrapped, self.name, value)
        for derived, (_, compute) in _derived(env).items():
            setattr(env.unwrapped, derived, compute(env.unwrapped))


class ConfigurationKey:
    """A key of the unwrapped environment's dictionary ``config``."""

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        self.name = name
        self.own = env.unwrapped.config[name]  # type: ignore[attr-defined]

    def set(self, env: gymnasium.Env[Any, Any], value: Any) -> None:
        """Give the environment a value."""
        env.unwrapped.config[self.name] = value  # type: ignore[attr-defined]


class Argument:
    """An argument of the constructor; for another value another environment is made."""

    def __init__(self, name: str, own: Any) -> None:
        self.name = name
        self.own = own


Target = Attribute | ConfigurationKey | Argument | model_fields.ModelField


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
    if "/" in name or (model is not None and name in model_fields.field_names(model)):
        try:
            if model is not None:
                return model_fields.ModelField(model, name)
        except ValueError:
            if name not in keys:
                raise
        if name not in keys:
            raise ValueError(
                f"parameter {name!r} names a field of a MuJoCo model, which {_called(env)} does not have, and it is no "
                "key of its config either"
            )
    known, open_ended = constructor_arguments(spec)
    if name in known:
        return Argument(name, arguments.get(name, spec.kwargs.get(name, known[name])))
    derived = _derived(env)
    if name in derived:
        sources = " and ".join(repr(source) for source in derived[name][0])
        raise ValueError(f"parameter {name!r} of {_called(env)} is computed from {sources}; vary those")
    if name in keys:
        return ConfigurationKey(env, name)
    if name in _attributes(env):
        return Attribute(env, name)
    if open_ended:
        return None
    raise unknown(env, spec, name)


def unknown(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> ValueError:
    """Return the error for a parameter that does not exist; it names the nearest that do."""
    return ValueError(f"{_called(env)} has no parameter {name!r}; {_nearest(env, spec, name)}")


def ignored(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> ValueError:
    """Return the error for an argument that a constructor accepts and ignores; it names the nearest parameters."""
    return ValueError(
        f"{_called(env)} accepts the argument {name!r} and ignores it; check its spelling, {_nearest(env, spec, name)}"
    )


def _nearest(env: gymnasium.Env[Any, Any], spec: EnvSpec, name: str) -> str:
    model = model_fields.model_of(env)
    fields = model_fields.field_names(model) if model is not None else ()
    return nearest(name, [*constructor_arguments(spec)[0], *configuration_of(env), *_attributes(env), *fields])


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence that names the known names nearest to a wrong one."""
    names = sorted(set(names))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or difflib.get_close_matches(
        name, names, n=3, cutoff=0.0
    )
    return f"the nearest are {', '.join(near)}" if len(near) > 1 else f"the nearest is {', '.join(near)}"


def _called(env: gymnasium.Env[Any, Any]) -> str:
    return str(env.spec.id) if env.spec is not None else type(env.unwrapped).__name__


def _derived(env: gymnasium.Env[Any, Any]) -> dict[str, tuple[tuple[str, ...], Any]]:
    found: dict[str, tuple[tuple[str, ...], Any]] = {}
    for base in type(env.unwrapped).__mro__:
        found.update(DERIVED.get(base.__name__, {}))
    return found


def _attributes(env: gymnasium.Env[Any, Any]) -> list[str]:
    """Return the public attributes that are plain values."""
    names = [name for name in dir(env.unwrapped) if not name.startswith("_") and name not in ("render_mode", "spec")]
    plain = (numbers.Real, str, np.generic)
    return [name for name in names if isinstance(inspect.getattr_static(env.unwrapped, name), plain)]
