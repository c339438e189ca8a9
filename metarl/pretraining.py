"""A baseline: joint training on all tasks by stable-baselines3's PPO, then the inner update."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from pydantic import ConfigDict
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor

from metarl import seeding
from metarl.envs import RandomTask, make
from metarl.learner import BaseLearner, Outcome
from metarl.sb3 import to_model
from metarl.settings import FORBID, Count, Positive

_MOMENTS = {"exp_avg": "adam_mean", "exp_avg_sq": "adam_square"}
_STEPS = "adam_steps"


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """PPO's settings; the rest are stable-baselines3's own. An update follows on an episode of each environment."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    learning_rate: Positive = 3e-4
    epochs: Count = 10
    environments: Count = 8
    minibatches: Count = 4

    def __post_init__(self) -> None:
        if self.environments % self.minibatches:
            raise ValueError(
                f"outer.environments is {self.environments}, which outer.minibatches = {self.minibatches} does not "
                "divide; minibatches are of equal size, so choose a multiple"
            )


class Pretrained(BaseLearner):
    """Joint training: stable-baselines3's PPO on all tasks at once, then the inner update.

    An iteration plays as many steps as an iteration of MAML does at most (``tasks * episodes * (inner.steps + 1)``
    episodes of full length), each episode of a new task (``metarl.RandomTask``); adaptation is MAML's. The
    "pretrained" of Finn et al. 2017, figures 4 and 5. What the policy does not keep of PPO is in the checkpoint.
    """

    name = "pretrained"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (JointTraining,)
    source = "Finn et al. 2017; Schulman et al. 2017"

    def _first_extra(self) -> dict[str, Tensor]:
        if self.settings.learning.normalize_observations:
            raise ValueError(
                "learner pretrained normalises no observations; set learning.normalize_observations = false"
            )
        everything = {**self.parameters, **self._policy.critic()}
        zeros = {
            f"{kind}/{name}": torch.zeros_like(part) for kind in _MOMENTS.values() for name, part in everything.items()
        }
        return {**zeros, _STEPS: torch.zeros(())}

    def _make_env(self) -> gymnasium.Env[Any, Any]:
        return Monitor(RandomTask(make(self.settings.family, **self.settings.family_kwargs)))

    def _meta_iteration(self, iteration: int) -> Outcome:
        learning, outer = self.settings.learning, self.settings.outer
        if self._given_tasks is not None:
            raise ValueError("learner pretrained trains on new tasks of the family only; leave tasks out")
        (stream,) = seeding.streams(self.settings.seed, seeding.TRAINING, iteration, tasks=range(1))
        (seed,) = stream.environment_seeds(1)
        env = DummyVecEnv([self._make_env] * outer.environments)
        try:
            length = _episode_length(env.envs[0])
            episodes = learning.tasks * learning.episodes * (self.settings.inner.steps + 1)
            with _random_state_kept():
                model = to_model(
                    PPO,
                    self.as_policy(self.parameters),
                    env,
                    seed=seed,
                    device=self.device,
                    learning_rate=outer.learning_rate,
                    n_epochs=outer.epochs,
                    n_steps=length,
                    batch_size=length * outer.environments // outer.minibatches,
                    gamma=learning.gamma,
                )
                # Its own logger would leave an empty folder among the temporary ones.
                model.set_logger(Logger(None, []))
                self._put_moments(model)
                model.learn(episodes * length)
        finally:
            env.close()
        if model.ep_info_buffer:
            returns = [entry["r"] for entry in model.ep_info_buffer]
            self.logger.record("rollout/return_step_0", float(np.mean(returns)))
        own = {name: value.detach() for name, value in model.policy.named_parameters()}
        self._policy.set_critic(own)
        parameters = {name: own[name] for name in self.parameters}
        return Outcome(parameters, [], self._moments(model), model.num_timesteps)

    def _put_moments(self, model: PPO) -> None:
        optimizer = model.policy.optimizer
        for name, parameter in model.policy.named_parameters():
            if f"{_MOMENTS['exp_avg']}/{name}" in self.extra:
                kept = {key: self.extra[f"{kind}/{name}"].clone() for key, kind in _MOMENTS.items()}
                optimizer.state[parameter] = {"step": self.extra[_STEPS].cpu().clone(), **kept}

    def _moments(self, model: PPO) -> dict[str, Tensor]:
        found = {_STEPS: self.extra[_STEPS]}
        for name, parameter in model.policy.named_parameters():
            state = model.policy.optimizer.state[parameter]
            if f"{_MOMENTS['exp_avg']}/{name}" in self.extra:
                found |= {f"{kind}/{name}": state[key] for key, kind in _MOMENTS.items()}
                found[_STEPS] = state["step"].to(self.device)
        return {name: found[name] for name in self.extra}


def _episode_length(env: gymnasium.Env[Any, Any]) -> int:
    """Return the limit of an environment's episodes, or, where it has none, the length of one."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    env.reset(seed=0)
    env.action_space.seed(0)
    steps, ended = 0, False
    while not ended:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps, ended = steps + 1, terminated or truncated
    return steps


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Give the global generators back as they were: stable-baselines3 seeds them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
