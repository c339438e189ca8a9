"""``metarl.parameterized``: one line of Python that makes a family from any environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from metarl.envs import registry
from metarl.envs import tasks as task_tools
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.families.ranges import plain_range
from metarl.envs.references import Family, as_family, reference_to
from metarl.envs.sync import close_or_warn


def parameterized(
    env: str | Callable[..., Any],
    parameters: Mapping[str, Any] | None = None,
    *,
    wrappers: Sequence[str | Callable[..., Any]] = (),
    env_kwargs: Mapping[str, Any] | None = None,
    set: Mapping[str, str | Callable[..., Any]] | None = None,
    derive: str | Callable[..., Any] | None = None,
    max_episode_steps: int | None = None,
    **ranges: Any,
) -> Family:
    """Return the family of an environment whose named parameters vary.

    It is for everything that takes a family::

        family = metarl.parameterized("CartPole-v1", gravity=(5, 15), length=(0.25, 1))
        model = metarl.MAML("MlpPolicy", family)

    Its ``id`` and ``kwargs`` are those of ``metarl/Parameterized-v0``, which describes the arguments. The environment
    is
    made and reset once, so mistakes are found here.

    Args:
        env: an environment's id, its class, or a function that makes it, wrappers included.
        parameters: name to range, for names that are no Python names, such as ``"physics.mass"`` or
            ``"body_mass/torso"``.
        wrappers: classes or functions, innermost first.
        env_kwargs: arguments of the environment that do not vary.
        set: name of a parameter to a method's name, or to a function of the unwrapped environment and the value.
        derive: a method's name, or a function of the unwrapped environment, called after parameters are set.
        max_episode_steps: the time limit, instead of the environment's own.
        ranges: name to range: ``(low, high)``, Python's ``range`` for whole numbers,
            ``{"low": 0.1, "high": 10, "log": True}``, or ``{"choices": [...]}``.

    Raises:
        ValueError: the environment cannot be made; it has no such parameter; a range is none; its reset overwrites a
            parameter; or several environments share an object in which a parameter lies.
    """
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ValueError(f"parameters is {parameters!r}; expected a dict, name to range, or ranges as name=(low, high)")
    twice = sorted((parameters or {}).keys() & ranges.keys())
    if twice:
        raise ValueError(f"the parameter {twice[0]!r} is given twice; leave one out")
    kwargs: dict[str, Any] = {
        "env": as_family(env, {})[0],
        "parameters": {name: plain_range(written) for name, written in {**(parameters or {}), **ranges}.items()},
        "wrappers": [_text(wrapper) for wrapper in wrappers] if isinstance(wrappers, list | tuple) else wrappers,
        "env_kwargs": dict(env_kwargs) if isinstance(env_kwargs, Mapping) else env_kwargs,
        "set": {name: _text(how) for name, how in set.items()} if isinstance(set, Mapping) else set,
        "derive": None if derive is None else _text(derive),
        "max_episode_steps": max_episode_steps,
    }
    family = Family(
        "metarl/Parameterized-v0", {name: value for name, value in kwargs.items() if value not in (None, {}, [])}
    )
    _try(family)
    return family


def _text(thing: Any) -> Any:
    return reference_to(thing) if callable(thing) else thing


def _try(family: Family) -> None:
    """Make the environment twice and reset it once."""
    one, other = (registry.make(family, disable_env_checker=True) for _ in range(2))
    try:
        inside = cast(ParameterizedEnv, one.unwrapped)
        inside.refuse_shared(cast(ParameterizedEnv, other.unwrapped))
        task = task_tools.draw_tasks(one, 1, task_tools.task_rng(0, "train"), "train")
        one.reset(seed=0, options={"task": task_tools.unstack_tasks(inside.task_space, task)[0]})
    finally:
        close_or_warn(one)
        close_or_warn(other)
