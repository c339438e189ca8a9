"""One worker: the process that steps some of a vector environment's sub-environments, and the parent's end of it."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import pickle
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawValue
from typing import Any

import gymnasium

from metarl.envs.processes import end_with_parent, interrupts_ignored
from metarl.envs.registry import make_vec
from metarl.envs.sync import RolloutError, SyncFamilyVectorEnv, error_text

CLOSE_SECONDS = 2.0


class WorkerLostError(RolloutError):
    """A worker's process died or does not answer; others of its kind may well go on."""


class Worker:
    """A process that steps the sub-environments ``indices`` of a vector environment.

    Args:
        indices: their numbers in the vector environment.
        arguments: of ``serve``.
    """

    def __init__(self, indices: range, arguments: bytes) -> None:
        self.indices = indices
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._at = RawValue("l", 0)
        self._process = context.Process(
            target=serve,
            args=(theirs, self._at, len(indices), arguments),
            daemon=True,
            name=f"metarl-envs-{indices.start}",
        )
        with interrupts_ignored():
            self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Send a message that ``serve`` understands; ``receive`` returns the answer."""
        with contextlib.suppress(OSError):  # if the process has died, receive says so
            self._pipe.send(message)

    def receive(self, deadline: float, seconds: float) -> Any:
        """Return the answer to the last message.

        Args:
            deadline: when to stop waiting, on the clock ``time.monotonic``.
            seconds: how long that is after the message, for the error.

        Raises:
            WorkerLostError: the process died, or there is no answer by the deadline.
            RolloutError: an environment raised an error.
        """
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            raise WorkerLostError(
                f"has not answered for {seconds:g} seconds; learning.step_timeout sets how long a step may take",
                self._env_index(),
            )
        try:
            kind, *content = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(CLOSE_SECONDS)
            raise WorkerLostError(
                f"died with its process (exit code {self._process.exitcode})", self._env_index()
            ) from error
        if kind == "failed":
            message, failed = content
            raise RolloutError(message, None if failed is None else self.indices.start + failed)
        return content[0]

    def _env_index(self) -> int:
        """Return the number of the sub-environment that was stepped or reset last."""
        return self.indices.start + min(int(self._at.value), len(self.indices) - 1)

    def stop(self, patience: float) -> None:
        """End the process; it is killed if it has not ended after ``patience`` seconds."""
        with contextlib.suppress(OSError):
            self._pipe.send(("close",))
            self._process.join(patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()


def serve(pipe: Connection, at: Any, num_envs: int, arguments: bytes) -> None:
    """Reset and step sub-environments for the parent process, until it sends ``close`` or ends.

    Args:
        pipe: to the parent. It sends ``("reset", seeds, options)``, ``("step", actions)`` or ``("close",)``; each of
            the first two is answered with ``("done", result)`` or ``("failed", message, sub-environment)``.
        at: shared memory with the number of the sub-environment at work, counted from 0 in this process.
        num_envs: how many sub-environments.
        arguments: pickled: registrations of the family and of the environments that its arguments name; the family's
            id, or ``module:Id``; and the arguments of its constructor.
    """
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        # Unpickled here, where a module that is missing in this process can be reported.
        registrations, family, kwargs = pickle.loads(arguments)
        for spec in registrations:
            # A module that registers its environments would complain if they were registered before it.
            if isinstance(spec.entry_point, str):
                with contextlib.suppress(Exception):
                    importlib.import_module(spec.entry_point.partition(":")[0])
            if ":" not in spec.id:
                gymnasium.registry.setdefault(spec.id, spec)
        env = make_vec(family, num_envs, **kwargs)
        if isinstance(env, SyncFamilyVectorEnv):
            env.watch = at
        pipe.send(("ready", None))
    except BaseException as error:  # sys.exit as well; Ctrl-C does not reach this process
        pipe.send(("failed", f"cannot be made in another process ({error_text(error)})", None))
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
                answer: Any = env.reset(seed=content[0], options=content[1])
            else:
                answer = env.step(content[0])
        except RolloutError as error:
            pipe.send(("failed", str(error), error.env_index))
        except BaseException as error:  # sys.exit as well
            pipe.send(("failed", f"raised {error_text(error)}", None))
        else:
            pipe.send(("done", answer))
    env.close()
