"""The sampler: plays episodes of many tasks at once and returns rollouts."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.agents import Noise, Normalizer, Parameters, Policy, Rollouts
from metarl.agents.observations import map_observations
from metarl.agents.policies import Actor, NoNoise
from metarl.augmenting.episodes import AugmentedVector
from metarl.augmenting.settings import Augmenting
from metarl.envs import BatchedFamily, RolloutError, make_in_processes
from metarl.envs import tasks as task_tools
from metarl.envs.sync import error_text
from metarl.envs.worker_process import WorkerLostError
from metarl.gradients.parallel import all_threads
from metarl.seeding import Stream, foreign_seed
from metarl.statistics import number_infos

MAX_STEPS = 100_000
# Squares of returns are summed in single precision, which ends at 3.4e38.
MAX_REWARD = 1e12
KEPT_VECTORS = 2
NOTHING = Augmenting()


class Sampler:
    """Owns the vector environments of a family, one for each of the latest requested numbers of sub-environments.

    Args:
        family: an id, or ``module:Id``.
        family_kwargs: arguments of its constructor.
        workers: processes that step a family without a batched implementation; ``auto`` measures which number is best.
        step_timeout: seconds that a worker may take for a step.
        record: names of entries of ``info`` that rollouts keep besides those of success.
        augment: how the episodes of training streams are augmented.
        restart_workers: how often workers that died or do not answer are started anew.

    Attributes:
        seconds: the time that ``collect`` took so far.
        restarts: how often workers were started anew so far.
    """

    def __init__(
        self,
        family: str,
        family_kwargs: dict[str, Any],
        workers: int | str = "auto",
        step_timeout: float = 60.0,
        record: Sequence[str] = (),
        augment: Augmenting = NOTHING,
        restart_workers: int = 0,
    ) -> None:
        self.family = family
        self.augment = augment
        self.family_kwargs = family_kwargs
        self.workers = workers
        self.step_timeout = step_timeout
        self.record = tuple(record)
        self.restart_workers = restart_workers
        self.seconds = 0.0
        self.restarts = 0
        self._lock = threading.RLock()
        self._vectors: dict[int, VectorEnv[Any, Any, Any]] = {}

    def vector(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        """Return the vector environment with ``num_envs`` sub-environments; it is made if necessary."""
        chosen = self._vectors.pop(num_envs, None)
        if chosen is None:
            while len(self._vectors) >= KEPT_VECTORS:
                self._vectors.pop(next(iter(self._vectors))).close()
            chosen = self._make(num_envs)
        self._vectors[num_envs] = chosen
        return chosen

    def _make(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        return make_in_processes(
            self.family, num_envs, workers=self.workers, step_timeout=self.step_timeout, **self.family_kwargs
        )

    def collect(
        self,
        policy: Policy,
        parameters: Parameters,
        normalizer: Normalizer,
        tasks: Any,
        episodes: int,
        streams: Sequence[Stream],
        play: Callable[..., Rollouts] | None = None,
        *,
        deterministic: bool = False,
    ) -> Rollouts:
        """Play ``episodes`` episodes of each task and return the rollouts.

        Where a worker dies or does not answer, and may be started anew, all of them are drawn again from the same
        streams.

        Args:
            policy: whose distribution draws the actions.
            parameters: shared (no task axis), or stacked with one row for each task.
            normalizer: of the policy's observations; the rollouts hold the environments' own observations and rewards.
            tasks: a batch of tasks.
            episodes: for each task.
            streams: the random stream of each task.
            play: what steps the environments, with the arguments and the result of ``play_episodes``, the default.
            deterministic: whether the most likely actions are taken.

        Raises:
            RolloutError: an environment raised an error, returned an observation or reward that is not finite, or its
                episode does not end; the message names family, task, sub-environment and step.
        """
        while True:
            try:
                return self._collect(
                    policy, parameters, normalizer, tasks, episodes, streams, play, deterministic=deterministic
                )
            except RolloutError as error:
                if self.restarts >= self.restart_workers or not _is_of_worker(error):
                    raise
                self.restarts += 1

    def _collect(
        self,
        policy: Policy,
        parameters: Parameters,
        normalizer: Normalizer,
        tasks: Any,
        episodes: int,
        streams: Sequence[Stream],
        play: Callable[..., Rollouts] | None,
        *,
        deterministic: bool,
    ) -> Rollouts:
        with self._lock:  # the environments have a state, so only one thread may step them
            n_tasks = task_tools.count_tasks(tasks)
            env = self.vector(n_tasks * episodes)
            seeds = [seed for stream in streams for seed in stream.environment_seeds(episodes)]
            if not isinstance(env.unwrapped, BatchedFamily):
                seeds = [foreign_seed(seed) for seed in seeds]
            options = {"tasks": task_tools.repeat_tasks(tasks, episodes)}
            with self._timed(), self._naming(env, tasks, episodes), all_threads():
                augmented = self.augment.changes_episodes and all(stream.is_training for stream in streams)
                played = AugmentedVector(env, self.augment, streams, episodes) if augmented else env
                first = _reset(played, seeds, options)
                actor = policy.actor(parameters, normalizer)
                drawn = None if deterministic else actor.noise([stream.noise() for stream in streams], episodes)
                noise = NoNoise() if drawn is None else drawn
                double = bool(normalizer.observations)
                player = play or play_episodes
                return player(played, actor, noise, first, n_tasks, episodes, double=double, record=self.record)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Add the time that it takes to ``seconds``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    @contextlib.contextmanager
    def _naming(self, env: VectorEnv[Any, Any, Any], tasks: Any, episodes: int) -> Iterator[None]:
        """Add family, task and sub-environment to a failure; after it, or Ctrl-C, drop the environments."""
        try:
            yield
        except BaseException as error:
            self._vectors = {size: vector for size, vector in self._vectors.items() if vector is not env}
            env.close()
            if not isinstance(error, RolloutError):
                raise
            if error.env_index is None:
                message = f"{self.family} (the sub-environment is not known) {error}"
            else:
                task = task_tools.plain(task_tools.take_tasks(tasks, error.env_index // episodes))
                message = f"{self.family}, task {task}, sub-environment {error.env_index} {error}"
            raise RolloutError(message, error.env_index) from error

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``, without environments; a copy makes its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_vectors", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, without environments."""
        self.__dict__.update(state)
        self._lock = threading.RLock()
        self._vectors = {}

    def close(self) -> None:
        """Close the environments."""
        for vector in self._vectors.values():
            vector.close()
        self._vectors.clear()


def _is_of_worker(error: BaseException | None) -> bool:
    """Return whether an error was caused by a worker that died or does not answer."""
    return error is not None and (isinstance(error, WorkerLostError) or _is_of_worker(error.__cause__))


def _reset(env: VectorEnv[Any, Any, Any], seeds: list[int], options: dict[str, Any]) -> Any:
    try:
        return env.reset(seed=seeds, options=options)[0]  # type: ignore[arg-type]
    except (RolloutError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit as well
        raise RolloutError(f"raised {error_text(error, ' in reset')}", None) from error


def play_episodes(
    env: VectorEnv[Any, Any, Any],
    actor: Actor,
    noise: Noise | NoNoise,
    first: Any,
    n_tasks: int,
    episodes: int,
    *,
    double: bool = False,
    record: Sequence[str] = (),
) -> Rollouts:
    """Step the environments until all episodes have ended, and return the rollouts.

    Args:
        env: ``n_tasks * episodes`` sub-environments in task-major order, just reset.
        actor: chooses the actions.
        noise: of the actions.
        first: the first observations.
        n_tasks: number of tasks.
        episodes: number of episodes of each task.
        double: keep observations in double precision if the environments return them so.
        record: see ``Sampler``.

    Raises:
        RolloutError: an environment failed; the message does not name the task yet.
    """
    space = env.single_observation_space
    observations = [actor.see(space, first)]
    steps: list[tuple[NDArray[Any], ...]] = []
    infos: list[dict[str, NDArray[np.float64]]] = []
    running = np.ones(n_tasks * episodes, dtype=np.bool_)
    refuse_non_finite("gave the observation", first, "at reset")
    while running.any():
        when = f"at step {len(steps)}"
        if len(steps) == MAX_STEPS:
            raise RolloutError(
                f"is still running after {MAX_STEPS} steps; set family_kwargs.max_episode_steps", int(running.argmax())
            )
        shaped = map_observations(lambda part: part.reshape(n_tasks, episodes, *part.shape[1:]), observations[-1])
        actions, log_probs = actor.act(shaped, noise.at(len(steps)))
        flat = actions.reshape(n_tasks * episodes, *actions.shape[2:])
        refuse_non_finite("got the action", flat, when)
        try:
            following, rewards, terminated, truncated, info = env.step(flat)
        except RolloutError as error:
            raise RolloutError(f"{error}, {when}", error.env_index) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit as well
            raise RolloutError(f"raised {error_text(error)}, {when}", None) from error
        refuse_non_finite("gave the observation", following, when)
        refuse_non_finite("gave the reward", rewards, when)
        refuse_huge(rewards, when)
        steps.append(
            (
                flat,
                log_probs.reshape(-1),
                rewards * running,
                running,
                terminated & running,
                truncated & running,
            )
        )
        infos.append(number_infos(info, running, record))
        observations.append(actor.see(space, following))
        running = running & ~(terminated | truncated)
    return stack_steps(observations, steps, n_tasks, episodes, infos, double=double)


def stack_steps(
    observations: list[Any],
    steps: list[tuple[NDArray[Any], ...]],
    n_tasks: int,
    episodes: int,
    infos: Sequence[dict[str, NDArray[np.float64]]] = (),
    *,
    double: bool = False,
) -> Rollouts:
    """Return step-by-step data as rollouts.

    Args:
        observations: T + 1 of them, arrays ``[sub-environment, *obs]`` or dicts of arrays.
        steps: T tuples of arrays ``[sub-environment, ...]``: actions, log-probabilities, rewards, running,
            terminated, truncated.
        n_tasks: number of tasks; the sub-environments are in task-major order.
        episodes: number of episodes of each task.
        infos: numbers of ``info`` by name for each step; empty if there are none.
        double: keep observations in double precision, for normalisation: if they are large compared with their
            differences, rounding to single precision would lose the differences.
    """

    def stack(*arrays: NDArray[Any], double: bool = False) -> torch.Tensor:
        stacked = np.stack(arrays, axis=1)
        if stacked.dtype == np.float64 and not double:
            stacked = stacked.astype(np.float32)
        return torch.from_numpy(stacked.reshape(n_tasks, episodes, *stacked.shape[1:]))

    names = sorted({name for step in infos for name in step})
    missing = np.full(n_tasks * episodes, np.nan)
    actions, log_probs, rewards, running, terminated, truncated = (stack(*part) for part in zip(*steps, strict=True))
    return Rollouts(
        observations=map_observations(functools.partial(stack, double=double), *observations),
        actions=actions,
        log_probs=log_probs,
        rewards=rewards.float(),
        mask=running.float(),
        terminated=terminated,
        truncated=truncated,
        infos={name: stack(*(step.get(name, missing) for step in infos)) for name in names},
    )


def refuse_non_finite(what: str, values: Any, when: str) -> None:
    """Raise a ``RolloutError`` if numbers ``[sub-environment, ...]`` are not finite."""
    if isinstance(values, dict):
        for key, part in values.items():
            refuse_non_finite(f"{what} {key!r}", part, when)
    elif values.dtype.kind == "f" and not np.isfinite(values).all():
        env_index = int(np.argwhere(~np.isfinite(values))[0][0])
        raise RolloutError(f"{what} {values[env_index]}, {when}", env_index)


def refuse_huge(rewards: NDArray[Any], when: str) -> None:
    """Raise a ``RolloutError`` if rewards ``[sub-environment]`` are too large to compute with in single precision."""
    if (huge := np.abs(rewards) > MAX_REWARD).any():
        env_index = int(huge.argmax())
        raise RolloutError(
            f"gave the reward {rewards[env_index]:g}, {when}; updates compute in single precision, so rewards must lie "
            f"between {-MAX_REWARD:g} and {MAX_REWARD:g}; scale them",
            env_index,
        )
