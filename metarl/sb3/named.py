"""A wrapper that says which environment failed, with which task and at which step."""

from __future__ import annotations

from typing import Any

import gymnasium

from metarl.envs import RolloutError
from metarl.envs import tasks as task_tools
from metarl.envs.answers import check_reset, check_step
from metarl.envs.sync import error_text
from metarl.envs.wrappers import FixedTask


class Named(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose failures say family, task, sub-environment and step.

    Args:
        env: of a family.
        index: its number.

    Attributes:
        task: of the current episode.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], index: int) -> None:
        super().__init__(env)
        self._index = index
        self.task = env.task if isinstance(env, FixedTask) else task_tools.attribute(env, "default_task")
        self._elapsed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        Raises:
            RolloutError: the environment raised an error, or what it returned is no observation and info.
        """
        if options is not None and options.get("task") is not None:
            self.task = options["task"]
        self._elapsed = 0
        try:
            answer = self.env.reset(seed=seed, options=options)
        except (RolloutError, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit as well
            raise self._failure(f"raised {error_text(error, ' in reset')}") from error
        try:
            observation, info = check_reset(self.observation_space, answer)
        except ValueError as error:
            raise self._failure(f"{error}, in reset") from error
        return observation, dict(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the episode.

        Raises:
            RolloutError: the environment raised an error, or what it returned is not what a step must return.
        """
        when = f"at step {self._elapsed}"
        self._elapsed += 1
        try:
            answer = self.env.step(action)
        except (RolloutError, KeyboardInterrupt):
            raise
        except BaseException as error:  # sys.exit as well
            raise self._failure(f"raised {error_text(error)}, {when}") from error
        try:
            observation, reward, terminated, truncated, info = check_step(self.observation_space, answer)
        except ValueError as error:
            raise self._failure(f"{error}, {when}") from error
        return observation, reward, terminated, truncated, dict(info)

    def _failure(self, what: str) -> RolloutError:
        task = task_tools.plain(self.task)
        return RolloutError(
            f"{task_tools.family_name(self)}, task {task}, sub-environment {self._index} {what}", self._index
        )
