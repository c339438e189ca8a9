"""What an environment was made of: the arguments of its constructor, and its dictionary ``config``."""

from __future__ import annotations

import contextlib
import copy
import inspect
import numbers
import pickle
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator


def constructor_arguments(spec: EnvSpec) -> tuple[dict[str, Any], bool]:
    """Return the constructor's arguments with their defaults, and whether it accepts any others (``**kwargs``).

    Without ``render_mode``, which no task or configuration sets.
    """
    arguments, open_ended = _signature(spec)
    arguments.pop("render_mode", None)
    return arguments, open_ended


def takes_render_mode(spec: EnvSpec) -> bool:
    """Whether a constructor takes the argument ``render_mode``; not every environment that renders has one."""
    arguments, open_ended = _signature(spec)
    return open_ended or "render_mode" in arguments


def _signature(spec: EnvSpec) -> tuple[dict[str, Any], bool]:
    entry = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    arguments: dict[str, Any] = {}
    open_ended = False
    for constructor in [vars(base).get("__init__") for base in entry.__mro__] if inspect.isclass(entry) else [entry]:
        if not inspect.isfunction(constructor):
            continue
        signature = inspect.signature(constructor).parameters.values()
        arguments = {
            **{p.name: p.default for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)},
            **arguments,
        }
        open_ended = any(p.kind is p.VAR_KEYWORD for p in signature)
        if not open_ended:
            break
    arguments.pop("self", None)
    return arguments, open_ended


def mutable_defaults(entry_point: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of the dicts, lists, sets and arrays that are defaults of a constructor and not ``given``.

    Python makes a default such as ``config={}`` once, so all environments that keep it would share it.
    """
    try:
        entry = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        signature = inspect.signature(entry)
    except Exception:  # whatever is wrong with the entry point, making the environment says so
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [parameter for parameter in signature.parameters.values() if parameter.kind in kinds]
    mutable = (dict, list, set, np.ndarray)
    missing = [one for one in named if isinstance(one.default, mutable) and one.name not in given]
    return {one.name: copy.deepcopy(one.default) for one in missing}


def unnamed_arguments(spec: EnvSpec, arguments: Mapping[str, Any]) -> list[str]:
    """Return those of the arguments that the constructor takes only because it accepts any (``**kwargs``)."""
    known, open_ended = constructor_arguments(spec)
    return [name for name in arguments if open_ended and name not in known]


def same_state(one: gymnasium.Env[Any, Any], other: gymnasium.Env[Any, Any]) -> bool:
    """Whether two environments, made with different arguments and not yet reset, are exactly alike; False in doubt."""
    try:
        return pickle.dumps(_state(one)) == pickle.dumps(_state(other))
    except Exception:  # what an environment holds may not be picklable
        return False


def _state(env: gymnasium.Env[Any, Any]) -> list[dict[str, Any]]:
    """Return the attributes of an environment and its wrappers, without the records of constructor arguments."""
    records = ("env", "spec", "_cached_spec", "_ezpickle_args", "_ezpickle_kwargs")
    return [{name: value for name, value in vars(layer).items() if name not in records} for layer in layers_of(env)]


def layers_of(env: gymnasium.Env[Any, Any]) -> list[Any]:
    """Return an environment's wrappers, outermost first, and last the environment that they are around."""
    layers: list[Any] = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


def separate(env: gymnasium.Env[Any, Any], names: Iterable[str]) -> None:
    """Give an environment attributes of its own where it uses an object of its class or module, which others share."""
    plain = env.unwrapped
    scopes = [vars(scope) for base in type(plain).__mro__ for scope in (base, sys.modules.get(base.__module__, base))]
    for name in names:
        shared = getattr(plain, name, None)
        if shared is None or isinstance(shared, numbers.Number | str | type) or inspect.ismodule(shared):
            continue
        if any(value is shared for scope in scopes for value in list(scope.values())):
            with contextlib.suppress(AttributeError):  # a property that cannot be set
                setattr(plain, name, copy.deepcopy(shared))


def configuration_of(env: gymnasium.Env[Any, Any]) -> dict[Any, Any]:
    """Return the dictionary ``config`` of the unwrapped environment, or an empty one where there is none."""
    configuration = getattr(env.unwrapped, "config", None)
    return configuration if isinstance(configuration, dict) else {}
