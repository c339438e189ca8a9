"""Tasks as people handle them: a sequence, whatever the task space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools

SHOWN = 10  # how many tasks are printed


class Tasks(Sequence[Any]):
    """Tasks of a family, as ``sample_tasks`` draws them.

    ``tasks[0]`` is a task, with numbers as Python's and arrays as numpy's; ``tasks[:3]`` are tasks. ``tasks["mass"]``
    is
    the array of one entry of all tasks, where they are dicts. ``numpy.asarray(tasks)`` is the array of all, where they
    are no dicts or tuples.

    Attributes:
        space: the task space.
        batch: an element of ``gymnasium.vector.utils.batch_space(space, len(tasks))``: an array, or a dict or tuple of
            arrays, whose first axis is the task.
    """

    def __init__(self, space: spaces.Space[Any], batch: Any) -> None:
        self.space = space
        self.batch = batch

    def __len__(self) -> int:
        return task_tools.count_tasks(self.batch)

    def __getitem__(self, index: Any) -> Any:
        """Return a task, the tasks of a slice or of a list of numbers, or the array of one entry of all."""
        if isinstance(index, str):
            if not isinstance(self.batch, dict):
                raise TypeError(f"the tasks are no dicts, so they have no entry {index!r}; they are {self.space}")
            return self.batch[index]
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there is no task {index}; there are {len(self)}")
            chosen = task_tools.take_tasks(self.batch, [int(index)])
            return _readable(task_tools.unstack_tasks(self.space, chosen)[0])
        return Tasks(self.space, task_tools.take_tasks(self.batch, index))

    def __iter__(self) -> Iterator[Any]:
        return iter([_readable(task) for task in task_tools.unstack_tasks(self.space, self.batch)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tasks):
            return NotImplemented
        return bool(self.space == other.space and task_tools.plain(self.batch) == task_tools.plain(other.batch))

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if isinstance(self.batch, dict | tuple):
            raise TypeError(f"tasks of {self.space} are no single array; take one entry, as in tasks['name']")
        return np.array(self.batch, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        shown = [repr(_short(task_tools.plain(task))) for task in self[:SHOWN]]
        if len(self) > SHOWN:
            shown.append(f"... {len(self)} in all")
        return f"Tasks([{', '.join(shown)}])"


def task_list(family: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any], tasks: Any) -> list[Any]:
    """Return tasks, as a person gives them, as a list of elements of a family's task space.

    Args:
        family: an environment of it.
        tasks: ``Tasks``, a list or another sequence of anything that ``as_task`` takes, or a batch (an array, or a dict
            or tuple of arrays, whose first axis is the task).

    Raises:
        ValueError: there are none, ``tasks`` is a single task or no sequence, or one is outside the task space.
    """
    found = [task_tools.as_task(family, task) for task in _listed(family, tasks)]
    if not found:
        raise ValueError("the sequence of tasks is empty; give at least one task")
    return found


def batch_for(space: spaces.Space[Any], tasks: Any, num_envs: int) -> Any:
    """Return the tasks given to a vector environment as a batch: those of ``Tasks``, of a list, or a batch itself.

    Raises:
        ValueError: there is not one task for each sub-environment.
    """
    if isinstance(tasks, Tasks):
        tasks = tasks.batch
    elif isinstance(tasks, list) and tasks:
        tasks = task_tools.stack_tasks(space, tasks)
    count = task_tools.count_tasks(tasks)
    if count != num_envs:
        raise ValueError(f"{count} tasks for {num_envs} sub-environments; repeat each task for its episodes")
    return tasks


def _listed(family: Any, tasks: Any) -> Iterable[Any]:
    space = task_tools.task_space(family)
    if isinstance(tasks, Tasks):
        return list(tasks)
    if _is_single(space, tasks):
        raise ValueError(f"tasks is the single task {task_tools.short(tasks)}; give a list of tasks, as in [task]")
    if _is_batch(space, tasks):
        try:
            return task_tools.unstack_tasks(space, tasks)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"tasks is no batch of {space} ({error}); give a list of tasks, or arrays of the same length"
            ) from error
    if isinstance(tasks, str | bytes | dict) or not isinstance(tasks, Iterable):
        raise ValueError(
            f"tasks is {task_tools.short(tasks)}; expected a list of tasks of {task_tools.family_name(family)}, as "
            "metarl.sample_tasks draws them"
        )
    return list(tasks)


def _is_single(space: spaces.Space[Any], tasks: Any) -> bool:
    """Whether what should be several tasks is one: an element by its structure, not one of more."""
    if isinstance(space, spaces.Dict):
        return isinstance(tasks, dict) and all(
            key in tasks and _is_single(part, tasks[key]) for key, part in space.spaces.items()
        )
    if isinstance(space, spaces.Tuple):
        return (
            isinstance(tasks, tuple | list)
            and len(tasks) == len(space.spaces)
            and all(_is_single(part, entry) for part, entry in zip(space.spaces, tasks, strict=True))
        )
    if isinstance(space, spaces.Text):
        return isinstance(tasks, str)
    if space.shape is None:
        return False
    try:
        given = np.asarray(tasks)
    except ValueError:  # rows of different lengths
        return False
    return given.dtype.kind in "iufb" and given.shape == space.shape


def _is_batch(space: spaces.Space[Any], tasks: Any) -> bool:
    if isinstance(space, spaces.Dict):
        return isinstance(tasks, dict) and set(tasks) == set(space.spaces)
    if isinstance(space, spaces.Tuple):
        return (
            isinstance(tasks, tuple)
            and len(tasks) == len(space.spaces)
            and all(_is_batch(part, entry) for part, entry in zip(space.spaces, tasks, strict=True))
        )
    return isinstance(tasks, np.ndarray) and tasks.ndim > 0


def _readable(task: Any) -> Any:
    """Return a task with its single numbers as Python's, which print and format as people expect."""
    if isinstance(task, dict):
        return {key: _readable(part) for key, part in task.items()}
    if isinstance(task, tuple):
        return tuple(_readable(part) for part in task)
    if isinstance(task, np.generic) or (isinstance(task, np.ndarray) and task.shape == ()):
        return task.item()
    return task


def _short(value: Any) -> Any:
    """Return plain values with numbers rounded to six digits."""
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
