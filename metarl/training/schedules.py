"""Step sizes that change during training: schedules, and how much of the training remains."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from metarl.envs.references import reference_to

Kind = Literal["linear", "cosine"]
_KINDS = get_args(Kind)
_SECTIONS = ("inner", "outer")
_EXAMPLE = '{start = 1e-3, end = 1e-5, schedule = "linear"}'
_Tree = TypeVar("_Tree")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A step size that goes from ``start``, at the first iteration, to ``end``, at the last one.

    ``linear``, or half a period of a cosine (Loshchilov and Hutter 2017, equation 5, without restarts).
    """

    start: float
    end: float
    schedule: Kind

    def value(self, remaining: float) -> float:
        """Return the step size when a share ``remaining`` of the training remains (1 at its start, 0 at its end)."""
        share = remaining if self.schedule == "linear" else (1.0 - math.cos(math.pi * remaining)) / 2.0
        return self.start * share + self.end * (1.0 - share)

    def plain(self) -> dict[str, Any]:
        """Return the schedule as in a file."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class FunctionSchedule:
    """A step size that a function computes from the share of the training that remains.

    Attributes:
        reference: ``module:function``, as in a file.
        function: remaining share (1 at the start of training, 0 at its end) -> step size.
    """

    reference: str
    function: Callable[[float], float] = field(compare=False, repr=False)

    def value(self, remaining: float) -> float:
        """Return the step size when a share ``remaining`` of the training remains.

        Raises:
            ValueError: the function raised an error, or returned no finite number of at least 0.
        """
        try:
            given = self.function(remaining)
            found = math.nan if isinstance(given, bool) else float(given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a function of the user's may raise anything, sys.exit as well
            raise ValueError(
                f"the step size {self.reference} cannot be computed where {remaining:.3g} of the training remains "
                f"({type(error).__name__}: {error})"
            ) from error
        if not 0.0 <= found < math.inf:
            raise ValueError(
                f"the step size {self.reference} is {given!r} where {remaining:.3g} of the training remains; expected "
                "a finite number of at least 0"
            )
        return found

    def plain(self) -> str:
        """Return the schedule as in a file."""
        return self.reference


AnySchedule = Schedule | FunctionSchedule


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The part of the training over which schedules run.

    Attributes:
        first_iteration: the number of iterations before it.
        last_iteration: the number of iterations up to its end; None if only environment steps limit it.
        first_timestep: the environment steps before it.
        last_timestep: the environment steps up to its end; None if only iterations limit it.
    """

    first_iteration: int = 0
    last_iteration: int | None = None
    first_timestep: int = 0
    last_timestep: int | None = None

    def remaining(self, iterations: int, timesteps: int) -> float:
        """Return the share that remains for the iteration after ``iterations`` iterations and ``timesteps`` steps.

        It is 1 for the first iteration. With a limit on iterations it is 0 for the last one.
        """
        shares = [1.0]
        if self.last_iteration is not None:
            steps = max(self.last_iteration - self.first_iteration - 1, 1)
            shares.append(1.0 - (iterations - self.first_iteration) / steps)
        if self.last_timestep is not None:
            total = max(self.last_timestep - self.first_timestep, 1)
            shares.append(1.0 - (timesteps - self.first_timestep) / total)
        return max(min(shares), 0.0)

    def following(
        self, iterations: int, timesteps: int, last_iteration: int | None, last_timestep: int | None, *, new: bool
    ) -> Horizon:
        """Return the horizon of a call of ``learn`` that ends where the last arguments say.

        It begins with the call if ``new``, unless the call ends where this horizon does: then it goes on with a
        training that was interrupted. Otherwise it begins where this one began, as in stable-baselines3.
        """
        resumed = (last_iteration, last_timestep) == (self.last_iteration, self.last_timestep)
        first = (iterations, timesteps) if new and not resumed else (self.first_iteration, self.first_timestep)
        return Horizon(
            first_iteration=first[0],
            last_iteration=last_iteration,
            first_timestep=first[1],
            last_timestep=last_timestep,
        )


def takes_schedule(name: str) -> bool:
    """Return whether a setting is a step size, by its name: those that end in ``step_size`` or ``learning_rate``."""
    return name.endswith(("step_size", "learning_rate"))


def read_schedule(key: str, value: Any) -> AnySchedule | None:
    """Return the schedule that a value of a setting stands for, or None if the value is no schedule.

    Args:
        key: of the setting, ``inner.step_size`` for instance.
        value: a table with ``start``, ``end`` and ``schedule``; a function of the remaining share of the training; or
            the place of one, ``module:function``.

    Raises:
        ValueError: a wrong table, a function that cannot be imported again, or step sizes out of range.
    """
    found: AnySchedule
    if isinstance(value, dict):
        found = _from_table(key, value)
    elif callable(value) or (isinstance(value, str) and ":" in value):
        function = value if callable(value) else _imported(key, value)
        found = FunctionSchedule(reference=_place(key, value) if callable(value) else value, function=function)
        reference_to(function)  # named by the program, which files that name it may rely on
    elif isinstance(value, str):
        raise ValueError(
            f"{key} is {value!r}; expected a number above 0, or a schedule as {_EXAMPLE}, which the command line takes "
            f"between single quotes: '{key}={{...}}'"
        )
    else:
        return None
    for remaining in (1.0, 0.5, 0.0):
        # Tasks are adapted to after the training too, and a step of 0 would leave the policy as it is.
        if found.value(remaining) == 0.0 and (remaining == 1.0 or key.endswith("step_size")):
            raise ValueError(
                f"{key} is {value!r}, which is 0 where {remaining:.3g} of the training remains; expected a number "
                "above 0"
            )
    return found


def _from_table(key: str, table: dict[str, Any]) -> Schedule:
    names = [entry.name for entry in dataclasses.fields(Schedule)]
    if set(table) != set(names):
        wrong = [f"no {name!r}" for name in names if name not in table]
        wrong += [f"an unknown {name!r}" for name in table if name not in names]
        raise ValueError(f"{key} is a schedule with {' and '.join(wrong)}; expected {_EXAMPLE}")
    if table["schedule"] not in _KINDS:
        raise ValueError(
            f"{key}.schedule is {table['schedule']!r}; expected 'linear' or 'cosine', or in place of the table a "
            "function, 'module:function'"
        )
    for name in ("start", "end"):
        number = table[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0.0 <= number < math.inf:
            raise ValueError(f"{key}.{name} is {number!r}; expected a finite number above 0")
    return Schedule(start=float(table["start"]), end=float(table["end"]), schedule=table["schedule"])


def _imported(key: str, reference: str) -> Callable[[float], float]:
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module may raise anything when it is imported
        raise ValueError(
            f"{key} is {reference!r}, which cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(found):
        raise ValueError(f"{key} is {reference!r}, which is a {type(found).__name__}; expected a function")
    function: Callable[[float], float] = found
    return function


def _place(key: str, function: Any) -> str:
    """Return where a function can be imported from, ``module:function``."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    reference = f"{module}:{name}"
    try:
        same = module != "__main__" and _imported(key, reference) is function
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"{key} is {name or function!r}, which a checkpoint cannot keep, since it cannot be imported again; give "
            f"a function that stands in a module of its own, or a table such as {_EXAMPLE}"
        )
    return reference


def scheduled(settings: Any) -> Mapping[str, AnySchedule]:
    """Return the schedules in settings by key, ``inner.step_size`` for instance."""
    found = {}
    for section in _SECTIONS:
        part = getattr(settings, section)
        for entry in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
            value = getattr(part, entry.name)
            if isinstance(value, AnySchedule):
                found[f"{section}.{entry.name}"] = value
    return found


def in_force(settings: _Tree, remaining: float) -> _Tree:
    """Return settings with the numbers that are in force where a share ``remaining`` of the training remains."""
    return with_values(settings, {key: entry.value(remaining) for key, entry in scheduled(settings).items()})


def with_values(settings: _Tree, values: Mapping[str, Any]) -> _Tree:
    """Return settings with other values by key; the checks of a section's own constructor are not repeated."""
    for key, value in values.items():
        section, _, name = key.partition(".")
        part = copy.copy(getattr(settings, section))
        object.__setattr__(part, name, value)
        settings = copy.copy(settings)
        object.__setattr__(settings, section, part)
    return settings
