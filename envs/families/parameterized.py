"""Any Gymnasium environment as a family whose tasks are values of named parameters, ``Parameterized-v0``."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from metarl.envs import tasks as task_tools
from metarl.envs.families import constructors, model_fields, parameters

KEPT = 8  # how many environments are kept, each made with other constructor arguments
EXAMPLE = "as in env = 'CartPole-v1', parameters = {gravity = [5, 15]}"


class ParameterizedEnv(gymnasium.Env[Any, Any]):
    """A Gymnasium environment whose named parameters vary (``metarl/Parameterized-v0``).

    ``family_kwargs = {env = "CartPole-v1", parameters = {gravity = [5, 15]}}`` in TOML;
    ``metarl.make("metarl/Parameterized-v0", env="CartPole-v1", parameters={"gravity": [5, 15]})`` in Python. Without
    arguments it is this example.

    - **What varies** (the task): a dict, parameter to number or to index of a choice, uniform. **Hidden**: the
      observation is the environment's own, so it shows of the task what the environment shows.
    - **Parameters**: a field of a MuJoCo model, of all its bodies or one (``"body_mass"``, ``"body_mass/torso"``,
      ``"geom_friction/floor/0"``, ``"opt/gravity"``); an argument of the constructor, for which the environment is made
      anew; a key of a configuration dictionary ``config``; an attribute of the unwrapped environment. The first of
      these that there is. What Gymnasium's CartPole and MuJoCo derive from them follows.
    - **Ranges**: ``[low, high]``; ``{low, high, integer = true}`` for whole numbers; ``{choices = [...]}``. A number
      multiplies the value of a model's field (``{low, high, as = "absolute"}`` replaces it, where it is one number) and
      replaces any other (``as = "scale"`` multiplies it).
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
        env: an environment's id, or ``module:Id`` to import the module first; a module's ``register_envs()`` is called
            where it is needed.
        parameters: name to range.
        wrappers: wrappers around the environment, innermost first, each as ``module:Class``.
        env_kwargs: arguments of the environment that do not vary.
        render_mode: the environment's.

    Raises:
        ValueError: there is no such parameter; an argument is ignored by the environment; a range or wrapper is none;
            or only one of ``env`` and ``parameters`` is given.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]
    observation_reveals_task = True  # as far as the environment's own does

    def __init__(
        self,
        env: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        wrappers: Sequence[str] = (),
        env_kwargs: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if env is None and parameters is None:
            env, parameters = "CartPole-v1", {"gravity": [5.0, 15.0]}
        if not isinstance(env, str) or not isinstance(parameters, Mapping) or not parameters:
            raise ValueError(f"env is {env!r} and parameters is {parameters!r}; expected both, {EXAMPLE}")
        self.render_mode = render_mode
        self._limit: int | None = None
        self._inner_spec = _spec(env)
        self._wrappers = [_wrapper(name) for name in wrappers]
        self._fixed = copy.deepcopy(dict(env_kwargs or {}))
        self._made: dict[tuple[str, ...], gymnasium.Env[Any, Any]] = {}
        self.inner = self._make({})
        self._refuse_unused()
        self.metadata = self.inner.metadata  # type: ignore[misc]
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space
        self._ranges: dict[str, Any] = {}
        self._targets: dict[str, Any] = {}
        for name, written in parameters.items():
            self._add(name, written)
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
        if key not in self._made:
            self._made[key] = self._construct({**self._fixed, **arguments})
        env = self._made[key] = self._made.pop(key)  # the last one is the last used
        for old in list(self._made)[:-KEPT]:
            self._made.pop(old).close()
        return env

    def _construct(self, arguments: dict[str, Any]) -> gymnasium.Env[Any, Any]:
        """Make the environment, with its time limit innermost, as with ``gymnasium.make``, and then the wrappers."""
        env = gymnasium.make(
            self._inner_spec,
            max_episode_steps=self._limit,
            disable_env_checker=True,
            # Not every constructor has a render_mode.
            **({} if self.render_mode is None else {"render_mode": self.render_mode}),
            **constructors.mutable_defaults(self._inner_spec.entry_point, {**self._inner_spec.kwargs, **arguments}),
            **copy.deepcopy(arguments),
        )
        constructors.separate_configuration(env)
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
                raise parameters.ignored(self.inner, self._inner_spec, name)
            without.close()
            absurd.close()

    def _add(self, name: str, written: Any) -> None:
        """Find a parameter in the environment."""
        target = parameters.find_target(self.inner, self._inner_spec, name, self._fixed)
        is_field = isinstance(target, model_fields.ModelField)
        one = parameters.read_range(name, written, scale_by_default=is_field)
        if target is None:  # the constructor takes arguments that it does not name: it is asked
            target = parameters.Argument(name, self._fixed.get(name))
            try:
                low, high = (self._make({name: one.value(entry, 1.0)}) for entry in one.ends())
            except TypeError as error:
                raise parameters.unknown(self.inner, self._inner_spec, name) from error
            if constructors.same_state(low, high):
                raise parameters.ignored(self.inner, self._inner_spec, name)
        if one.scale and (isinstance(target.own, bool) or not isinstance(target.own, float | int | np.ndarray)):
            raise ValueError(f"parameter {name!r} is {target.own!r}, which cannot be scaled; leave out as = 'scale'")
        if not one.scale and isinstance(target.own, np.ndarray):
            raise ValueError(
                f"parameter {name!r} has the shape {target.own.shape}, so it is scaled; only one number can be replaced"
            )
        self._ranges[name], self._targets[name] = one, target

    def _apply(self) -> None:
        """Give the environment the values of the task."""
        values = {name: one.value(self._task[name], self._targets[name].own) for name, one in self._ranges.items()}
        arguments = {name: values[name] for name in values if isinstance(self._targets[name], parameters.Argument)}
        self.inner = self._make(arguments)
        fields = False
        for name, value in values.items():
            if name not in arguments:
                self._targets[name].set(self.inner, value)
                fields = fields or isinstance(self._targets[name], model_fields.ModelField)
        if fields:
            model_fields.derive(self.inner)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given.

        Raises:
            ValueError: the task is outside the task space, or changes the observation or action space.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        task = options.pop("task", None)
        if task is not None:
            self._task = task_tools.as_task(self, task)
            self._new_task = True
        if self._new_task:
            before = self.inner
            self._apply()
            if seed is None and self.inner is not before:
                seed = int(self.np_random.integers(2**31))  # the other environment has not drawn from our seed
        observation, info = self.inner.reset(seed=task_tools.spread_seed(seed, 1)[0], options=options or None)
        if self._new_task:
            for what in ("observation_space", "action_space"):
                own, found = getattr(self, what), getattr(self.inner, what)
                if own != found:
                    raise ValueError(
                        f"task {task_tools.plain(self._task)} changes the {what} from {own} to {found}; a parameter "
                        "must leave the spaces as they are"
                    )
        self._new_task = False
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            ValueError: the action is not finite.
        """
        if isinstance(self.action_space, spaces.Box) and not np.isfinite(action).all():
            raise ValueError(f"the action of {self._inner_spec.id} is {action}; expected finite numbers")
        observation, reward, terminated, truncated, info = self.inner.step(action)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Draw what the environment draws; None where ``render_mode`` is None."""
        return None if self.render_mode is None else self.inner.render()

    def close(self) -> None:
        """Close the environment."""
        for env in self._made.values():
            env.close()
        self._made.clear()


def _spec(name: str) -> EnvSpec:
    module, separator, short = name.rpartition(":")
    try:
        if separator:
            loaded = importlib.import_module(module)
            if short not in gymnasium.registry and hasattr(loaded, "register_envs"):
                loaded.register_envs()
        return gymnasium.spec(short)
    except ImportError as error:
        raise ValueError(f"the module of env {name!r} cannot be imported ({error}); install its package") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"env {name!r} is unknown ({error}); 'module:Id' imports the module first") from error


def _wrapper(name: Any) -> Any:
    module, separator, short = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    try:
        if separator:
            return getattr(importlib.import_module(module), short)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the wrapper {name!r} cannot be imported ({error})") from error
    raise ValueError(f"the wrapper is {name!r}; expected 'module:Class', as in 'minigrid.wrappers:ImgObsWrapper'")
