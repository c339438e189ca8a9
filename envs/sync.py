"""A vector environment for families that have only a single environment."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.answers import Infos, check_reset, check_step
from metarl.envs.sequence import batch_for


class RolloutError(RuntimeError):
    """A rollout failed: an environment raised an error, or gave something that it must not; the message says where.

    ``sys.exit`` and other exceptions that are not errors count as well, except for ``KeyboardInterrupt`` in this
    process, which is Ctrl-C.

    ``env_index`` is the number of the sub-environment, None where it is not known.
    """

    def __init__(self, message: str, env_index: int | None) -> None:
        super().__init__(message)
        self.env_index = env_index


def close_or_warn(env: gymnasium.Env[Any, Any]) -> None:
    """Close an environment; where it cannot be closed, a warning says so, since nothing may be lost because of it."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit as well
        warnings.warn(
            f"{task_tools.family_name(env)} raised {error_text(error, ' in close')}", UserWarning, stacklevel=2
        )


def error_text(error: BaseException, when: str = "") -> str:
    """Return an error's type, when it was raised, and its text if it has one."""
    text = str(error)
    return f"{type(error).__name__}{when}{f': {text}' if text else ''}"


class SyncFamilyVectorEnv(VectorEnv[Any, Any, Any]):
    """Steps the single environments of a family one by one, each with a task of its own.

    ``reset`` takes ``options={"tasks": batch}`` with ``num_envs`` tasks and ``"reset_mask"``. ``step`` skips
    sub-environments whose episode has ended: until the next reset their observation stays and their reward is 0.

    The ``infos`` of ``reset`` and ``step`` hold an array ``[num_envs]``, float64, for each entry of the environments'
    infos that is a single number or truth value; NaN where an environment gave no such entry or was skipped. Everything
    else in the environments' infos, such as texts and arrays, is left out.

    Attributes:
        envs: the single environments.

    Args:
        env_fns: functions without arguments that make the environments, at least one.

    Raises:
        ValueError: the environments have different spaces, or two are the same.
        TypeError: they have no task space.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}  # type: ignore[misc]

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        self.envs = [make() for make in env_fns]
        self.num_envs = len(self.envs)
        if len({id(env.unwrapped) for env in self.envs}) < self.num_envs:
            raise ValueError(
                "the function that makes the environments returned the same one twice; make a new one in every call"
            )
        first = self.envs[0]
        self.spec, self.render_mode = first.spec, first.render_mode
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        for index, env in enumerate(self.envs):
            for name, expected in (
                ("observation_space", first.observation_space),
                ("action_space", first.action_space),
            ):
                if getattr(env, name) != expected:
                    raise ValueError(
                        f"the {name} of sub-environment {index} is {getattr(env, name)}, that of sub-environment 0 is "
                        f"{expected}; environments made with the same arguments must have the same spaces"
                    )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.task_space = task_tools.task_space(first)
        self._running = np.zeros(self.num_envs, dtype=np.bool_)
        self._latest: list[Any] = [None] * self.num_envs  # each one's last observation
        # Shared memory (a ctypes number) through which another process sees which sub-environment is at work.
        self.watch: Any = None

    def __getattr__(self, name: str) -> Any:
        """Return an optional attribute of the family, such as ``sample_tasks``, from the first environment."""
        if name in ("sample_tasks", "oracle_return", "default_task", "check_task"):
            return task_tools.attribute(self.envs[0], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes, in all sub-environments or in those of ``options["reset_mask"]``; see the class.

        Raises:
            ValueError: ``options["tasks"]`` are not ``num_envs`` tasks, or the first reset leaves some out.
            RolloutError: an environment raised an error, or what it returned is no observation and info.
        """
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_)))
        batch = options.pop("tasks", None)
        given: list[Any] | None = None
        if batch is not None:
            batch = batch_for(self.task_space, batch, self.num_envs)
            given = task_tools.unstack_tasks(self.task_space, batch)
        seed = task_tools.spread_seed(seed, self.num_envs)
        infos = Infos(self.num_envs)
        for index in np.flatnonzero(mask).tolist():
            # A copy, because environments keep their task, and this one is a view of the caller's array.
            own = {**options, "task": copy.deepcopy(given[index])} if given is not None else dict(options)
            self._show(index)
            try:
                answer = self.envs[index].reset(seed=seed[index], options=own)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # sys.exit as well
                raise RolloutError(f"raised {error_text(error, ' in reset')}", index) from error
            try:
                self._latest[index], info = check_reset(self.single_observation_space, answer)
            except ValueError as error:
                raise RolloutError(f"{error}, in reset", index) from error
            infos.add(index, info)
            self._running[index] = True
        return self._observations(), infos.arrays

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, NDArray[np.float64]]]:
        """Step the sub-environments whose episode is running.

        Raises:
            ValueError: the actions are not ``num_envs``, or there was no reset before.
            RolloutError: an environment raised an error, or what it returned is not what a step must return.
        """
        infos = Infos(self.num_envs)
        rewards = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        for index, action in enumerate(self._split(actions)):
            if not self._running[index]:
                continue
            self._show(index)
            try:
                answer = self.envs[index].step(action)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # sys.exit as well
                raise RolloutError(f"raised {error_text(error)}", index) from error
            try:
                observation, reward, ended, cut, info = check_step(self.single_observation_space, answer)
            except ValueError as error:
                raise RolloutError(str(error), index) from error
            self._latest[index] = observation
            rewards[index], terminated[index], truncated[index] = reward, ended, cut
            infos.add(index, info)
        self._running &= ~(terminated | truncated)
        return self._observations(), rewards, terminated, truncated, infos.arrays

    def _split(self, actions: Any) -> list[Any]:
        """Return the single actions; those of a box are arrays even without axes, as the box expects."""
        if (expected := self.action_space.shape) is not None and np.shape(actions) != expected:
            raise ValueError(f"actions have shape {np.shape(actions)}, expected {expected}")
        is_box = isinstance(self.single_action_space, gymnasium.spaces.Box)
        return [np.asarray(action) if is_box else action for action in iterate(self.action_space, actions)]

    def _observations(self) -> Any:
        """Return the last observations of all sub-environments as a new batch."""
        missing = [index for index, observation in enumerate(self._latest) if observation is None]
        if missing:
            raise ValueError(f"sub-environment {missing[0]} was never reset; the first reset must be of all of them")
        space = self.single_observation_space
        empty = create_empty_array(space, n=self.num_envs, fn=np.zeros)
        return concatenate(space, self._latest, empty)  # type: ignore[arg-type]

    def _show(self, env_index: int) -> None:
        if self.watch is not None:
            self.watch.value = env_index

    def render(self) -> tuple[Any, ...]:
        """Return what each environment draws."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **_: Any) -> None:
        """Close the environments; where one cannot be closed, a warning says so."""
        for env in self.envs:
            close_or_warn(env)
