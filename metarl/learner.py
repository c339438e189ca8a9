"""What all meta-learners share: the face that stable-baselines3's users know, and the loop around a meta-update."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor
from tqdm import tqdm

from metarl import logs, seeding
from metarl.agents import Parameters, Policy, Rollouts, Samples, build_policy, to_samples
from metarl.checkpoints import read_checkpoint, write_checkpoint
from metarl.envs import RolloutError, make
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.evaluation import Evaluation
from metarl.inner import inner_step, inner_update
from metarl.policy_arguments import decode, encode
from metarl.sampler import Sampler, collect_single
from metarl.sb3 import Model, to_model
from metarl.settings import Settings, as_dict, structure
from metarl.version import __version__

_OWN_POLICY_SETTINGS = {"hidden_sizes", "activation", "output_gain", "log_std_init", "log_std_min"}


@dataclass(frozen=True)
class Best:
    """The parameters with the best validation so far."""

    iteration: int
    score: float
    parameters: Parameters


def pick_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the GPU where there is one.

    Raises:
        ValueError: no such device, or it isn't there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; use 'auto', 'cpu' or 'cuda'") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} is not available on this machine ({reason}); use 'auto' or 'cpu'") from error
    return device


class MetaLearner:
    """A meta-learner: shared parameters, and how they are trained to adapt.

    Args:
        policy: ``"MlpPolicy"`` or ``"CnnPolicy"``, stable-baselines3's.
        family: the id of an environment family, or ``module:Id``.
        family_kwargs: arguments of the family's constructor.
        learning: settings of ``[learning]`` as a dict, as are ``inner``, ``outer`` and ``evaluation``.
        inner: settings of the inner update.
        outer: settings of the meta-update.
        evaluation: settings of validation and test.
        policy_kwargs: settings of ``[policy]`` (hidden_sizes, activation, output_gain, log_std_init, log_std_min)
            and any other argument of the stable-baselines3 policy (net_arch, activation_fn, ...).
        seed: of everything that is random.
        device: where updates run; ``auto`` is the GPU where there is one. Rollouts run on the CPU.
        verbose: from 1 on, a table is printed for each iteration.
        tensorboard_log: the folder for TensorBoard, or None.

    Raises:
        ValueError: an unknown family or device, or settings that are unknown or out of range, all named.
    """

    name = ""

    def __init__(
        self,
        policy: str = "MlpPolicy",
        family: str = "metarl/Navigation2D-v0",
        *,
        family_kwargs: dict[str, Any] | None = None,
        learning: dict[str, Any] | None = None,
        inner: dict[str, Any] | None = None,
        outer: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        seed: int = 1,
        device: str = "auto",
        verbose: int = 0,
        tensorboard_log: str | None = None,
    ) -> None:
        policy_kwargs = dict(policy_kwargs or {})
        own = {key: policy_kwargs.pop(key) for key in _OWN_POLICY_SETTINGS & policy_kwargs.keys()}
        settings = structure(
            {
                "family": family,
                "learner": self.name,
                "seed": seed,
                "device": device,
                "family_kwargs": {} if family_kwargs is None else family_kwargs,
                "learning": {} if learning is None else learning,
                "inner": {} if inner is None else inner,
                "outer": {} if outer is None else outer,
                "policy": {"name": policy, **own},
                "evaluation": {} if evaluation is None else evaluation,
            }
        )
        self._set_up(settings, policy_kwargs, verbose, tensorboard_log)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a new learner from settings."""
        learner = cls.__new__(cls)
        learner._set_up(settings, {}, 0, None)
        return learner

    def _set_up(
        self, settings: Settings, policy_kwargs: dict[str, Any], verbose: int, tensorboard_log: str | None
    ) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.verbose = verbose
        self.tensorboard_log = tensorboard_log
        self.policy_kwargs = policy_kwargs
        self._env = make(settings.family, **settings.family_kwargs)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        network = {field.name: getattr(settings.policy, field.name) for field in dataclasses.fields(settings.policy)}
        self._policy: Policy = build_policy(
            self.observation_space, self.action_space, seed=settings.seed, **{**network, **policy_kwargs}
        )
        self.parameters = {name: value.to(self.device) for name, value in self._policy.parameters().items()}
        self._sampler = Sampler(settings.family, settings.family_kwargs)
        self.iteration = 0
        self.num_timesteps = 0
        self.line_search_failures = 0
        self.best: Best | None = None
        self._logger: Logger | None = None

    # ------------------------------------------------------------------ learning

    def learn(
        self,
        iterations: int | None = None,
        *,
        total_timesteps: int | None = None,
        callback: Any = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Meta-train.

        Args:
            iterations: how many more; ``learning.iterations`` where neither this nor ``total_timesteps`` is given.
            total_timesteps: stop after the iteration that reaches this many environment steps.
            callback: a callback of stable-baselines3, a list of them, or a function; its ``_on_step`` is called
                after each iteration and stops training by returning False.
            log_interval: iterations between writes to the logger.
            tb_log_name: the name of the run under ``tensorboard_log``.
            reset_num_timesteps: count environment steps from 0 and begin a new TensorBoard run.
            progress_bar: show one, by iterations.

        Raises:
            ValueError: a count that is not positive.
            RolloutError: an environment raised an error or gave numbers that are not finite.
            FloatingPointError: the meta-gradient is not finite; the parameters stay as they were.
        """
        if iterations is None and total_timesteps is None:
            iterations = self.settings.learning.iterations
        for label, value in {
            "iterations": iterations,
            "total_timesteps": total_timesteps,
            "log_interval": log_interval,
        }.items():
            if value is not None:
                whole_number(label, value)
        if reset_num_timesteps:
            self.num_timesteps = 0
        if self._logger is None:
            name = tb_log_name or type(self).__name__
            self._logger = logs.default_logger(self.verbose, self.tensorboard_log, name, reset_num_timesteps)
        last = self.iteration + iterations if iterations is not None else None
        steps_wanted = math.inf if total_timesteps is None else total_timesteps
        callbacks = _as_callback(callback)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        callbacks.on_training_start(locals(), globals())
        with tqdm(total=iterations, initial=0, disable=not progress_bar, unit="iteration") as bar:
            while self.num_timesteps < steps_wanted and (last is None or self.iteration < last):
                final = last is not None and self.iteration + 1 == last
                self._iterate(callbacks, bar, log_interval, final)
                if not callbacks.on_step():
                    break
        callbacks.on_training_end()
        return self

    def _iterate(self, callbacks: BaseCallback, bar: Any, log_interval: int, final: bool) -> None:
        began = time.perf_counter()
        iteration = self.iteration + 1
        callbacks.on_rollout_start()
        self.logger.record("rollout/iteration", iteration)
        try:
            steps, rollout_seconds = self._meta_iteration(iteration)
        except RolloutError as error:
            raise RolloutError(f"iteration {iteration}: {error}", error.row) from error
        self.iteration = iteration
        self.num_timesteps += steps
        callbacks.update_locals(locals())
        callbacks.on_rollout_end()
        seconds = time.perf_counter() - began
        self.logger.record("rollout/timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.record("time/seconds_rollouts", rollout_seconds, exclude="csv")
        self.logger.record("time/seconds_update", seconds - rollout_seconds, exclude="csv")
        self.logger.record("time/steps_per_second", steps / seconds, exclude="csv")
        values = self.logger.name_to_value
        before, after = (
            values["rollout/return_step_0"],
            values[f"rollout/return_step_{self.settings.inner.steps}"],
        )
        bar.set_postfix_str(f"return before {before:.2f}, after adaptation {after:.2f}")
        bar.update()
        if iteration % self.settings.evaluation.every == 0 or final:
            self._validate(iteration)
        if iteration % log_interval == 0 or final:
            self.logger.dump(self.num_timesteps)

    def _meta_iteration(self, iteration: int) -> tuple[int, float]:
        """Collect, adapt, collect, update; return environment steps and the seconds spent in rollouts."""
        raise NotImplementedError

    def _validate(self, iteration: int) -> None:
        evaluation = self.evaluate(split="validation")
        for step in range(len(evaluation.returns)):
            self.logger.record(f"validation/return_step_{step}", evaluation.mean(step))
        self.logger.record("validation/gain", evaluation.mean(-1) - evaluation.mean(0))
        score = float(evaluation.returns[1:].mean())
        if self.best is None or score > self.best.score:
            self.best = Best(iteration, score, {name: value.clone() for name, value in self.parameters.items()})

    def _samples(self, rollouts: Rollouts) -> Samples:
        rollouts = rollouts.to(self.device)
        learning = self.settings.learning
        features = self._policy.features(rollouts.observations)
        return to_samples(rollouts, features, gamma=learning.gamma, gae_lambda=learning.gae_lambda)

    # ------------------------------------------------------------------ adapting

    def adapt(
        self,
        task: Any,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        seed: int | None = None,
    ) -> ActorCriticPolicy:
        """Adapt to a task and return the adapted policy, a stable-baselines3 policy; the learner does not change.

        Args:
            task: a task of the family (anything ``as_task`` takes), or a ``gymnasium.Env`` with the family's
                spaces whose task need not be known.
            steps: adaptation steps; ``inner.steps`` where it is not given.
            episodes: fresh episodes for each step; ``learning.episodes`` where it is not given.
            seed: of the episodes; the learner's where it is not given.

        Raises:
            ValueError: a task outside the task space, an environment with other spaces, or a negative count.
        """
        steps = self.settings.inner.steps if steps is None else whole_number("steps", steps, least=0)
        episodes = self.settings.learning.episodes if episodes is None else whole_number("episodes", episodes)
        seed = self.settings.seed if seed is None else whole_number("seed", seed, least=0)
        if isinstance(task, gymnasium.Env):
            for kind in ("observation_space", "action_space"):
                if getattr(task, kind) != getattr(self, kind):
                    raise ValueError(
                        f"the environment's {kind} is {getattr(task, kind)}, the learner's {getattr(self, kind)}; "
                        "make the environment with metarl.make"
                    )
        else:
            task = task_tools.stack_tasks(task_tools.task_space(self._env), [task_tools.as_task(self._env, task)])
        parameters = self.parameters
        for step in range(steps):
            if isinstance(task, gymnasium.Env):
                episode_streams = seeding.streams(seed, seeding.ADAPTATION, step, tasks=range(episodes))
                rollouts = collect_single(task, self._policy, parameters, episode_streams)
            else:
                streams = seeding.streams(seed, seeding.ADAPTATION, step, tasks=range(1))
                rollouts = self._sampler.collect(self._policy, parameters, task, episodes, streams)
            samples = self._samples(rollouts).task(0)
            parameters = inner_step(self._policy, parameters, samples, self.step_size(step))
        return self._policy.module(parameters, self.device)

    def to_sb3(
        self,
        algorithm: type[Model],
        task: Any,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        seed: int | None = None,
        **arguments: Any,
    ) -> Model:
        """Adapt to a task and return a model of stable-baselines3 (PPO or A2C) that goes on learning it.

        Args:
            algorithm: the model's class.
            task: a task of the family.
            steps: adaptation steps first, as for ``adapt``; 0 starts from the shared parameters.
            episodes: for each step, as for ``adapt``.
            seed: of adaptation and of the model.
            arguments: further arguments of the model.

        Raises:
            ValueError: see ``adapt``; or the algorithm is not an on-policy one.
        """
        policy = self.adapt(task, steps=steps, episodes=episodes, seed=seed)
        env = make(self.settings.family, task=task, **self.settings.family_kwargs)
        return to_model(algorithm, policy, env, **{"seed": seed, "device": self.device, **arguments})

    def step_size(self, step: int) -> float:
        """Return the size of adaptation step ``step`` (from 0) at evaluation; training uses the first for all."""
        inner = self.settings.inner
        return inner.step_size if step == 0 else inner.step_size * inner.later_step_scale

    def evaluate(
        self,
        *,
        split: str = "test",
        tasks: Any = None,
        n_tasks: int | None = None,
        episodes: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> Evaluation:
        """Return the mean return of fresh rollouts after 0, 1, ... adaptation steps on held-out tasks.

        Args:
            split: ``validation`` or ``test`` (or ``train``).
            tasks: a batch of tasks; drawn from the split where it is not given.
            n_tasks: how many are drawn.
            episodes: for each task and step.
            steps: adaptation steps.
            seed: of tasks and episodes; the learner's where it is not given.

        Raises:
            ValueError: a count that is not positive, an unknown split, or tasks outside the task space.
        """
        evaluating = self.settings.evaluation
        steps = evaluating.steps if steps is None else whole_number("steps", steps)
        episodes = evaluating.episodes if episodes is None else whole_number("episodes", episodes)
        seed = self.settings.seed if seed is None else whole_number("seed", seed, least=0)
        space = task_tools.task_space(self._env)
        if tasks is None:
            standard = evaluating.test_tasks if split == "test" else evaluating.tasks
            wanted = standard if n_tasks is None else whole_number("tasks", n_tasks)
            tasks = task_tools.draw_tasks(self._env, wanted, task_tools.task_rng(seed, split), split)
        single = [task_tools.as_task(self._env, task) for task in task_tools.unstack_tasks(space, tasks)]
        # Groups of the size of training, so that its environments serve again.
        size = self.settings.learning.tasks
        groups = [range(start, min(start + size, len(single))) for start in range(0, len(single), size)]
        returns = [self._adapt_group(single, group, episodes, steps, seed, split) for group in groups]
        shared = task_tools.attribute(self._env, "splits_share_tasks", False)
        oracle = task_tools.attribute(self._env, "oracle_return")
        return Evaluation(
            family=self.settings.family,
            learner=self.name,
            split=f"{split} (the tasks of training)" if shared else split,
            seed=self.settings.seed,
            iteration=self.iteration,
            episodes=episodes,
            returns=np.concatenate(returns, axis=1),
            oracle=None if oracle is None else np.array([oracle(task) for task in single]),
        )

    def _adapt_group(
        self, single: list[Any], group: range, episodes: int, steps: int, seed: int, split: str
    ) -> NDArray[np.float64]:
        tasks = task_tools.stack_tasks(task_tools.task_space(self._env), [single[i] for i in group])
        domain = (seeding.EVALUATION, task_tools.SPLITS.index(split))
        parameters = self.parameters
        returns = []
        for step in range(steps + 1):
            streams = seeding.streams(seed, *domain, step, tasks=group)
            rollouts = self._sampler.collect(self._policy, parameters, tasks, episodes, streams)
            returns.append(rollouts.returns().double().numpy())
            if step < steps:
                parameters = inner_update(self._policy, parameters, self._samples(rollouts), self.step_size(step))
        return np.stack(returns)

    # ------------------------------------------------------------------ stable-baselines3's face

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy before adaptation, a copy as a stable-baselines3 policy."""
        return self._policy.module(self.parameters, self.device)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Return actions of the policy before adaptation, as stable-baselines3's ``predict`` does."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    @property
    def logger(self) -> Logger:
        """The logger; ``learn`` makes one where none was set."""
        if self._logger is None:
            raise ValueError("the learner has no logger yet; call learn() or set_logger() first")
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Use a logger of stable-baselines3."""
        self._logger = logger

    def get_env(self) -> gymnasium.Env[Any, Any]:
        """Return a single environment of the family, of no particular task."""
        return self._env

    def get_vec_normalize_env(self) -> None:
        """Return None: observations are not normalised by a wrapper."""

    def close(self) -> None:
        """Close the environments."""
        self._sampler.close()
        self._env.close()

    # ------------------------------------------------------------------ saving

    def save(self, path: str | Path) -> None:
        """Write a checkpoint to ``path`` (``.zip`` is added where it is missing)."""
        self._write(_zip(path), self.parameters, self.iteration)

    def save_best(self, path: str | Path) -> None:
        """Write a checkpoint with the parameters of the best validation.

        Raises:
            ValueError: there was no validation yet.
        """
        if self.best is None:
            raise ValueError("there was no validation yet; learn() validates every evaluation.every iterations")
        self._write(_zip(path), self.best.parameters, self.best.iteration)

    def _write(self, path: Path, parameters: Parameters, iteration: int) -> None:
        tensors: dict[str, Tensor] = {f"parameters/{name}": value for name, value in parameters.items()}
        best = None
        if self.best is not None:
            tensors |= {f"best/{name}": value for name, value in self.best.parameters.items()}
            best = {"iteration": self.best.iteration, "score": self.best.score}
        state = {
            "learner": self.name,
            "metarl": __version__,
            "settings": as_dict(self.settings),
            "policy_kwargs": encode(self.policy_kwargs),
            "iteration": iteration,
            "num_timesteps": self.num_timesteps,
            "line_search_failures": self.line_search_failures,
            "best": best,
        }
        write_checkpoint(path, tensors, state)

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None, policy_kwargs: dict[str, Any] | None = None) -> Self:
        """Return the learner of a checkpoint; nothing in the file is run.

        Args:
            path: as given to ``save``.
            device: another device than the one it was trained on.
            policy_kwargs: what the file could not keep (classes that are not torch's), as given when it was made.

        Raises:
            ValueError: no checkpoint, a damaged or foreign one, one of another learner, or one whose tensors do not
                fit the policy.
        """
        path = _zip(path)
        tensors, state = read_checkpoint(path)
        if state.get("learner") != cls.name:
            raise ValueError(f"{str(path)!r} is a checkpoint of learner {state.get('learner')!r}, not {cls.name!r}")
        try:
            data = dict(state["settings"])
            kept = decode(state["policy_kwargs"], policy_kwargs or {})
            if device is not None:
                data["device"] = device
            settings = structure(data)
            learner = cls.__new__(cls)
            learner._set_up(settings, kept, 0, None)
            learner._restore(tensors, state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is damaged or no checkpoint of metarl ({error!r})") from error
        return learner

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.parameters = self._fitting(tensors, "parameters")
        if state["best"] is not None:
            best = state["best"]
            self.best = Best(int(best["iteration"]), float(best["score"]), self._fitting(tensors, "best"))
        self.iteration = int(state["iteration"])
        self.num_timesteps = int(state["num_timesteps"])
        self.line_search_failures = int(state["line_search_failures"])

    def _fitting(self, tensors: dict[str, Tensor], prefix: str) -> Parameters:
        found = {name.partition("/")[2]: value for name, value in tensors.items() if name.partition("/")[0] == prefix}
        expected = {name: tuple(shape) for name, shape in self._policy.shapes.items()}
        if {name: tuple(value.shape) for name, value in found.items()} != expected:
            raise ValueError("the checkpoint's tensors do not fit its policy; it was damaged or edited")
        return {name: found[name].to(self.device) for name in expected}


def _as_callback(callback: Any) -> BaseCallback:
    if callback is None:
        return CallbackList([])
    if isinstance(callback, list):
        return CallbackList(callback)
    return callback if isinstance(callback, BaseCallback) else ConvertCallback(callback)


def _zip(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")
