"""A baseline: joint training on all tasks by stable-baselines3's PPO, then the inner update."""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from pydantic import ConfigDict
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from metarl import seeding
from metarl.agents.observations import map_observations
from metarl.augmenting.refusals import refuse_settings
from metarl.envs import RandomTask, RolloutError, SingleFamily, make
from metarl.envs import tasks as task_tools
from metarl.envs.sync import error_text
from metarl.fields import FORBID, Count, Positive, setting
from metarl.learner import BaseLearner
from metarl.sampler import MAX_STEPS, refuse_huge, refuse_non_finite
from metarl.sb3.models_out import to_model
from metarl.sb3.named import Named
from metarl.sb3.vec_env import make_vec_env
from metarl.state import Outcome, State

_MOMENTS = {"exp_avg": "adam_mean", "exp_avg_sq": "adam_square"}
_STEPS = "adam_steps"
_GLOBAL_GENERATORS = threading.Lock()


ROLLOUT = 2000  # environment steps between two updates of PPO, where settings name no number


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """PPO's settings; all others are stable-baselines3's defaults."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    learning_rate: Positive = setting(2e-3, "step size of Adam")
    epochs: Count = setting(10, "passes of PPO over its rollouts")
    environments: Literal["auto"] | Count = setting(
        "auto",
        "environments that PPO steps, each with its own tasks; minibatches divides it; "
        "auto: as many as MAML has, learning.tasks * learning.episodes",
    )
    rollout_steps: Literal["auto"] | Count = setting(
        "auto",
        f"steps of each environment before PPO updates; auto: about {ROLLOUT:,} of all together, at most an episode",
        "steps",
    )
    minibatches: Count = setting(1, "equal parts of PPO's rollouts, of one gradient step each")


class Pretrained(BaseLearner):
    """Joint training: stable-baselines3's PPO on all tasks at once, then the inner update.

    An iteration plays the largest number of environment steps that an iteration of MAML can have
    (``tasks * episodes * (inner.steps + 1)`` episodes of full length). Each episode has a new task
    (``metarl.RandomTask``); adaptation is that of MAML. It is the "pretrained" of Finn et al. 2017, figures 4 and 5.
    Checkpoints hold the value function and the optimizer's moments too.
    """

    name = "pretrained"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (JointTraining,)
    source = "Finn et al. 2017; Schulman et al. 2017"
    learns_to_adapt = False

    def validate(self) -> None:
        """Check that minibatches are equal, and that stable-baselines3's PPO takes policy and observations.

        Raises:
            ValueError: they are not, training is to be on a few tasks or augmented, the policy has low-rank updates
                or pruned weights, ``learning.normalize_observations`` is set, since PPO's environments here do not
                normalise observations, or observations have no axes.
        """
        reason = "learner pretrained trains with stable-baselines3 on environments that draw their tasks themselves"
        if self.settings.learning.train_tasks:
            count = self.settings.learning.train_tasks
            raise ValueError(f"learning.train_tasks is {count}, but {reason}; leave it out")
        refuse_settings(self.settings.augment, tuple(vars(self.settings.augment)), reason)
        minibatches = self.settings.outer.minibatches
        if self.environments % minibatches:
            raise ValueError(
                f"outer.environments is {self.environments}, which outer.minibatches = {minibatches} does not divide; "
                "minibatches are of equal size, so choose a multiple"
            )
        for name in ("lora_rank", "prune"):
            if value := getattr(self.settings.policy, name):
                raise ValueError(
                    f"policy.{name} is {value}, and learner pretrained trains a policy of stable-baselines3, which has "
                    "neither low-rank updates nor pruned weights; leave it out"
                )
        if self.settings.learning.normalize_observations:
            raise ValueError(
                "learner pretrained normalises no observations; set learning.normalize_observations = false"
            )
        if self.observation_space.shape == () and isinstance(self.observation_space, gymnasium.spaces.Box):
            raise ValueError(
                f"learner pretrained trains with stable-baselines3, which takes no {self.observation_space}, without "
                "axes; give observations one, as in shape (1,)"
            )

    @property
    def dealt_tasks(self) -> int:
        """None: stable-baselines3 trains in one process."""
        return 0

    @property
    def environments(self) -> int:
        """How many environments PPO steps."""
        learning, given = self.settings.learning, self.settings.outer.environments
        return max(2, learning.tasks * learning.episodes) if given == "auto" else given

    def initial_state(self) -> State:
        """Return the state before training, with Adam's moments of actor and critic."""
        state = super().initial_state()
        everything = {**state.parameters, **state.critic}
        zeros = {
            f"{kind}/{name}": torch.zeros_like(part) for kind in _MOMENTS.values() for name, part in everything.items()
        }
        return replace(state, own_tensors={**zeros, _STEPS: torch.zeros((), dtype=torch.float32, device=self.device)})

    def make_environments(self, count: int, seed: int) -> VecEnv:
        """Return the environments that PPO steps, with a new task in each episode."""
        return make_vec_env(self.settings.family, count, seed=seed, **self.settings.family_kwargs)

    def _episode_length(self) -> int:
        """Return the time limit of an environment's episodes, or without a limit the length of one episode."""
        # Gymnasium's checker would warn of what is refused with a sentence here.
        env = RandomTask(
            Named(make(self.settings.family, **{"disable_env_checker": True, **self.settings.family_kwargs}), 0)
        )
        try:
            return _episode_length(env)
        finally:
            env.close()

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Train with PPO for the largest number of environment steps that an iteration of MAML can have."""
        self.refuse_given_tasks("trains on new tasks of the family only")
        learning, outer = self.settings.learning, self.settings.outer
        (stream,) = seeding.streams(self.settings.seed, seeding.TRAINING, iteration, tasks=range(1))
        (seed,) = stream.environment_seeds(1)
        if not isinstance(self.env.unwrapped, SingleFamily):
            seed = seeding.foreign_seed(seed)
        count, length = self.environments, self._episode_length()
        total = self.settings.iteration_episodes * length
        steps = rollout_steps(total, count, length) if outer.rollout_steps == "auto" else outer.rollout_steps
        if steps * count // outer.minibatches < 2:
            raise ValueError(
                f"{count} environments with {steps} steps of each before an update and {outer.minibatches} minibatches "
                "give minibatches of one step, of which PPO learns nothing; set outer.environments higher, or "
                "outer.minibatches = 1"
            )
        env = CheckedVecEnv(self.make_environments(count, seed), self.settings.family)
        try:
            # stable-baselines3 draws from the global generators, so only one learner may train at a time.
            with _GLOBAL_GENERATORS, _random_state_kept(), torch.inference_mode(False), torch.enable_grad():
                model = to_model(
                    PPO,
                    self.as_policy(state.parameters, state),
                    env,
                    seed=seed,
                    device=self.device,
                    learning_rate=outer.learning_rate,
                    n_epochs=outer.epochs,
                    n_steps=steps,
                    batch_size=steps * count // outer.minibatches,
                    gamma=learning.gamma,
                )
                # The default logger would leave an empty temporary folder behind.
                model.set_logger(Logger(None, []))
                _put_moments(model, state.own_tensors)
                model.learn(total)
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


def rollout_steps(total: int, environments: int, longest: int) -> int:
    """Return the steps of each environment before an update: about ``ROLLOUT`` of all, and a divisor of each one's.

    >>> rollout_steps(total=80_000, environments=400, longest=100)
    5
    >>> rollout_steps(total=80_000, environments=8, longest=100)
    100

    Args:
        total: environment steps of an iteration.
        environments: how many there are.
        longest: the most steps before an update, at least 1.
    """
    each, wanted = -(-total // environments), ROLLOUT / environments
    divisors = [steps for steps in range(1, min(each, longest) + 1) if each % steps == 0]
    return min(divisors, key=lambda steps: abs(math.log(steps / wanted)))


class CheckedVecEnv(VecEnvWrapper):
    """Environments whose failures, and observations and rewards that cannot be learned from, name the environment.

    Args:
        venv: as ``metarl.sb3.make_vec_env`` makes it.
        family: its name, for errors.
    """

    def __init__(self, venv: VecEnv, family: str) -> None:
        super().__init__(venv)
        self._family = family
        self._steps = np.zeros(venv.num_envs, dtype=np.int64)
        self._tasks: list[Any] = []

    def reset(self) -> Any:
        """Start episodes.

        Raises:
            RolloutError: an environment failed, or gave an observation that is not finite.
        """
        self._steps[:] = 0
        with self._naming("reset"):
            observations = self.venv.reset()
            self._tasks = self.venv.get_attr("task")
            refuse_non_finite("gave the observation", observations, "at reset")
        return observations

    def step_wait(self) -> tuple[Any, Any, Any, Any]:
        """Step the environments.

        Raises:
            RolloutError: an environment failed, gave an observation or a reward that is not finite, or a huge one.
        """
        with self._naming("step"):
            observations, rewards, ended, infos = self.venv.step_wait()
            refuse_huge(np.where(np.isfinite(rewards), rewards, 0.0), "{when}")
            refuse_non_finite("gave the reward", rewards, "{when}")
            refuse_non_finite("gave the observation", observations, "{when}")
            over = np.flatnonzero(ended).tolist()
            for index in over:
                last = map_observations(lambda part: np.asarray(part)[None], infos[index]["terminal_observation"])
                try:
                    refuse_non_finite("gave the observation", last, "{when}")
                except RolloutError as error:
                    raise RolloutError(str(error), index) from error
        for index, task in zip(over, self.venv.get_attr("task", indices=over) if over else [], strict=True):
            self._tasks[index] = task
        self._steps = np.where(ended, 0, self._steps + 1)
        return observations, rewards, ended, infos

    @contextlib.contextmanager
    def _naming(self, where: str) -> Iterator[None]:
        """Add family, task, sub-environment and step to a failure that does not name them yet."""
        try:
            yield
        except RolloutError as error:
            if error.env_index is None or ", sub-environment " in str(error):
                raise
            when = f"at step {int(self._steps[error.env_index])}"
            task = task_tools.plain(self._tasks[error.env_index])
            said = str(error).replace("{when}", when)
            raise RolloutError(
                f"{self._family}, task {task}, sub-environment {error.env_index} {said}", error.env_index
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit as well
            raise RolloutError(
                f"{self._family} (the sub-environment is not known) raised {error_text(error, ' in ' + where)}",
                None,
            ) from error


def _put_moments(model: PPO, kept: dict[str, Tensor]) -> None:
    """Set the moments of a model's optimizer."""
    optimizer = model.policy.optimizer
    for name, parameter in model.policy.named_parameters():
        if f"{_MOMENTS['exp_avg']}/{name}" in kept:
            own = {key: kept[f"{kind}/{name}"].clone() for key, kind in _MOMENTS.items()}
            optimizer.state[parameter] = {"step": kept[_STEPS].cpu().clone(), **own}


def _moments(model: PPO, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the moments of a model's optimizer, with the same names as those before."""
    found = {_STEPS: before[_STEPS]}
    for name, parameter in model.policy.named_parameters():
        own = model.policy.optimizer.state[parameter]
        if f"{_MOMENTS['exp_avg']}/{name}" in before:
            found |= {f"{kind}/{name}": own[key] for key, kind in _MOMENTS.items()}
            found[_STEPS] = own["step"].to(before[_STEPS].device)
    return {name: found[name] for name in before}


def _episode_length(env: gymnasium.Env[Any, Any]) -> int:
    """Return the time limit of an environment's episodes, or without a limit the length of one episode."""
    if env.spec is not None and env.spec.max_episode_steps is not None:
        return env.spec.max_episode_steps
    env.reset(seed=0)
    env.action_space.seed(0)
    steps, ended = 0, False
    while not ended:
        if steps == MAX_STEPS:
            raise RolloutError(
                f"the episode is still running after {MAX_STEPS} steps; set family_kwargs.max_episode_steps", 0
            )
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps, ended = steps + 1, terminated or truncated
    return steps


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the global generators afterwards, since stable-baselines3 seeds them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
