"""Wrappers that choose the task of each episode, and one that plays several episodes of a task as one."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number

TOLD_KEYS = ("previous_action", "previous_reward", "episode_ended")
OBSERVATION = "observation"


class FixedTask(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A family's environment in which every episode plays the same task, unless ``reset`` names another.

    Args:
        env: an environment of a family.
        task: anything that ``as_task`` takes.

    Raises:
        ValueError: the task is outside the task space.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], task: Any) -> None:
        RecordConstructorArgs.__init__(self, task=task)
        super().__init__(env)
        self.task = task_tools.as_task(env, task)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the task."""
        # A copy, because an environment may keep and change it.
        return self.env.reset(seed=seed, options={"task": copy.deepcopy(self.task), **(options or {})})


class RandomTask(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A family's environment in which every episode plays a new task, for training one policy on all tasks.

    Which tasks come depends only on the last seed that ``reset`` was given.

    Args:
        env: an environment of a family.
        split: ``train``, ``validation`` or ``test``: the split from which tasks are drawn.

    Raises:
        ValueError: unknown split.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], split: str = "train") -> None:
        RecordConstructorArgs.__init__(self, split=split)
        super().__init__(env)
        self._split = split
        self._rng = task_tools.task_rng(0, split)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of a new task, unless ``options["task"]`` names one."""
        if seed is not None:
            self._rng = task_tools.task_rng(seed, self._split)
        task = task_tools.take_tasks(task_tools.draw_tasks(self.env, 1, self._rng, self._split), 0)
        return self.env.reset(seed=seed, options={"task": task, **(options or {})})


class Trial(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An environment whose episodes are trials: ``episodes`` episodes of the same task in order.

    The observation is a dict of the environment's observation (under ``observation``, or under its own keys if it is a
    dict) and of what the agent is told of the last step:

    - ``previous_action``: the action as a vector; choices are one-hot, actions of a box are clipped to it;
    - ``previous_reward``: its reward, ``[1]``;
    - ``episode_ended``: 1 if it ended an episode of the trial, so that the observation is the next one's first, else 0,
      ``[1]``.

    At the first step of a trial all of them are zeros. At the end of an episode that is not the trial's last, the
    environment is reset without a task, so that the task stays, and the step neither terminates nor truncates; the
    last one's end is that of the trial. So an agent with memory that is trained on trials learns to adapt to a task
    (Duan et al. 2016). ``info["trial_episode"]`` is the number of the episode that the step belongs to, from 0, and
    ``info["last_observation"]`` the last observation of an episode that ended within the trial.

    A new task for each trial: ``RandomTask(Trial(env, episodes))``.

    Args:
        env: of a family, or any environment that plays the same task again when it is reset.
        episodes: in a trial; a single one suffices for a policy that has adapted before.

    Raises:
        ValueError: a count that is not positive, an environment that draws a new task for each episode, or one whose
            spaces cannot be told to an agent.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], episodes: int = 1) -> None:
        RecordConstructorArgs.__init__(self, episodes=episodes)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(
                f"{type(env).__name__} is no gymnasium.Env; give the environment whose episodes are joined"
            )
        super().__init__(env)
        self.episodes = whole_number("episodes", episodes)
        inside: Any = env
        while isinstance(inside, gymnasium.Wrapper):
            if isinstance(inside, RandomTask):
                raise ValueError(
                    "the environment draws a new task for each episode (RandomTask), and a trial needs the same one; "
                    "write RandomTask(Trial(env, episodes)), which draws one for each trial"
                )
            inside = inside.env
        if not isinstance(env.action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
            raise ValueError(
                f"actions of type {type(env.action_space).__name__} cannot be told to an agent; expected Box, Discrete "
                "or MultiDiscrete"
            )
        seen = env.observation_space
        self._keys = dict(seen.spaces) if isinstance(seen, spaces.Dict) else {OBSERVATION: seen}
        taken = sorted(set(self._keys) & set(TOLD_KEYS))
        if taken:
            raise ValueError(f"observations have the key {taken[0]!r}, under which a trial tells the agent; rename it")
        flat = spaces.flatten_space(env.action_space)
        assert isinstance(flat, spaces.Box)
        action = spaces.Box(flat.low.astype(np.float32), flat.high.astype(np.float32), flat.shape, np.float32)
        # At the first step there is no action yet, which zeros stand for.
        action = spaces.Box(np.minimum(action.low, 0.0), np.maximum(action.high, 0.0), flat.shape, np.float32)
        self.observation_space = spaces.Dict(
            {
                **self._keys,
                TOLD_KEYS[0]: action,
                TOLD_KEYS[1]: spaces.Box(-np.inf, np.inf, (1,), np.float32),
                TOLD_KEYS[2]: spaces.Box(0.0, 1.0, (1,), np.float32),
            }
        )
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a trial, of ``options["task"]`` where it is given."""
        self._episode = 0
        observation, info = self.env.reset(seed=seed, options=options)
        return self._told(observation, np.zeros(self._width, np.float32), 0.0, False), {**info, "trial_episode": 0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the episode; at its end begin the next one, unless it was the trial's last."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "trial_episode": self._episode}
        ended = bool(terminated or truncated)
        if ended:
            self._episode += 1
            if self._episode < self.episodes:
                info["last_observation"] = observation
                observation, _ = self.env.reset()
                terminated = truncated = False
        told = self._told(observation, self._coded(action), float(reward), ended)
        return told, float(reward), bool(terminated), bool(truncated), info

    @property
    def _width(self) -> int:
        space = self.observation_space
        assert isinstance(space, spaces.Dict)
        return int(np.prod(space.spaces[TOLD_KEYS[0]].shape or ()))

    def _coded(self, action: Any) -> NDArray[np.float32]:
        space = self.env.action_space
        if isinstance(space, spaces.Box):
            return np.clip(np.asarray(action, np.float32), space.low, space.high).astype(np.float32).reshape(-1)
        return np.asarray(spaces.flatten(space, action), dtype=np.float32)

    def _told(self, observation: Any, action: NDArray[np.float32], reward: float, ended: bool) -> dict[str, Any]:
        own = observation if isinstance(self.env.observation_space, spaces.Dict) else {OBSERVATION: observation}
        last = np.array([reward], np.float32), np.array([ended], np.float32)
        return {**own, **dict(zip(TOLD_KEYS, (action, *last), strict=True))}
