"""Episodes played to be watched: one at each point of adaptation, all from the same seed."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from metarl import seeding
from metarl.adapter import action_map
from metarl.agent import MetaAgent
from metarl.agents import Parameters
from metarl.agents.observations import map_observations
from metarl.agents.policies import Actor, GruActor, NoNoise
from metarl.envs import RolloutError
from metarl.envs.sync import error_text
from metarl.replay.recording import Episode, Recorder, picture_of
from metarl.sampler import MAX_STEPS, refuse_huge, refuse_non_finite
from metarl.statistics import SUCCESS_INFO, SuccessAt


class Player:
    """Plays episodes of one task in an environment that renders.

    Args:
        model: whose policy acts.
        env: of one task.
        seed: of actions and resets. Episodes of learners without memory all begin alike and have the same noise, so
            that they differ by adaptation only.
        deterministic: whether the most likely actions are taken.
        most_frames: see ``Recorder``.
        max_steps: at which an episode is stopped; None for its own end.

    Raises:
        ValueError: the policy has no most likely actions, which are asked for.
    """

    def __init__(
        self,
        model: MetaAgent,
        env: gymnasium.Env[Any, Any],
        seed: int,
        *,
        deterministic: bool,
        most_frames: int,
        max_steps: int | None,
    ) -> None:
        self._model = model
        self._env = env
        self._family = model.settings.family
        self._to_env = action_map(model, env)
        self._seed = seed
        self._deterministic = deterministic
        self._most = most_frames
        self._max_steps = max_steps
        if deterministic and not self.actor(model.parameters).acts_without_noise:
            raise ValueError(
                f"the policy of learner {model.name} has no most likely actions; leave 'deterministic' out"
            )

    def actor(self, parameters: Parameters) -> Actor:
        """Return what chooses the actions with these parameters; it remembers its episodes if the policy does."""
        return self._model.functional_policy.actor(parameters, self._model.state.normalizer)

    def play(self, actor: Actor, name: str, number: int = 0) -> Episode:
        """Play an episode and return it.

        Args:
            actor: chooses the actions.
            name: of the episode.
            number: of the episode within a trial.

        Raises:
            ValueError: the environment cannot be drawn.
            RolloutError: it failed, or the episode does not end.
        """
        try:
            return self._play(actor, name, number)
        except RolloutError as error:
            raise RolloutError(f"{self._family} {error}", 0) from error

    def _play(self, actor: Actor, name: str, number: int) -> Episode:
        stream = seeding.Stream(self._seed, (seeding.REPLAY, number))
        noise = NoNoise() if self._deterministic else actor.noise([stream.noise()], 1)
        recorder = Recorder(lambda: picture_of(self._env, self._family), self._most)
        observation = self._reset(seeding.foreign_seed(stream.environment_seeds(1)[0]))
        recorder.see(0)
        rewards: list[float] = []
        told: list[float] = []
        ended = stopped = False
        while not ended and not stopped:
            step = len(rewards)
            if step == MAX_STEPS:
                raise RolloutError(f"is still running after {MAX_STEPS} steps; give --max-steps or max_steps", 0)
            seen = actor.see(self._env.observation_space, observation)
            actions, _ = actor.act(map_observations(lambda part: part[None], seen), noise.at(step))
            refuse_non_finite("got the action", actions[0], f"at step {step}")
            observation, reward, ended, info = self._step(self._to_env(actions[0, 0]), step)
            rewards.append(reward)
            told.append(_told_success(info))
            stopped = self._max_steps is not None and len(rewards) >= self._max_steps
            if isinstance(actor, GruActor):
                actor.tell(np.array([reward]), np.array([ended or stopped]))
            recorder.see(len(rewards), last=ended or stopped)
        return Episode(
            name=name,
            frames=recorder.frames,
            steps=recorder.steps,
            every=recorder.every,
            rewards=np.array(rewards),
            success=_success(told, self._model.settings.evaluation.success),
            cut=not ended,
        )

    def _reset(self, seed: int) -> Any:
        try:
            observation, _ = self._env.reset(seed=seed)
        except Exception as error:
            raise RolloutError(f"raised {error_text(error, ' in reset')}", 0) from error
        return self._batched(observation, "at reset")

    def _step(self, action: Any, step: int) -> tuple[Any, float, bool, dict[str, Any]]:
        when = f"at step {step}"
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
        except Exception as error:
            raise RolloutError(f"raised {error_text(error)}, {when}", 0) from error
        given = np.array([float(reward)])
        refuse_non_finite("gave the reward", given, when)
        refuse_huge(given, when)
        return self._batched(observation, when), float(reward), bool(terminated or truncated), info

    def _batched(self, observation: Any, when: str) -> Any:
        batch = map_observations(lambda part: np.asarray(part)[None].copy(), observation)
        refuse_non_finite("gave the observation", batch, when)
        return batch


def _told_success(info: dict[str, Any]) -> float:
    """Return 1 where ``info`` tells of success and 0 where it tells of none; NaN where it does not tell."""
    told = [float(np.asarray(info[name]).reshape(-1)[0]) for name in SUCCESS_INFO if _is_number(info.get(name))]
    return float("nan") if not told or np.isnan(told).all() else float(np.nanmax(told) > 0)


def _is_number(value: Any) -> bool:
    found = np.asarray(value)
    return found.dtype.kind in "biuf" and found.size == 1


def _success(told: list[float], when: SuccessAt) -> NDArray[np.bool_] | None:
    """Return after each step whether the episode counts as a success, as ``statistics.episode_success`` counts."""
    values = np.array(told)
    known = ~np.isnan(values)
    if not known.any():
        return None
    if when == "any":
        return np.logical_or.accumulate(values > 0)
    latest = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(latest >= 0, values[latest] > 0, False)
