"""Tasks: elements of a family's task space, single or in batches.

A batch is an element of ``gymnasium.vector.utils.batch_space(task_space, n)``: an array, or a dict or tuple of arrays,
whose first axis is the task.
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

Task = Any
SPLITS = ("train", "validation", "test")
SEEDS = 2**31  # counted seeds stay below
BATCHED_SPACES = "build it of Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple spaces"


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return a value as an int.

    Raises:
        ValueError: the value is no whole number or is smaller than ``least``; the message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}")
    return int(value)


def attribute(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], name: str, default: Any = None) -> Any:
    """Return an attribute of a family, looked up through its wrappers; ``default`` where there is none."""
    if isinstance(env, VectorEnv):
        return getattr(env.unwrapped, name, default)
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def family_name(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> str:
    """Return the id a family was registered under, or its class's name."""
    return str(env.spec.id) if env.spec is not None else type(env.unwrapped).__name__


def task_space(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> spaces.Space[Any]:
    """Return the task space of a family.

    Raises:
        TypeError: the environment has no ``task_space``, so it is no family; or it is no environment.
    """
    given: object = env
    if not isinstance(given, gymnasium.Env | VectorEnv):
        made = f"metarl.make({given!r})" if isinstance(given, str) else "metarl.make('metarl/Navigation2D-v0')"
        raise TypeError(f"the family is {short(given)}; expected an environment of it, as {made} returns")
    space = attribute(env, "task_space")
    if not isinstance(space, spaces.Space):
        raise TypeError(
            f"{family_name(env)} is no environment family: its task_space is {space!r}, expected a gymnasium.Space; "
            "leave the environment as it is and name what varies, with metarl.parameterized(..., name=(low, high)) or "
            f"as 'metarl/Parameterized-v0' with env={family_name(env)!r} and parameters={{'name': [low, high]}}; or "
            "give it a task_space attribute"
        )
    return space


def as_task(family: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], value: Any) -> Task:
    """Turn what a person writes (lists, Python numbers, JSON) into an element of the family's task space.

    Raises:
        ValueError: the value has another structure or shape, lies outside the space, or is refused by the family's
            own ``check_task``; the message names the key or part that is wrong.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str | list | tuple)
    if several or (isinstance(value, list | tuple) and value and all(isinstance(entry, dict) for entry in value)):
        raise ValueError(
            f"a sequence of tasks (of length {len(value)}) is given where one task of {family_name(family)} is "
            "expected; give one of them, as in tasks[0]"
        )
    task = _element(task_space(family), value, f"task {short(value)} of {family_name(family)}")
    check = attribute(family, "check_task")
    if check is not None:
        check(task)
    return task


def _element(space: spaces.Space[Any], value: Any, what: str) -> Task:
    if isinstance(space, spaces.Dict):
        if not isinstance(value, dict) or set(value) != set(space.spaces):
            raise ValueError(f"{what} does not fit: expected a dict with the keys {sorted(space.spaces)}")
        return {key: _element(part, value[key], f"{what}, key {key!r},") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != len(space.spaces):
            raise ValueError(f"{what} does not fit: expected {len(space.spaces)} parts")
        return tuple(
            _element(part, entry, f"{what}, part {index},")
            for index, (part, entry) in enumerate(zip(space.spaces, value, strict=True))
        )
    if isinstance(space, spaces.Discrete):
        number = isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu"
        whole = number or isinstance(value, numbers.Integral)
        if not whole or isinstance(value, bool) or not space.contains(space.dtype.type(value)):
            last = space.start + space.n - 1
            raise ValueError(f"{what} is outside its space: expected a whole number from {space.start} to {last}")
        return space.dtype.type(value)
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        return _array_element(space, value, what)
    if isinstance(space, spaces.Text):
        if not isinstance(value, str) or not space.contains(str(value)):
            raise ValueError(
                f"{what} is outside its space: expected a text of {space.min_length} to {space.max_length} of the "
                f"characters {space.characters!r}"
            )
        return str(value)
    if not space.contains(value):
        raise ValueError(f"{what} is outside its space {space}")
    return value


def _array_element(space: spaces.Space[Any], value: Any, what: str) -> Task:
    try:
        given = np.asarray(value)
        with np.errstate(over="ignore"):
            array = given.astype(space.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what} does not fit: expected numbers of shape {space.shape}") from error
    if given.dtype.kind not in "iuf" or array.shape != space.shape:
        raise ValueError(
            f"{what} does not fit: it has shape {given.shape} and type {given.dtype}, "
            f"expected numbers of shape {space.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{what} is not finite; expected finite numbers")
    if not space.contains(array) or (array.dtype.kind in "iu" and (array != given).any()):
        limits = f" with entries from {space.low} to {space.high}" if isinstance(space, spaces.Box) else ""
        raise ValueError(f"{what} is outside its space: expected an element of {space}{limits}")
    return array


def short(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def can_be_batched(space: spaces.Space[Any]) -> bool:
    """Whether elements of a space can be stacked into arrays whose first axis is the task."""
    if isinstance(space, spaces.Dict):
        return all(can_be_batched(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return all(can_be_batched(part) for part in space.spaces)
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Text)


def stack_tasks(space: spaces.Space[Any], tasks: Sequence[Task]) -> Any:
    """Stack single tasks into a batch with a first axis of ``len(tasks)``; texts become an array of texts.

    Raises:
        ValueError: the space has parts that cannot be stacked, such as sequences and graphs.
    """
    if isinstance(space, spaces.Dict):
        return {key: stack_tasks(part, [task[key] for task in tasks]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack_tasks(part, [task[index] for task in tasks]) for index, part in enumerate(space.spaces))
    if isinstance(space, spaces.Text):
        return np.array(tasks, dtype=np.str_)
    if not can_be_batched(space):
        raise ValueError(f"elements of {space} cannot be stacked into arrays; {BATCHED_SPACES}")
    return concatenate(space, tasks, create_empty_array(space, n=len(tasks)))  # type: ignore[arg-type]


def unstack_tasks(space: spaces.Space[Any], batch: Any) -> list[Task]:
    """Return the single tasks of a batch as a list."""
    batch = _arrays(batch)
    if isinstance(space, spaces.Dict):
        parts = [unstack_tasks(part, batch[key]) for key, part in space.spaces.items()]
        return [dict(zip(space.spaces, entries, strict=True)) for entries in zip(*parts, strict=True)]
    if isinstance(space, spaces.Tuple):
        columns = [unstack_tasks(part, entries) for part, entries in zip(space.spaces, batch, strict=True)]
        return list(zip(*columns, strict=True))
    if isinstance(space, spaces.Text):
        return [str(text) for text in batch]
    tasks = iterate(batch_space(space, count_tasks(batch)), batch)
    # Iteration gives scalars of a box without axes, which contains zero-dimensional arrays.
    return [np.asarray(task) if isinstance(space, spaces.Box) else task for task in tasks]


def _arrays(batch: Any) -> Any:
    """Return the arrays of a ``Tasks`` sequence; a batch is returned as it is."""
    return getattr(batch, "batch", batch)


def count_tasks(batch: Any) -> int:
    """Return how many tasks a batch holds."""
    batch = _arrays(batch)
    while isinstance(batch, dict | tuple):
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return len(batch)


def spread_seed(seed: Any, num_envs: int) -> Any:
    """Return one seed for each sub-environment.

    Args:
        seed: a number, from which the seeds are counted up as in Gymnasium, but stay below 2**31, since the seeds of
            many simulators are C integers; or one for each sub-environment, which are kept; or None.
        num_envs: how many sub-environments.

    Raises:
        ValueError: there is another number of seeds.
    """
    if seed is None or isinstance(seed, int | np.integer):
        return [None if seed is None else (int(seed) + i) % SEEDS for i in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"{len(seed)} seeds for {num_envs} sub-environments; expected one for each")
    return seed


def take_tasks(batch: Any, indices: Any) -> Any:
    """Return some tasks of a batch as a batch, or one of them; ``indices`` is whatever indexes a numpy array."""
    batch = _arrays(batch)
    if isinstance(batch, dict):
        return {key: take_tasks(part, indices) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(take_tasks(part, indices) for part in batch)
    return np.asarray(batch)[indices]


def repeat_tasks(batch: Any, times: int) -> Any:
    """Repeat each task ``times`` times before the next one comes, as the episodes of tasks are ordered in a batch."""
    return take_tasks(batch, np.repeat(np.arange(count_tasks(batch)), times))


def to_vectors(space: spaces.Space[Any], batch: Any) -> NDArray[np.float64]:
    """Return a batch of tasks as vectors ``[task, number]``, elements of ``gymnasium.spaces.flatten_space(space)``.

    A discrete entry becomes a one-hot vector; the entries of a dict follow in the order of its keys.

    Raises:
        ValueError: the space has texts, for which there are no such numbers.
    """
    if has_texts(space):
        raise ValueError(
            f"tasks of {space} have texts, which cannot be turned into numbers; use a Discrete space, whose elements "
            "stand for the texts"
        )
    single = unstack_tasks(space, batch)
    return np.stack([np.asarray(spaces.flatten(space, task), dtype=np.float64) for task in single])


def has_texts(space: spaces.Space[Any]) -> bool:
    """Whether elements of a space have texts in them."""
    if isinstance(space, spaces.Dict):
        return any(has_texts(part) for part in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return any(has_texts(part) for part in space.spaces)
    return isinstance(space, spaces.Text)


def from_vectors(space: spaces.Space[Any], vectors: NDArray[np.float64]) -> Any:
    """Return the batch of tasks from which ``to_vectors`` made these vectors ``[task, number]``."""
    return stack_tasks(space, [spaces.unflatten(space, vector) for vector in vectors])


def plain(task: Task) -> Any:
    """Return a task or a batch of tasks as dicts, lists and Python numbers, which JSON can hold."""
    task = _arrays(task)
    if isinstance(task, dict):
        return {key: plain(part) for key, part in task.items()}
    if isinstance(task, tuple):
        return [plain(part) for part in task]
    return task.tolist() if isinstance(task, np.ndarray | np.generic) else task


def draw_tasks(
    family: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], n: int, rng: np.random.Generator, split: str
) -> Any:
    """Draw a batch of ``n`` tasks with the family's ``sample_tasks``, or uniformly from its task space if it has none.

    Raises:
        ValueError: ``n`` is not positive, or ``split`` is not train, validation or test.
    """
    n = whole_number("the number of tasks", n)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    own = attribute(family, "sample_tasks")
    return uniform_tasks(task_space(family), n, rng) if own is None else own(n, rng, split)


def uniform_tasks(space: spaces.Space[Any], n: int, rng: np.random.Generator) -> Any:
    """Draw a batch of ``n`` elements of a space, as its ``sample`` does."""
    # A generator of its own; the spaces within another one have theirs, so those are copied too.
    has_parts = not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    space = copy.deepcopy(space) if has_parts else copy.copy(space)
    space.seed(int(rng.integers(2**31)))
    if type(space) is spaces.Box and space.dtype.kind == "f" and space.is_bounded():
        # The same numbers as those of single samples, which take a hundred times as long.
        return space.np_random.uniform(space.low, space.high, (n, *space.shape)).astype(space.dtype)
    return stack_tasks(space, [space.sample() for _ in range(n)])


def task_rng(seed: int, split: str, *key: int) -> np.random.Generator:
    """Return the generator from which the tasks of a split are drawn; each split and ``key`` has its own.

    Raises:
        ValueError: ``split`` is not train, validation or test, or the seed is negative.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    seed = whole_number("the seed", seed, least=0)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), *key)))
