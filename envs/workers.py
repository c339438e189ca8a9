"""A vector environment whose sub-environments step in several processes, for families that are slow to step.

Each worker process holds some of the sub-environments as a ``SyncFamilyVectorEnv``. Episodes are the same to the last
bit whatever the number of workers. Workers are new processes (``spawn``), which works on every platform and beside
threads. They do not import the program's main module, so a script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import functools
import itertools
import pickle
import time
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.answers import join_infos
from metarl.envs.processes import available_cores, main_left_alone, may_start_processes
from metarl.envs.references import stays_here
from metarl.envs.registry import find_family, make, make_vec
from metarl.envs.sequence import batch_for
from metarl.envs.sync import RolloutError, close_or_warn
from metarl.envs.worker_process import CLOSE_SECONDS, Worker

START_SECONDS = 120.0
# If all sub-environments together take less time for a step, sending it to other processes costs more than it saves.
WORTH_SECONDS = 4e-3
PROBE_STEPS = 50


def registrations_of(family: str, kwargs: dict[str, Any]) -> list[EnvSpec]:
    """Return the registrations that another process needs: the family's, and those of the ids among its arguments."""
    named = [text.rpartition(":")[2] for text in _texts(kwargs)]
    return [find_family(family), *(gymnasium.registry[name] for name in named if name in gymnasium.registry)]


def why_not_elsewhere(family: str, kwargs: dict[str, Any]) -> str | None:
    """Return why another process cannot make the environments of a family, as part of a sentence; or None."""
    for text in (family, *_texts(kwargs)):
        if stays_here(text):
            return f"{text!r} is defined in the main program"
    for spec in registrations_of(family, kwargs):
        made_by = spec.entry_point
        module = made_by.partition(":")[0] if isinstance(made_by, str) else getattr(made_by, "__module__", "__main__")
        if module == "__main__":
            return f"the class of {spec.id} is defined in the main program"
        try:
            pickle.dumps((spec, kwargs))
        except Exception as error:  # an argument's own pickling may raise anything
            return f"{spec.id} or its arguments cannot be sent to another process ({type(error).__name__}: {error})"
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in nested arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(_texts, value))


def choose_workers(family: str, num_envs: int, **kwargs: Any) -> int:
    """Return how many processes should step ``num_envs`` environments of a family.

    It steps one environment for a short time: 1, where its steps are so fast that more processes would not pay, else
    one for each core, but no more than there are sub-environments. 1 also where other processes cannot make the
    environment, which a warning says once, and in a daemonic process, which may not start others.

    Raises:
        ValueError: the family is unknown or cannot be made.
    """
    spec = find_family(family)
    if spec.vector_entry_point is not None or available_cores() == 1 or not may_start_processes():
        return 1
    env = make(family, **{"disable_env_checker": True, **kwargs})
    try:
        seconds = _seconds_per_step(env)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the rollout will meet the same error and name the task
        return 1
    finally:
        close_or_warn(env)
    if seconds * num_envs <= WORTH_SECONDS:
        return 1
    reason = why_not_elsewhere(family, kwargs)
    if reason is not None:
        _say_that_one_process_steps(family, reason)
        return 1
    return min(available_cores(), num_envs)


@functools.cache
def _say_that_one_process_steps(family: str, reason: str) -> None:
    """Warn, once for each family and reason."""
    warnings.warn(
        f"the environments of {family} step in one process, since another could not make them: {reason}; put the class "
        "into a module of its own, and name it 'module:Class', to use all cores",
        UserWarning,
        stacklevel=2,
    )


def make_in_processes(
    family: str, num_envs: int, *, workers: int | str, step_timeout: float, **kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """Return ``num_envs`` environments of a family that step in ``workers`` processes.

    Args:
        family: an id, or ``module:Id``.
        num_envs: how many sub-environments.
        workers: how many processes; ``auto`` is what ``choose_workers`` says, or one where others cannot make the
            environments, which a warning says. A family with a batched implementation steps in this process.
        step_timeout: seconds that a worker may take to reset or step its sub-environments.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: see ``WorkerFamilyVectorEnv``.
    """
    chosen = choose_workers(family, num_envs, **kwargs) if isinstance(workers, str) else workers
    if chosen == 1 or find_family(family).vector_entry_point is not None:
        return make_vec(family, num_envs, **kwargs)
    try:
        return WorkerFamilyVectorEnv(family, num_envs, workers=chosen, step_timeout=step_timeout, **kwargs)
    except (RolloutError, ValueError) as error:
        if not isinstance(workers, str):
            raise
        _say_that_one_process_steps(family, str(error))
        return make_vec(family, num_envs, **kwargs)


def _seconds_per_step(env: gymnasium.Env[Any, Any]) -> float:
    """Return the mean time of a step; resets between episodes do not count."""
    env.reset(seed=0)
    env.action_space.seed(0)
    total = 0.0
    for _ in range(PROBE_STEPS):
        action = env.action_space.sample()
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        total += time.perf_counter() - began
        if terminated or truncated:
            env.reset()
    return total / PROBE_STEPS


class WorkerFamilyVectorEnv(VectorEnv[Any, Any, Any]):
    """Steps single environments of a family in ``workers`` processes.

    ``reset`` and ``step`` take and return the same as those of ``SyncFamilyVectorEnv``. Their ``infos``, too, hold an
    array ``[num_envs]``, float64, for each entry of the environments' infos that is a single number or truth value,
    with NaN where an environment gave no such entry or its episode has ended. A failure ends the workers, so this
    vector environment cannot be used any more; make a new one.

    Attributes:
        workers: the running ``Worker``s, each with the numbers of its sub-environments; empty after ``close``.

    Args:
        family: an id, or ``module:Id``.
        num_envs: how many sub-environments.
        workers: how many processes, at least 1; no more are started than there are sub-environments.
        step_timeout: seconds that a worker may take to reset or step its sub-environments.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: the family is unknown or cannot be made, or lives where no other process can import it; or this
            process is daemonic, so it may not start others.
        RolloutError: by ``reset`` and ``step``: an environment raised an error, its process died, or it takes too long.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]

    def __init__(self, family: str, num_envs: int, *, workers: int, step_timeout: float, **kwargs: Any) -> None:
        self.workers: list[Worker] = []
        self.num_envs = task_tools.whole_number("num_envs", num_envs)
        workers = task_tools.whole_number("workers", workers)
        if not may_start_processes():
            raise ValueError(
                f"workers is {workers}, but this process is daemonic, as those of multiprocessing.Pool are, so it may "
                'not start others; use learning.workers = 1 or "auto"'
            )
        spec = find_family(family)
        reason = why_not_elsewhere(family, kwargs)
        if reason is not None:
            raise ValueError(
                f"family {family} cannot be made in another process: {reason}; put it into a module of its own and "
                'register it as "module:Class", or use learning.workers = 1'
            )
        env = make(family, **{"disable_env_checker": True, **kwargs})
        self.spec = spec
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.task_space: spaces.Space[Any] = task_tools.task_space(env)
        close_or_warn(env)
        self._timeout = step_timeout
        bounds = np.linspace(0, self.num_envs, min(workers, self.num_envs) + 1).astype(int)
        arguments = pickle.dumps((registrations_of(family, kwargs), family, kwargs))
        with main_left_alone():
            self.workers = [Worker(range(low, high), arguments) for low, high in itertools.pairwise(bounds.tolist())]
        self._ask([], START_SECONDS)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes; see ``SyncFamilyVectorEnv.reset``."""
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        batch = options.pop("tasks", None)
        if batch is not None:
            batch = batch_for(self.task_space, batch, self.num_envs)
        seed = task_tools.spread_seed(seed, self.num_envs)
        messages = []
        for worker in self.workers:
            part = slice(worker.indices.start, worker.indices.stop)
            own = {**options, "reset_mask": mask[part]}
            if batch is not None:
                own["tasks"] = task_tools.take_tasks(batch, part)
            messages.append(("reset", list(seed[part]), own))
        parts = self._ask(messages, self._timeout)
        return _join(self.single_observation_space, [part[0] for part in parts]), self._infos(parts)

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the sub-environments whose episode is running."""
        messages = [("step", actions[worker.indices.start : worker.indices.stop]) for worker in self.workers]
        parts = self._ask(messages, self._timeout)
        observations = _join(self.single_observation_space, [part[0] for part in parts])
        rewards, terminated, truncated = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
        return observations, rewards, terminated, truncated, self._infos(parts)

    def _infos(self, parts: list[Any]) -> dict[str, NDArray[Any]]:
        given = [(worker.indices, part[-1]) for worker, part in zip(self.workers, parts, strict=True)]
        return join_infos(given, self.num_envs)

    def _ask(self, messages: list[Any], seconds: float) -> list[Any]:
        """Send each worker its message, if there are any, and return the answers in the order of ``workers``."""
        if not self.workers:
            raise ValueError("the workers are gone after a failure or close(); make a new vector environment")
        deadline = time.monotonic() + seconds
        try:
            for worker, message in zip(self.workers, messages, strict=False):
                worker.send(message)
            return [worker.receive(deadline, seconds) for worker in self.workers]
        except BaseException:
            # An answer left unread would later be taken for the answer to the next step.
            self._stop(patience=0.0)
            raise

    def close_extras(self, **_: Any) -> None:
        """End the workers."""
        self._stop(CLOSE_SECONDS)

    def _stop(self, patience: float) -> None:
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.stop(patience)


def _join(space: spaces.Space[Any], parts: list[Any]) -> Any:
    """Join batches of observations along their first axis."""
    if isinstance(space, spaces.Dict):
        return {key: _join(inner, [part[key] for part in parts]) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        inside = enumerate(space.spaces)
        return tuple(_join(inner, [part[index] for part in parts]) for index, inner in inside)
    return np.concatenate(parts)
