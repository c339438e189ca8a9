"""A baseline: joint training on all tasks by stable-baselines3's PPO, then the inner update."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from metarl.fields import FORBID, Count, Positive
from metarl.learner import BaseLearner
from metarl.sb3.models_out import to_model
from metarl.state import Outcome, State

_MOMENTS = {"exp_avg": "adam_mean", "exp_avg_sq": "adam_square"}
_STEPS = "adam_steps"
_GLOBAL_GENERATORS = threading.Lock()


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

    def validate(self) -> None:
        """Check that observations are not to be normalised, which PPO's own environments are not.

        Raises:
            ValueError: they are.
        """
        if self.settings.learning.normalize_observations:
            raise ValueError(
                "learner pretrained normalises no observations; set learning.normalize_observations = false"
            )

    def initial_state(self) -> State:
        """Return the state before training, with Adam's moments of actor and critic."""
        state = super().initial_state()
        everything = {**state.parameters, **state.critic}
        zeros = {
            f"{kind}/{name}": torch.zeros_like(part) for kind in _MOMENTS.values() for name, part in everything.items()
        }
        return replace(state, own_tensors={**zeros, _STEPS: torch.zeros((), device=self.device)})

    def _make_env(self) -> gymnasium.Env[Any, Any]:
        return Monitor(RandomTask(make(self.settings.family, **self.settings.family_kwargs)))

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Let PPO learn for as many steps as an iteration of MAML plays at most."""
        self.refuse_given_tasks("trains on new tasks of the family only")
        learning, outer = self.settings.learning, self.settings.outer
        (stream,) = seeding.streams(self.settings.seed, seeding.TRAINING, iteration, tasks=range(1))
        (seed,) = stream.environment_seeds(1)
        env = DummyVecEnv([self._make_env] * outer.environments)
        try:
            length = _episode_length(env.envs[0])
            episodes = learning.tasks * learning.episodes * (self.settings.inner.steps + 1)
            # One learner at a time: stable-baselines3 draws from the global generators.
            with _GLOBAL_GENERATORS, _random_state_kept():
                model = to_model(
                    PPO,
                    self.as_policy(state.parameters, state),
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
                _put_moments(model, state.own_tensors)
                model.learn(episodes * length)
        finally:
            env.close()
        metrics: dict[str, float | str] = {}
        if model.ep_info_buffer:
            metrics["rollout/return_step_0"] = float(np.mean([entry["r"] for entry in model.ep_info_buffer]))
        own = {name: value.detach() for name, value in model.policy.named_parameters()}
        following = replace(
            state,
            parameters={name: own[name] for name in state.parameters},
            critic={name: own[name].cpu() for name in state.critic},
            own_tensors=_moments(model, state.own_tensors),
            num_timesteps=state.num_timesteps + model.num_timesteps,
        )
        return Outcome(state=following, rollouts=[], metrics=metrics)


def _put_moments(model: PPO, kept: dict[str, Tensor]) -> None:
    """Give a model's optimizer the moments that are kept."""
    optimizer = model.policy.optimizer
    for name, parameter in model.policy.named_parameters():
        if f"{_MOMENTS['exp_avg']}/{name}" in kept:
            own = {key: kept[f"{kind}/{name}"].clone() for key, kind in _MOMENTS.items()}
            optimizer.state[parameter] = {"step": kept[_STEPS].cpu().clone(), **own}


def _moments(model: PPO, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the moments of a model's optimizer, under the names of those before."""
    found = {_STEPS: before[_STEPS]}
    for name, parameter in model.policy.named_parameters():
        own = model.policy.optimizer.state[parameter]
        if f"{_MOMENTS['exp_avg']}/{name}" in before:
            found |= {f"{kind}/{name}": own[key] for key, kind in _MOMENTS.items()}
            found[_STEPS] = own["step"].to(before[_STEPS].device)
    return {name: found[name] for name in before}


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
