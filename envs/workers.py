"""A vector environment whose sub-environments step in several processes, for families that are slow to step.

Each worker holds a block of the rows as a ``SyncFamilyVectorEnv``; what they do is the same to the last bit as in one
process, whatever the number of workers. Workers start afresh (``spawn``), so no platform and no thread is in the way,
and do not import the program's main module, so a script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawValue
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.processes import end_with_parent, interrupts_ignored, main_left_alone
from metarl.envs.registry import find_family, make, make_vec
from metarl.envs.sync import RolloutError, SyncFamilyVectorEnv

START_SECONDS = 120.0
CLOSE_SECONDS = 2.0
# Below this much work a step, sending it to other processes costs more than it saves.
WORTH_SECONDS = 4e-3
PROBE_STEPS = 50


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_leave_process(spec: EnvSpec, kwargs: dict[str, Any]) -> bool:
    """Whether another process can make the environment: its class is named, not in the main module, and can be sent."""
    try:
        pickle.dumps((spec, kwargs))
    except Exception:  # whatever an argument raises that cannot be pickled
        return False
    return isinstance(spec.entry_point, str) and not spec.entry_point.startswith("__main__")


def choose_workers(family: str, num_envs: int, **kwargs: Any) -> int:
    """Return how many processes should step ``num_envs`` environments of a family: measured, 1 where one is enough.

    Raises:
        ValueError: the family is unknown or cannot be made.
    """
    spec = find_family(family)
    if spec.vector_entry_point is not None or not can_leave_process(spec, kwargs) or cores() == 1:
        return 1
    env = make(family, **{"disable_env_checker": True, **kwargs})
    try:
        seconds = _seconds_per_step(env)
    except Exception:  # a family that fails is named with its task when it is played
        return 1
    finally:
        env.close()
    return min(cores(), num_envs) if seconds * num_envs > WORTH_SECONDS else 1


def _seconds_per_step(env: gymnasium.Env[Any, Any]) -> float:
    """Return the mean time of a step, that of resets between episodes left out."""
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
    """Sub-environments of a family in ``workers`` processes; ``reset`` and ``step`` as ``SyncFamilyVectorEnv``'s.

    ``info`` is empty. After a failure the workers are gone; make a new one.

    Args:
        family: an id, or ``module:Id``.
        num_envs: how many sub-environments.
        workers: how many processes; no more are started than there are sub-environments.
        step_timeout: seconds that a worker may take to reset or step its sub-environments.
        kwargs: arguments of the family's constructor.

    Raises:
        ValueError: the family is unknown or cannot be made, or lives where no other process can import it.
        RolloutError: by ``reset`` and ``step``: an environment raised an error, its process died, or it takes too long.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]

    def __init__(self, family: str, num_envs: int, *, workers: int, step_timeout: float, **kwargs: Any) -> None:
        self._workers: list[_Worker] = []
        self.num_envs = task_tools.whole_number("num_envs", num_envs)
        spec = find_family(family)
        if not can_leave_process(spec, kwargs):
            raise ValueError(
                f"family {family} cannot be made in another process, since its class is defined in the main program or "
                'an argument cannot be pickled; put it into a module of its own and register it as "module:Class", or '
                "use learning.workers = 1"
            )
        env = make(family, **{"disable_env_checker": True, **kwargs})
        self.spec = spec
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.task_space: spaces.Space[Any] = task_tools.task_space(env)
        env.close()
        self._timeout = step_timeout
        bounds = np.linspace(0, self.num_envs, min(workers, self.num_envs) + 1).astype(int)
        with main_left_alone():
            self._workers = [
                _Worker(range(low, high), (spec, family, kwargs)) for low, high in itertools.pairwise(bounds.tolist())
            ]
        self._ask([], START_SECONDS)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes; see ``SyncFamilyVectorEnv.reset``."""
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        batch = options.pop("tasks", None)
        if batch is not None:
            task_tools.check_count(batch, self.num_envs)
        seed = task_tools.spread_seed(seed, self.num_envs)
        messages = []
        for worker in self._workers:
            rows = slice(worker.rows.start, worker.rows.stop)
            own = {**options, "reset_mask": mask[rows]}
            if batch is not None:
                own["tasks"] = task_tools.take_tasks(batch, rows)
            messages.append(("reset", list(seed[rows]), own))
        return _join(self.single_observation_space, self._ask(messages, self._timeout)), {}

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the sub-environments whose episode is running."""
        messages = [("step", actions[worker.rows.start : worker.rows.stop]) for worker in self._workers]
        parts = self._ask(messages, self._timeout)
        observations = _join(self.single_observation_space, [part[0] for part in parts])
        rewards, terminated, truncated = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
        return observations, rewards, terminated, truncated, {}

    def _ask(self, messages: list[Any], seconds: float) -> list[Any]:
        """Send each worker a message, where there are any, and return their answers in the order of the rows."""
        if not self._workers:
            raise ValueError("the workers are gone after a failure or close(); make a new vector environment")
        deadline = time.monotonic() + seconds
        try:
            for worker, message in zip(self._workers, messages, strict=False):
                worker.send(message)
            return [worker.receive(deadline, seconds) for worker in self._workers]
        except BaseException:
            # Answers that nobody reads would be taken for those of the next step.
            self._stop(patience=0.0)
            raise

    def close_extras(self, **_: Any) -> None:
        """End the workers."""
        self._stop(CLOSE_SECONDS)

    def _stop(self, patience: float) -> None:
        workers, self._workers = self._workers, []
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


class _Worker:
    """A process with the sub-environments ``rows``."""

    def __init__(self, rows: range, family: tuple[Any, ...]) -> None:
        self.rows = rows
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._at = RawValue("l", 0)
        self._process = context.Process(
            target=serve, args=(theirs, self._at, len(rows), *family), daemon=True, name=f"metarl-rows-{rows.start}"
        )
        with interrupts_ignored():
            self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # a dead process is named when its answer is awaited
            self._pipe.send(message)

    def receive(self, deadline: float, seconds: float) -> Any:
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            raise RolloutError(
                f"has not answered for {seconds:g} seconds; learning.step_timeout sets how long a step may take",
                self._row(),
            )
        try:
            kind, *content = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(CLOSE_SECONDS)
            raise RolloutError(f"died with its process (exit code {self._process.exitcode})", self._row()) from error
        if kind == "failed":
            message, failed = content
            raise RolloutError(message, None if failed is None else self.rows.start + failed)
        return content[0]

    def _row(self) -> int:
        """Return the number of the sub-environment that is or was last at work."""
        return self.rows.start + min(int(self._at.value), len(self.rows) - 1)

    def stop(self, patience: float) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(("close",))
            self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def serve(pipe: Connection, at: Any, num_envs: int, spec: EnvSpec, family: str, kwargs: dict[str, Any]) -> None:
    """Step sub-environments for the process at the other end of a pipe, until it says so or ends."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        gymnasium.registry.setdefault(spec.id, spec)
        env = make_vec(family if ":" in family else spec.id, num_envs, **kwargs)
        assert isinstance(env, SyncFamilyVectorEnv)
        env.watch = at
        pipe.send(("ready", None))
    except Exception as error:
        pipe.send(("failed", f"cannot be made in another process ({type(error).__name__}: {error})", None))
        return
    while True:
        try:
            command, *content = pipe.recv()
        except (EOFError, OSError):
            break
        if command == "close":
            break
        try:
            if command == "reset":
                answer: Any = env.reset(seed=content[0], options=content[1])[0]
            else:
                answer = env.step(content[0])[:4]
        except RolloutError as error:
            pipe.send(("failed", str(error), error.row))
        except Exception as error:
            pipe.send(("failed", f"raised {type(error).__name__}: {error}", None))
        else:
            pipe.send(("done", answer))
    env.close()
