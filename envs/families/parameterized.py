"""Any Gymnasium environment as a family whose tasks are values of named parameters, ``Parameterized-v0``."""

from __future__ import annotations

import copy
import importlib
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from metarl.envs import tasks as task_tools
from metarl.envs.families import constructors, model_fields
from metarl.envs.families.parameters import (
    Argument,
    Setter,
    Target,
    call_hook,
    find_target,
    hook,
    ignored,
    parameter_names,
    refuse_no_number,
    unknown,
)
from metarl.envs.families.places import Place, called, is_replaced
from metarl.envs.families.ranges import flat_ranges, read_range
from metarl.envs.references import how_to_install, reference_to, resolve, stays_here, unregistered
from metarl.envs.sync import close_or_warn

KEPT = 8  # how many environments are kept, each made with other constructor arguments
EXAMPLE = "as in env = 'CartPole-v1', parameters = {gravity = [5, 15]}"


class ParameterizedEnv(gymnasium.Env[Any, Any]):
    """A Gymnasium environment whose named parameters vary (``metarl/Parameterized-v0``).

    ``metarl.parameterized("CartPole-v1", gravity=(5, 15))`` in Python; in TOML
    ``family_kwargs = {env = "CartPole-v1", parameters = {gravity = [5, 15]}}``. Without arguments it is this example.

    - **What varies** (the task): a dict, parameter to number or to index of a choice. **Hidden**: the observation is
    the
      environment's own, so it shows of the task what the environment shows.
    - **Parameters**: a value that a method sets (``set``); a field of a MuJoCo model, of all its bodies or one
      (``"body_mass"``, ``"body_mass/torso"``, ``"geom_friction/floor/0"``, ``"opt/gravity"``); an argument of the
      constructor, for which the environment is made anew; a key of a configuration dictionary ``config``; an attribute
      of
      the unwrapped environment or of a wrapper; a value inside one (``"params['mass']"``, ``"physics.mass"``,
      ``"wind/0"``). The first of these that there is. What Gymnasium's CartPole and MuJoCo derive from them follows;
      ``derive`` names what does so elsewhere.
    - **Ranges**: ``[low, high]``, drawn uniformly; ``{low, high, log = true}``, uniform in the logarithm;
      ``{low, high, integer = true}`` for whole numbers; ``{choices = [...]}``. A number multiplies the value of a
      model's field (``{low, high, as = "absolute"}`` replaces it, where it is one number) and replaces any other
      (``as = "scale"`` multiplies it).
    - **Default task**: the environment's own values where they lie in the ranges, else their middle or first choice.
    - **Observation**, **Action**, **Reward**, **Ends**: the environment's own. ``max_episode_steps`` replaces the
      environment's own limit; both count the environment's steps, inside the wrappers. Parameters may not change the
      spaces.
    - **Splits**: the same distribution with disjoint seeds; where every parameter is a choice or a whole number, the
      splits share their tasks.
    - **Source**: the environment's.
    - **Versions**: v0, the first.

    Attributes:
        inner: the environment that is played, with its wrappers; another one after a task with other constructor
            arguments.

    Args:
        env: an environment's id, or ``module:Id`` to import the module first (a module's ``register_envs()`` is called
            where it is needed); or a class or a function that makes the environment, itself or as ``module:Name``.
        parameters: name to range.
        wrappers: wrappers around the environment, innermost first, each a class or function, itself or as
            ``module:Name``.
        env_kwargs: arguments of the environment that do not vary.
        set: name of a parameter to the method of the environment that sets it, called with the value; or to
            ``module:function``, called with the unwrapped environment and the value.
        derive: a method, or ``module:function`` of the unwrapped environment, that computes again what the environment
            computed from its parameters when it was made; called after parameters are set.
        render_mode: the environment's.

    Raises:
        ValueError: there is no such parameter; an argument is ignored by the environment; a range, wrapper, method or
            function is none; or only one of ``env`` and ``parameters`` is given.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]
    observation_reveals_task = True  # as far as the environment's own does

    def __init__(
        self,
        env: str | Callable[..., Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        wrappers: Sequence[str | Callable[..., Any]] = (),
        env_kwargs: Mapping[str, Any] | None = None,
        set: Mapping[str, str] | None = None,
        derive: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        if env is None and parameters is None:
            env, parameters = "CartPole-v1", {"gravity": [5.0, 15.0]}
        if not (isinstance(env, str) or callable(env)) or not isinstance(parameters, Mapping | None):
            raise ValueError(f"env is {env!r} and parameters is {parameters!r}; expected both, {EXAMPLE}")
        for argument, given, kinds in (
            ("wrappers", wrappers, list | tuple),
            ("env_kwargs", env_kwargs, Mapping | None),
            ("set", set, Mapping | None),
        ):
            if not isinstance(given, kinds):
                expected = "a list" if argument == "wrappers" else "a dict"
                raise ValueError(f"{argument} is {given!r}; expected {expected}")
        self.render_mode = render_mode
        self._limit: int | None = None
        self._inner_spec = _spec(env if isinstance(env, str) else reference_to(env))
        self._passes_mode = render_mode is not None and constructors.takes_render_mode(self._inner_spec)
        self._wrappers = [_wrapper(wrapper) for wrapper in wrappers]
        self._setters = dict(set or {})
        self._derive = derive
        written = flat_ranges(parameters or {})
        if unused := sorted(self._setters.keys() - written.keys()):
            raise ValueError(
                f"set names {', '.join(map(repr, unused))}, which parameters does not; give a range as well"
            )
        self._fixed = copy.deepcopy(dict(env_kwargs or {}))
        for name in _required(self._inner_spec) & written.keys():
            middle = read_range(name, written[name], scale_by_default=False)
            self._fixed.setdefault(name, middle.value(middle.default(None), None))
        self._heads = {"config"}  # attributes of which each environment needs its own copy
        self._made: dict[tuple[str, ...], gymnasium.Env[Any, Any]] = {}
        self._kept: dict[tuple[str, ...], dict[str, Any]] = {}  # what the attributes were, named as the arguments
        self.inner = self._make({})
        self._refuse_unused()
        if not written:
            raise ValueError(
                f"no parameter of {called(self.inner)} is given a range, so that nothing varies; {EXAMPLE}; it has "
                f"{', '.join(parameter_names(self.inner, self._inner_spec)[:12])}"
            )
        if derive is not None:
            hook(self.inner, derive, "derive")
        self.metadata = self.inner.metadata  # type: ignore[misc]
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space
        self._ranges: dict[str, Any] = {}
        self._targets: dict[str, Any] = {}
        for name, one in written.items():
            self._add(name, one)
        self.task_space = spaces.Dict({name: one.space for name, one in self._ranges.items()})
        self.default_task = {name: one.default(self._targets[name].own) for name, one in self._ranges.items()}
        self.splits_share_tasks = all(isinstance(one.space, spaces.Discrete) for one in self._ranges.values())
        self._task = self.default_task
        self._new_task = True

    @property
    def max_episode_steps(self) -> int | None:
        """The time limit that replaces the environment's own, in its own steps, or None; ``make`` sets it."""
        return self._limit

    @max_episode_steps.setter
    def max_episode_steps(self, limit: int | None) -> None:
        if limit != self._limit:
            self._limit = limit
            self.close()
            self.inner = self._make({})
            self._new_task = True

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied; many environments lose what was set in them, so the task is set again."""
        return {**vars(self), "_new_task": True}

    @property
    def task(self) -> dict[str, Any]:
        """The task of the current episode."""
        return self._task

    def _make(self, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
        """Return the environment with these arguments, made when first asked for."""
        key = tuple(repr(item) for item in sorted(arguments.items()))
        if key in self._made and self._kept.get(key) != _plain_attributes(self._made[key], arguments):
            close_or_warn(self._made.pop(key))  # it has changed while it stepped what it was made with
        if key not in self._made:
            self._made[key] = self._construct({**self._fixed, **arguments})
            self._kept[key] = _plain_attributes(self._made[key], arguments)
        env = self._made[key] = self._made.pop(key)  # the last one is the last used
        for old in list(self._made)[:-KEPT]:
            close_or_warn(self._made.pop(old))
        return env

    def _construct(self, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
        """Make the environment, with its time limit innermost, as with ``gymnasium.make``, and then the wrappers."""
        env = gymnasium.make(
            self._inner_spec,
            max_episode_steps=self._limit,
            disable_env_checker=True,
            **({"render_mode": self.render_mode} if self._passes_mode else {}),
            **constructors.mutable_defaults(self._inner_spec.entry_point, {**self._inner_spec.kwargs, **arguments}),
            **copy.deepcopy(arguments),
        )
        constructors.separate(env, self._heads)
        for wrapper in self._wrappers:
            env = wrapper(env)
        return env

    def _refuse_unused(self) -> None:
        """Refuse fixed arguments that a constructor with ``**kwargs`` accepts and then ignores."""
        for name in constructors.unnamed_arguments(self._inner_spec, self._fixed):
            others = {other: value for other, value in self._fixed.items() if other != name}
            try:
                # A value of no use to anybody: the given one might be the default, and so make no difference either.
                without, absurd = self._construct(others), self._construct({**others, name: object()})
            except Exception:  # whatever is raised, the argument was read
                continue
            if constructors.same_state(without, absurd):
                raise ignored(self.inner, self._inner_spec, name)
            close_or_warn(without)
            close_or_warn(absurd)

    def _add(self, name: str, written: Any) -> None:
        """Find a parameter in the environment."""
        if name in self._setters:
            target: Target | None = Setter(self.inner, name, self._setters[name])
        else:
            target = find_target(self.inner, self._inner_spec, name, self._fixed)
        is_field = isinstance(target, model_fields.ModelField)
        one = read_range(name, written, scale_by_default=is_field)
        if target is None:  # the constructor takes arguments that it does not name: it is asked
            target = Argument(name, self._fixed.get(name))
            try:
                low, high = (self._make({name: one.value(entry, 1.0)}) for entry in one.ends())
            except TypeError as error:
                raise unknown(self.inner, self._inner_spec, name) from error
            if constructors.same_state(low, high):
                raise ignored(self.inner, self._inner_spec, name)
        if isinstance(target, Place):
            if one.choices is None:
                refuse_no_number(self.inner, name, target.own)
            if target.whole and one.choices is None and isinstance(one.space, spaces.Box):
                raise ValueError(
                    f"parameter {name!r} of {called(self.inner)} is in an array of whole numbers, which would cut off "
                    "fractions; write {low, high, integer = true}, or let the environment use an array of floats"
                )
            if target.head not in self._heads:
                self._heads.add(target.head)
                constructors.separate(self.inner, [target.head])
        if one.scale and (isinstance(target.own, bool) or not isinstance(target.own, float | int | np.ndarray)):
            raise ValueError(f"parameter {name!r} is {target.own!r}, which cannot be scaled; leave out as = 'scale'")
        if not one.scale and one.choices is None and isinstance(target.own, np.ndarray):
            raise ValueError(
                f"parameter {name!r} has the shape {target.own.shape}, and only one number can be replaced; name an "
                "entry of it, as with /0 at the end, or multiply all of it with as = 'scale'"
            )
        self._ranges[name], self._targets[name] = one, target

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Draw a batch of ``n`` tasks."""
        batch = task_tools.uniform_tasks(self.task_space, n, rng)
        return {name: one.spread(batch[name]) for name, one in self._ranges.items()}

    def refuse_shared(self, other: ParameterizedEnv) -> None:
        """Refuse parameters inside an object that another environment of the family uses too.

        Raises:
            ValueError: there is one.
        """
        for name, target in self._targets.items():
            if not isinstance(target, Place):
                continue
            around, others = (each._targets[name].containers(each.inner)[:-1] for each in (self, other))
            if any(mine is theirs and not is_replaced(mine) for mine, theirs in zip(around, others, strict=True)):
                raise ValueError(
                    f"the parameter {name!r} lies inside an object that several environments share, so that they "
                    "could not play different tasks at the same time; let each environment make its own, as with "
                    "copy.deepcopy"
                )

    def _apply(self) -> dict[str, Any]:
        """Give the environment the values of the task; return what it then has at each path."""
        values = {name: one.value(self._task[name], self._targets[name].own) for name, one in self._ranges.items()}
        arguments = {name: values[name] for name in values if isinstance(self._targets[name], Argument)}
        made_before = self.inner
        if self._new_task or arguments:
            self.inner = self._make(arguments)
        anew = self._new_task or self.inner is not made_before
        changed = fields = False
        for name, value in values.items():
            target = self._targets[name]
            if isinstance(target, Place):
                # At every reset, since an environment may change its parameters while it steps.
                if not _same(target.get(self.inner), value):
                    target.set(self.inner, value)
                    changed = True
                    self._refuse_other_value(name, value, target.get(self.inner))
            elif isinstance(target, Setter) or (anew and not isinstance(target, Argument)):
                target.set(self.inner, value)
                changed = True
                fields = fields or isinstance(target, model_fields.ModelField)
        if fields:
            model_fields.derive(self.inner)
        if self._derive is not None and (changed or anew):
            call_hook(self.inner, self._derive, "derive")
        places = {name: target for name, target in self._targets.items() if isinstance(target, Place)}
        return {name: copy.deepcopy(target.get(self.inner)) for name, target in places.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given.

        Raises:
            ValueError: the task is outside the task space, or changes the observation or action space; or the
                environment's own reset overwrites a parameter.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        task = options.pop("task", None)
        if task is not None:
            self._task = task_tools.as_task(self, task)
            self._new_task = True
        before = self.inner
        given = self._apply()
        if seed is None and self.inner is not before:
            seed = int(self.np_random.integers(2**31))  # the other environment has not drawn from our seed
        try:
            observation, info = self.inner.reset(seed=task_tools.spread_seed(seed, 1)[0], options=options or None)
        except TypeError as error:
            if "reset() got an unexpected keyword argument" not in str(error):
                raise
            raise ValueError(
                f"reset of {called(self.inner)} does not take what Gymnasium's resets take ({error}); write it as "
                "def reset(self, *, seed=None, options=None)"
            ) from error
        if self._new_task:
            self._refuse_changes(given)
        self._new_task = False
        return observation, info

    def _refuse_other_value(self, name: str, value: Any, found: Any) -> None:
        if _certainly_differs(found, value):
            raise ValueError(
                f"{called(self.inner)} takes the value {value} of the parameter {name!r} and then has {found}; give a "
                "range within what it takes, or name a method that sets it, as in set"
            )

    def _refuse_changes(self, given: dict[str, Any]) -> None:
        """Raise an error if a task has changed the spaces, or reset has changed a value that the task gave."""
        for what in ("observation_space", "action_space"):
            own, found = getattr(self, what), getattr(self.inner, what)
            if own != found:
                raise ValueError(
                    f"task {task_tools.plain(self._task)} changes the {what} from {own} to {found}; a parameter "
                    "must leave the spaces as they are"
                )
        for name, value in given.items():
            found = self._targets[name].get(self.inner)
            if _certainly_differs(found, value):
                raise ValueError(
                    f"reset of {called(self.inner)} overwrites the parameter {name!r}: the task set it to {value}, and "
                    f"after reset it is {found}; let reset keep the value that it finds, name the argument of the "
                    "constructor or the value from which reset takes it, or name a method that sets it for good, as in "
                    f"set = {{{name!r}: 'set_it'}}"
                )

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            ValueError: the action is not finite.
        """
        if isinstance(self.action_space, spaces.Box) and not np.isfinite(action).all():
            raise ValueError(f"the action of {self._inner_spec.id} is {action}; expected finite numbers")
        # As it is: whoever plays checks what the environment returns, and names it.
        answer: Any = self.inner.step(action)
        return answer  # type: ignore[no-any-return]

    def render(self) -> Any:
        """Draw what the environment draws; None where ``render_mode`` is None."""
        return None if self.render_mode is None else self.inner.render()

    def close(self) -> None:
        """Close the environment; where it cannot be closed, a warning says so."""
        for env in self._made.values():
            close_or_warn(env)
        self._made.clear()


def _spec(name: str) -> EnvSpec:
    module, separator, short = name.rpartition(":")
    try:
        if separator and not stays_here(name):
            loaded = importlib.import_module(module)
            if short not in gymnasium.registry and hasattr(loaded, "register_envs"):
                loaded.register_envs()
            if short not in gymnasium.registry and hasattr(loaded, short.partition(".")[0]):
                return unregistered(name)
        if separator and stays_here(name) and short not in gymnasium.registry:
            return unregistered(name)
        return gymnasium.spec(short)
    except ImportError as error:
        raise ValueError(
            f"the module of env {name!r} cannot be imported ({error}); {how_to_install(module)}"
        ) from error
    except gymnasium.error.Error as error:
        raise ValueError(f"env {name!r} is unknown ({error}); 'module:Id' imports the module first") from error


def _required(spec: EnvSpec) -> set[str]:
    """Return the names of the arguments without which the environment cannot be made."""
    known, _ = constructors.constructor_arguments(spec)
    return {name for name, default in known.items() if default is inspect.Parameter.empty and name not in spec.kwargs}


def _wrapper(wrapper: str | Callable[..., Any]) -> Any:
    if callable(wrapper):
        return wrapper
    if isinstance(wrapper, str) and ":" in wrapper:
        try:
            return resolve(wrapper)
        except ValueError as error:
            raise ValueError(f"the wrapper {wrapper!r} cannot be imported ({error})") from error
    raise ValueError(
        f"the wrapper is {wrapper!r}; expected 'module:Class', as in "
        "'minigrid.wrappers:ImgObsWrapper', or a class or function"
    )


def _plain_attributes(env: gymnasium.Env[Any, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of an environment that are numbers, truth values or texts, among some names."""
    found = {name: getattr(env.unwrapped, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, numbers.Real | str)}


def _certainly_differs(one: Any, other: Any) -> bool:
    """Whether two numbers, arrays of numbers or texts differ by more than rounding; False for anything else."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one != other)
    try:
        return not np.allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=1e-5, equal_nan=True)
    except (TypeError, ValueError):  # no numbers, or other shapes
        return False


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; arrays in every entry."""
    return (
        bool(np.array_equal(one, other))
        if isinstance(one, np.ndarray) or isinstance(other, np.ndarray)
        else one == other
    )
