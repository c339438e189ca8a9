"""Finds families by their names and makes their environments; environments are made nowhere else.

A family is an environment in Gymnasium's registry, or a class or function that makes one (``module:Name``). It gets
into
the registry in one of four ways: metarl ships it; an installed package names the module that registers it in the
entry-point group ``metarl.envs``; the name says which module to import (``module:Id-v0``); or the program has
registered
it before.
"""

from __future__ import annotations

import copy
import difflib
import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TransformAction
from gymnasium.wrappers.vector import TransformAction as VectorTransformAction

from metarl.envs import tasks as task_tools
from metarl.envs.actions import is_standard, standard_actions
from metarl.envs.batched import BatchedFamily
from metarl.envs.families.beyond import ARGUMENT, widen
from metarl.envs.families.constructors import mutable_defaults
from metarl.envs.families.parameterized import ParameterizedEnv
from metarl.envs.references import Family, as_family, resolve, stays_here, unregistered, unregistered_id
from metarl.envs.sequence import Tasks
from metarl.envs.single import SingleFamily
from metarl.envs.sync import SyncFamilyVectorEnv, close_or_warn
from metarl.envs.wrappers import FixedTask

ENTRY_POINT_GROUP = "metarl.envs"

LONGEST_MESSAGE = 500  # characters

FamilyLike = str | Family | Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One line of the list of installed families.

    Attributes:
        id: the family's; or, with a fault, the module that a package names.
        source: ``metarl`` or the name of the entry point.
        batched: whether it has a batched implementation.
        fault: the error of a package that cannot be imported, else None.
    """

    id: str
    source: str
    batched: bool
    fault: str | None = None


# The families that metarl ships: id, "module:Class" and time limit. The batched class has the same name with VectorEnv
# instead of Env.
OWN = (
    ("Navigation2D-v0", "navigation:Navigation2DEnv", 100),
    ("HalfCircleNavigation2D-v0", "half_circle:HalfCircleNavigation2DEnv", 20),
    ("CornerNavigation2D-v0", "corner:CornerNavigation2DEnv", 100),
    ("BernoulliBandit-v0", "bandits:BernoulliBanditEnv", None),
    ("GaussianBandit-v0", "bandits:GaussianBanditEnv", None),
    ("TabularMDP-v0", "mdp:TabularMDPEnv", 10),
    ("CartPoleParams-v0", "cartpole:CartPoleParamsEnv", 500),
    ("PendulumParams-v0", "pendulum:PendulumParamsEnv", 200),
    ("MountainCarContinuousParams-v0", "mountain_car:MountainCarContinuousParamsEnv", 999),
    ("AcrobotParams-v0", "acrobot:AcrobotParamsEnv", 500),
    ("Dosing-v0", "dosing:DosingEnv", None),
    ("Recommend-v0", "recommend:RecommendEnv", None),
    ("Labelled-v0", "labelled:LabelledEnv", None),  # its data sets need the extra [data]
    # With the extra [mujoco].
    ("HalfCheetahDir-v0", "half_cheetah:HalfCheetahDirEnv", 200),
    ("HalfCheetahVel-v0", "half_cheetah:HalfCheetahVelEnv", 200),
    ("AntDir-v0", "ant:AntDirEnv", 200),
    ("AntVel-v0", "ant:AntVelEnv", 200),
    ("AntGoal-v0", "ant:AntGoalEnv", 200),
    ("Walker2DParams-v0", "random_physics:Walker2DParamsEnv", 200),
    ("HopperParams-v0", "random_physics:HopperParamsEnv", 200),
    ("HumanoidDir-v0", "humanoid:HumanoidDirEnv", 200),
)

# Families without a batched implementation, stepped in other processes where that is faster.
SINGLE: tuple[tuple[str, str, int], ...] = (
    ("MetaWorld-v0", "metaworld:MetaWorldEnv", 500),  # needs an environment of its own: make metaworld
    # With the extra [games].
    ("MinAtar-v0", "minatar:MinAtarEnv", 100),
    ("MiniGrid-v0", "minigrid:MiniGridEnv", 50),
    ("Instructions-v0", "instructions:InstructionsEnv", 30),
)


def register_own() -> None:
    """Register the families that metarl ships; calling it again changes nothing."""
    for name, single, limit in OWN:
        if f"metarl/{name}" not in gymnasium.registry:
            gymnasium.register(
                id=f"metarl/{name}",
                entry_point=f"metarl.envs.families.{single}",
                vector_entry_point=f"metarl.envs.families.{single.removesuffix('Env')}VectorEnv",
                max_episode_steps=limit,
            )
    for name, single, limit in SINGLE:
        if f"metarl/{name}" not in gymnasium.registry:
            gymnasium.register(
                id=f"metarl/{name}", entry_point=f"metarl.envs.families.{single}", max_episode_steps=limit
            )
    if "metarl/Parameterized-v0" not in gymnasium.registry:
        gymnasium.register(
            id="metarl/Parameterized-v0", entry_point="metarl.envs.families.parameterized:ParameterizedEnv"
        )


def list_families() -> list[Listing]:
    """Return the installed families, metarl's first; a package that cannot be imported is listed with its fault."""
    listings = [
        Listing(id=name, source="metarl", batched=spec.vector_entry_point is not None)
        for name, spec in sorted(gymnasium.registry.items())
        if spec.namespace == "metarl"
    ]
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            entry.load()
        except Exception as error:  # a broken plug-in must not hide the others
            fault = f"{type(error).__name__}: {error}"
            listings.append(Listing(id=entry.value, source=entry.name, batched=False, fault=fault))
            continue
        package = entry.module.partition(".")[0]
        for name, spec in sorted(gymnasium.registry.items()):
            if isinstance(spec.entry_point, str) and spec.entry_point.partition(":")[0].split(".")[0] == package:
                batched = spec.vector_entry_point is not None
                listings.append(Listing(id=name, source=entry.name, batched=batched))
    return listings


def find_family(family: str) -> EnvSpec:
    """Return the registration of a family.

    Args:
        family: its id; ``module:Id``, to import the module first; or ``module:Name``, where the name is that of a class
            or function in the module, which makes the environments.

    Raises:
        ValueError: there is no such family, and the message names the nearest; or its module cannot be imported.
    """
    if not isinstance(family, str) or not family:
        raise ValueError(f"the family is {family!r}; expected its id, as in 'metarl/Navigation2D-v0'")
    module, separator, name = family.rpartition(":")
    if separator and not stays_here(family):
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ValueError(
                f"the module of family {family!r} cannot be imported ({type(error).__name__}: {error})"
            ) from error
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    if separator:
        return _unregistered(family)
    listings = list_families()
    if name not in gymnasium.registry:
        known = [listing.id for listing in listings if listing.fault is None]
        by_lower = {known_id.lower(): known_id for known_id in known}
        short = {known_id.rpartition("/")[2].lower(): known_id for known_id in known}
        near = difflib.get_close_matches(name.lower(), [*by_lower, *short], n=5, cutoff=0.4)
        names = list(dict.fromkeys(by_lower.get(match) or short[match] for match in near))
        hint = f"the nearest are {', '.join(names)}" if names else f"installed are {', '.join(known)}"
        raise ValueError(
            f"unknown family {family!r}; {hint}; 'metarl envs' lists all, and 'module:Id-v0' names one of yours"
        )
    return gymnasium.registry[name]


def _unregistered(family: str) -> EnvSpec:
    """Return a registration, outside the registry, of a class or function ``module:Name``."""
    try:
        made_by = resolve(family)
    except ValueError as error:
        raise ValueError(f"{error}, and it registers no environment of this name") from error
    if isinstance(made_by, type) and issubclass(made_by, BatchedFamily):
        batched = unregistered_id(family)
        one: Any = functools.partial(_one_of, made_by)
        many: Any = made_by
        return EnvSpec(batched, entry_point=one, vector_entry_point=many)
    return unregistered(family)


def _one_of(batched: type[BatchedFamily], **kwargs: Any) -> SingleFamily:
    """Return the single environment of a batched family that has no class for it."""
    return SingleFamily(batched(1, **kwargs))


def make(family: FamilyLike, task: Any = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Make a single environment of a family; a bounded box of actions is mapped to [-1, 1].

    Args:
        family: an id or ``module:Id``, a ``Family``, or a class or function that makes an environment.
        task: the task of every episode for which ``reset`` names no other; anything that ``as_task`` takes.
        kwargs: arguments of the family's constructor, ``max_episode_steps``, ``render_mode``, and ``beyond_ranges``,
            how far beyond its ranges tasks may lie, in their widths. The environment gets deep copies, so nothing that
            it keeps and changes is shared with the caller or another environment.

    Raises:
        ValueError: unknown family, arguments that its constructor does not take or that cannot be copied, or a task
            outside its space.
        TypeError: there is no task space, or what the function makes is no environment.
    """
    family, kwargs = as_family(family, kwargs)
    kwargs = _own_copy(family, kwargs)
    beyond = kwargs.pop(ARGUMENT, None)
    spec = _limited(find_family(family), kwargs)
    kwargs |= mutable_defaults(spec.entry_point, {**spec.kwargs, **kwargs})
    env = _construct(spec, lambda: gymnasium.make(spec, **kwargs))
    if isinstance(env.unwrapped, SingleFamily | ParameterizedEnv):
        env.unwrapped.max_episode_steps = spec.max_episode_steps
    task_tools.task_space(env)
    if beyond is not None:
        widen(env, beyond)
    mapped = standard_actions(env.action_space)
    if mapped is not None and not (is_standard(env.action_space) and isinstance(env.unwrapped, SingleFamily)):
        env = TransformAction(env, mapped[1], mapped[0])
    return env if task is None else FixedTask(env, task)


def own_env(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Return the environment inside the mapping of actions of ``make``, without a fixed task."""
    while isinstance(env, FixedTask):
        env = env.env
    if isinstance(env, TransformAction) and standard_actions(env.env.action_space) is not None:
        return env.env
    return env


def own_actions(env: gymnasium.Env[Any, Any]) -> spaces.Space[Any]:
    """Return the environment's own action space, as it was before ``make`` mapped it."""
    return own_env(env).action_space


def make_vec(family: FamilyLike, num_envs: int, **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """Make ``num_envs`` environments of a family as one vector environment; actions are as with ``make``.

    It is the family's own batched implementation, if there is one, or else steps single environments one by one.

    Raises:
        ValueError: unknown family, or arguments that its constructor does not take or that cannot be copied.
        TypeError: the environment has no task space.
    """
    family, kwargs = as_family(family, kwargs)
    kwargs = _own_copy(family, kwargs)
    num_envs = task_tools.whole_number("num_envs", num_envs)
    spec = find_family(family)
    if spec.vector_entry_point is None:
        # Gymnasium's checker helps people who write environments, but slows every step down.
        return SyncFamilyVectorEnv([lambda: make(family, **{"disable_env_checker": True, **kwargs})] * num_envs)
    beyond = kwargs.pop(ARGUMENT, None)
    spec = _limited(spec, kwargs)
    kwargs |= mutable_defaults(spec.vector_entry_point, {**spec.kwargs, **kwargs})
    env: VectorEnv[Any, Any, Any] = _construct(
        spec,
        lambda: gymnasium.make_vec(spec, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs),
    )
    task_tools.task_space(env)
    if beyond is not None:
        widen(env, beyond)
    mapped = standard_actions(env.single_action_space)
    if mapped is not None and not (is_standard(env.single_action_space) and isinstance(env.unwrapped, BatchedFamily)):
        env = VectorTransformAction(env, mapped[1], single_action_space=mapped[0])
    return env


def _own_copy(family: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    copies = {}
    for name, value in kwargs.items():
        try:
            copies[name] = copy.deepcopy(value)
        except Exception as error:  # an argument's own copying may raise anything
            raise ValueError(
                f"the argument {name!r} of family {family} cannot be copied ({type(error).__name__}: {error}), but "
                "every environment needs a copy of its own; give one that copy.deepcopy accepts, such as numbers, "
                "texts, lists and dicts"
            ) from error
    return copies


def _limited(spec: EnvSpec, kwargs: dict[str, Any]) -> EnvSpec:
    """Move ``max_episode_steps`` from the arguments into a copy of the registration, where Gymnasium looks for it."""
    if "max_episode_steps" not in kwargs:
        return spec
    limit = task_tools.whole_number("max_episode_steps", kwargs.pop("max_episode_steps"))
    spec = copy.deepcopy(spec)
    spec.max_episode_steps = limit
    return spec


def _construct(spec: EnvSpec, construct: Any) -> Any:
    try:
        return construct()
    except KeyboardInterrupt:
        raise
    except (TypeError, ValueError, ImportError, gymnasium.error.Error) as error:
        raise ValueError(f"family {spec.id} cannot be made: {_cut(str(error))}") from error
    except BaseException as error:  # a constructor may raise anything, sys.exit as well
        raise ValueError(f"family {spec.id} cannot be made: {type(error).__name__}: {error}") from error


def _cut(text: str) -> str:
    """Return a message without the end of a long one, in which Gymnasium repeats all arguments."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} ..."


def sample_tasks(family: FamilyLike, n: int, seed: int = 0, split: str = "train", **kwargs: Any) -> Tasks:
    """Draw ``n`` tasks of a family; the same arguments give the same tasks.

    The tasks on which ``metarl train`` evaluates are ``sample_tasks(family, n, seed=<its seed>, split="test")``.

    Args:
        family: an id, or ``module:Id``.
        n: how many.
        seed: of the drawing.
        split: ``train``, ``validation`` or ``test``.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: unknown family or split, or ``n`` below 1.
    """
    env = make(family, **kwargs)
    try:
        return Tasks(task_tools.task_space(env), task_tools.draw_tasks(env, n, task_tools.task_rng(seed, split), split))
    finally:
        close_or_warn(env)
