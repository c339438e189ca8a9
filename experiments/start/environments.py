"""An environment's name as a configuration: the family it makes, and settings of the right size for it."""

from __future__ import annotations

import copy
import difflib
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

from metarl.envs import list_families
from metarl.envs.families import model_fields
from metarl.envs.families.constructors import configuration_of, constructor_arguments
from metarl.envs.families.places import derived_attributes, values_in
from metarl.envs.registry import find_family
from metarl.envs.sync import close_or_warn
from metarl.envs.tasks import attribute
from metarl.experiments.start.vary import parse_parameters
from metarl.guide.sizes import defaults

PARAMETERIZED = "metarl/Parameterized-v0"
_SHOWN = 8  # parameters that a sentence names
# Numbers that many environments have and nobody wants to vary.
_NOT_PHYSICS = re.compile(r"screen|render|fps|window|seed|episode|max_|camera|verbose|tile|^width$|^height$")


def is_environment(name: str) -> bool:
    """Whether a name is one of an environment: registered, or ``module:Name``, whose module is not imported yet."""
    list_families()  # imports the packages that register some
    return ":" in name or name in gymnasium.registry


def environment_names() -> list[str]:
    """Return the ids of all environments that are registered."""
    list_families()
    return list(gymnasium.registry)


def run_name(environment: str) -> str:
    """Return the name of the folder of an environment's runs.

    >>> run_name("my_module:MyEnv-v0"), run_name("metarl/Navigation2D-v0")
    ('my_module-MyEnv-v0', 'Navigation2D-v0')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", environment.rpartition("/")[2]).lstrip("._-") or "run"


def environment_tables(name: str, vary: Sequence[str], family_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a configuration for an environment, with settings that ``metarl.defaults`` sizes for it.

    Args:
        name: an environment family, or with ``vary`` any environment; an id, or ``module:Name``.
        vary: what varies, as ``gravity=5..15``, see ``parse_parameters``.
        family_kwargs: further arguments of the family.

    Raises:
        ValueError: an unknown environment or parameter, a range that cannot be read, an environment without tasks and
            without ``vary``, or one with tasks of its own and with ``vary``.
    """
    family, kwargs = varied(name, vary, family_kwargs)
    try:
        sized = defaults(family, **kwargs)
    except TypeError as error:
        raise _without_tasks(name, kwargs, error) from error
    policy = {"name": sized.pop("policy"), **sized.pop("policy_kwargs")}
    return {"family": family, "learner": "maml", "family_kwargs": kwargs, **sized, "policy": policy}


def varied(name: str, vary: Sequence[str], family_kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a family and its arguments: an environment's own, or with ``vary`` the one in which parameters of it vary.

    Args:
        name: as for ``environment_tables``.
        vary: as for ``environment_tables``.
        family_kwargs: as for ``environment_tables``.

    Raises:
        ValueError: ``vary`` cannot be read, or names what ``family_kwargs`` name; or the environment has tasks of its
            own.
    """
    if not vary:
        return name, dict(family_kwargs)
    given, parameters = family_kwargs.get("parameters", {}), parse_parameters(vary)
    twice = [parameter for parameter in parameters if parameter in given]
    if twice:
        raise ValueError(f"{twice[0]!r} is given by --vary and by family_kwargs.parameters; give one of the two")
    _refuse_own_tasks(name, family_kwargs.get("env_kwargs", {}))
    return PARAMETERIZED, {"env": name, **family_kwargs, "parameters": {**given, **parameters}}


def _refuse_own_tasks(name: str, kwargs: Mapping[str, Any]) -> None:
    env = _make_plain(name, kwargs)
    try:
        space = attribute(env, "task_space")
    finally:
        close_or_warn(env)
    if isinstance(space, spaces.Space):
        raise ValueError(
            f"{name} has tasks of its own ({', '.join(space) if isinstance(space, spaces.Dict) else space}), so there "
            "is nothing to name; leave --vary out"
        )


def _without_tasks(name: str, kwargs: Mapping[str, Any], error: TypeError) -> ValueError:
    """Return the error for an environment without tasks, which names what could vary in it."""
    env = _make_plain(name, {key: value for key, value in kwargs.items() if key != "max_episode_steps"})
    try:
        if isinstance(attribute(env, "task_space"), spaces.Space):
            return ValueError(str(error))
        found = varying_parameters(env, name)
    finally:
        close_or_warn(env)
    start = f"{name} has no tasks (no task_space), so say what varies: --vary NAME=LOW..HIGH"
    if not found:
        return ValueError(
            f"{start}, where NAME is an argument of its constructor or an attribute; no number was found that could "
            "vary, so give it one, or a task_space"
        )
    shown = ", ".join(list(found)[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    return ValueError(f"{start}, as in --vary {_example(found)}; its parameters are {shown}")


def _example(found: Mapping[str, float | int | None]) -> str:
    """Return a range of the first parameter: from half of its own value to twice as much."""
    name, own = next(iter(found.items()))
    if isinstance(own, int):
        low, high = sorted((own // 2 or own, own * 2))
        return f"{name}={low}..{high}:int"
    ends = [0.5, 2.0] if own is None else sorted((own / 2, own * 2))
    return f"{name}={ends[0]:g}..{ends[1]:g}"


def varying_parameters(env: gymnasium.Env[Any, Any], name: str) -> dict[str, float | int | None]:
    """Return what could vary in an environment and its own values; None for fields of a model, which are scaled.

    Only numbers other than 0 are listed: fields of a MuJoCo model, arguments of the constructor, keys of the
    dictionary ``config``, attributes, and values inside them; whole numbers, which seldom are physics, at the end.
    """
    found: dict[str, float | int | None] = {}
    model = model_fields.model_of(env)
    if model is not None:
        known = model_fields.field_names(model)
        found.update({field: None for field in ("body_mass", "geom_friction", "dof_damping") if field in known})
    derived = derived_attributes(env)
    arguments, _ = constructor_arguments(find_family(name))
    nested = {path: value for path, value in values_in(env.unwrapped, "") if not path.isidentifier()}
    for place in (arguments, configuration_of(env), _attributes(env.unwrapped), nested):
        for key, value in place.items():
            if isinstance(key, str) and _is_physical(key, value) and key not in derived:
                found.setdefault(key, int(value) if isinstance(value, numbers.Integral) else float(value))
    return dict(sorted(found.items(), key=lambda item: isinstance(item[1], int)))


def _attributes(env: object) -> dict[str, Any]:
    """Return the attributes of an environment's class and of the environment itself, without those of Gymnasium."""
    classes = [base for base in type(env).__mro__ if base.__module__ != "gymnasium.core"]
    found: dict[str, Any] = {}
    for base in reversed(classes):
        found.update(vars(base))
    return {**vars(env), **{key: value for key, value in found.items() if key not in vars(env)}}


def _is_physical(key: str, value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and not key.startswith("_") and value != 0 and abs(value) < 1e6 and not _NOT_PHYSICS.search(key)


def _make_plain(name: str, kwargs: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Make an environment as it is, family or not."""
    spec = find_family(name)
    try:
        return gymnasium.make(spec, disable_env_checker=True, **copy.deepcopy(dict(kwargs)))
    except Exception as error:  # a constructor may raise anything
        raise ValueError(f"environment {name} cannot be made: {type(error).__name__}: {error}") from error


def _module_beside(name: str) -> str | None:
    """Return the module of the current folder, if there is one, that registers an id or has a class of this name."""
    wanted = re.compile(rf"""["']{re.escape(name)}["']|^(class|def) {re.escape(name)}\b""", re.MULTILINE)
    for path in sorted(Path().glob("*.py")):
        try:
            if path.stem.isidentifier() and wanted.search(path.read_text(encoding="utf-8")):
                return path.stem
        except (OSError, UnicodeDecodeError):
            continue
    return None


def unknown_name(name: str, shipped: Iterable[str]) -> ValueError:
    """Return the error for a name that is neither a shipped configuration nor an environment, with the nearest."""
    called: dict[str, str] = {}
    for known in environment_names():
        for spelling in (known, known.rpartition("/")[2]):
            called.setdefault(spelling.lower(), f"{known!r} (an environment)")
    called |= {known.lower(): f"{known!r} (a shipped configuration)" for known in shipped}
    short = {re.sub(r"-v\d+$", "", spelling): spelling for spelling in reversed(called)}
    near = difflib.get_close_matches(name.lower(), [*called, *short], n=4, cutoff=0.7)
    found = list(dict.fromkeys(called.get(spelling) or called[short[spelling]] for spelling in near))
    if (Path(name) / "config.toml").is_file():
        hint = f"it is a run's folder: 'metarl train --resume {name}' goes on with it"
    elif own := _module_beside(name):
        hint = f"{own}.py in this folder names it, so write {own}:{name}"
    elif found:
        hint = f"did you mean {' or '.join(found[:3])}?"
    else:
        hint = f"shipped are {', '.join(shipped)}; 'metarl envs' lists families"
    return ValueError(
        f"unknown configuration or environment {name!r}; {hint} (the path of a file of yours ends in .toml, and "
        "module:Name is an environment of yours)"
    )
