"""What all meta-learners share: the face that stable-baselines3's users know, and the loop around a meta-update."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Figure, Logger, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import Tensor

from metarl import logs, pretrained, seeding
from metarl.agent import MetaAgent
from metarl.agents import Normalizer, Parameters, Policy, Rollouts
from metarl.agents.observations import channels_first
from metarl.checkpoints import checkpoint_path, read_checkpoint, write_checkpoint
from metarl.envs import RandomTask, RolloutError, make, own_actions
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.figures import has_paths, paths_figure
from metarl.parallel import one_thread
from metarl.policy_arguments import decode, encode
from metarl.settings import Settings, TrustRegion, as_dict, structure
from metarl.version import __version__

_PICTURED_TASKS = 4
_OWN_POLICY_SETTINGS = {"hidden_sizes", "activation", "output_gain", "log_std_init", "log_std_min"}


@dataclass(frozen=True)
class Best:
    """The parameters with the best validation so far."""

    iteration: int
    score: float
    parameters: Parameters
    normalizer: Normalizer
    extra: dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a meta-iteration led to: new shared parameters, and the rollouts after 0, 1, ... inner steps.

    ``extra`` is what becomes of the learner's own ``extra``: all of it, under the same names. ``steps`` are environment
    steps that no rollouts tell of.
    """

    parameters: Parameters
    rollouts: list[Rollouts]
    extra: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0


class BaseLearner(MetaAgent):
    """A meta-learner: shared parameters, and how they are trained to adapt.

    A learner is a subclass with ``_meta_iteration``, and ``outer_settings``: the dataclasses that ``[outer]`` may be,
    the first where ``outer.update`` does not say which. What it keeps beside the shared parameters (step sizes, moments
    of Adam) are tensors in ``extra``, which checkpoints hold; it is told apart from the learner's other state so that
    ``_meta_iteration`` changes nothing and returns all.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"`` or ``"MultiInputPolicy"``, stable-baselines3's.
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

    outer_settings: ClassVar[tuple[type[Any], ...]] = (TrustRegion,)
    trains: ClassVar[bool] = True  # False: ``learn`` only validates
    source: ClassVar[str] = ""
    extra: dict[str, Tensor]

    def __init_subclass__(cls) -> None:
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

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
        tensorboard_log: str | Path | None = None,
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
            },
            type(self),
        )
        self._begin(settings, policy_kwargs, verbose, tensorboard_log)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a new learner from settings."""
        learner = cls.__new__(cls)
        learner._begin(settings, {}, 0, None)
        return learner

    def _begin(
        self, settings: Settings, policy_kwargs: dict[str, Any], verbose: int, tensorboard_log: str | Path | None
    ) -> None:
        super().__init__(settings, policy_kwargs)
        self.verbose = verbose
        self.tensorboard_log = tensorboard_log
        self.num_timesteps = 0
        self.line_search_failures = 0
        self.best: Best | None = None
        self._rollout_seconds = 0.0
        self._given_tasks: Any = None
        self._logger: Logger | None = None
        self._own_logger = False
        self._callback_env: VecEnv | None = None

    def _take_policy(self, policy: Policy) -> None:
        super()._take_policy(policy)
        self.extra = {name: value.to(self.device) for name, value in self._first_extra().items()}

    def _first_extra(self) -> dict[str, Tensor]:
        """Return what the learner keeps beside the shared parameters, as it is at first."""
        return {}

    @classmethod
    def from_pretrained(
        cls,
        source: Any,
        family: str = "metarl/Navigation2D-v0",
        *,
        policy_kwargs: dict[str, Any] | None = None,
        vec_normalize: VecNormalize | None = None,
        **arguments: Any,
    ) -> Self:
        """Return a new learner that starts from a PPO or A2C model of stable-baselines3.

        It has the model's architecture and weights, value function included. A model that was trained on the family's
        own action box, where that is not [-1, 1], is turned into the one on [-1, 1] that does the same. The floor
        ``policy.log_std_min`` is lowered to the model's noise where that is smaller.

        Args:
            source: the model, or the path of its zip file, of which only tensors and plain JSON are read.
            family: the id of an environment family with the spaces the model was trained on.
            policy_kwargs: arguments of the model's policy that a file keeps only as pickled code: classes of one's own.
            vec_normalize: the ``VecNormalize`` that the model was trained with, whose observation statistics are taken
                over and go on running; a model that still has its environments brings its own.
            arguments: as for the class: ``family_kwargs``, ``learning``, ``inner``, ``seed``, ...

        Raises:
            ValueError: a model that cannot be taken over (state-dependent noise, squashed actions, other algorithms),
                one that does not fit the family, or a file that is damaged or lacks something.
        """
        taken = pretrained.read_source(source, policy_kwargs or {})
        family_kwargs = arguments.get("family_kwargs") or {}
        env = make(family, **family_kwargs)
        try:
            foreign, mapped = own_actions(env), env.action_space
            space = channels_first(env.observation_space)
        finally:
            env.close()
        pretrained.check_space(taken.described, "observation space", taken.spaces["observation_space"], space)
        actions = pretrained.check_space(taken.described, "action space", taken.spaces["action_space"], foreign, mapped)
        name, module = pretrained.make_module(taken, space, actions)
        if isinstance(actions, gymnasium.spaces.Box) and actions != mapped:
            pretrained.fold_actions(module, actions)
        module.action_space = mapped

        statistics = vec_normalize if vec_normalize is not None else taken.statistics
        normalizer = None if statistics is None else pretrained.take_statistics(space, statistics)
        learning = dict(arguments.pop("learning", None) or {})
        if normalizer is not None:
            learning["normalize_observations"] = True
        architecture = pretrained.architecture(module)
        if isinstance(mapped, gymnasium.spaces.Box):
            floor = min(Settings().policy.log_std_min, float(module.log_std.detach().min()))
            architecture["log_std_min"] = floor
        learner = cls(name, family, learning=learning, policy_kwargs=architecture, **arguments)
        learner._take_policy(Policy(module, learner.settings.policy.log_std_min))
        if normalizer is not None:
            learner.normalizer = replace(normalizer, returns=learner.normalizer.returns)
        return learner

    def learn(
        self,
        iterations: int | None = None,
        *,
        tasks: Any = None,
        total_timesteps: int | None = None,
        callback: Any = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Meta-train.

        Args:
            iterations: how many more; ``learning.iterations`` where neither this nor ``total_timesteps`` is given.
            tasks: a batch of tasks to train on in each iteration; new ones are drawn where it is not given.
            total_timesteps: stop after the iteration that reaches this many environment steps, counted from where
                ``num_timesteps`` stands.
            callback: a callback of stable-baselines3, a list of them, or a function; its ``_on_step`` is called
                after each iteration and stops training by returning False.
            log_interval: iterations between writes to the logger; None leaves them to a callback, but for the last.
            tb_log_name: the name of the run under ``tensorboard_log``.
            reset_num_timesteps: count environment steps from 0 and begin a new TensorBoard run, else go on in the
                latest of that name; a logger given to ``set_logger`` stays.
            progress_bar: show one, by iterations.

        Raises:
            ValueError: a count that is not positive, or tasks outside the task space.
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
        self._given_tasks = None if tasks is None else self._batch(tasks)
        if reset_num_timesteps:
            self.num_timesteps = 0
        if not self._own_logger:
            if self._logger is not None:
                self._logger.close()
            name = tb_log_name or type(self).__name__
            self._logger = logs.default_logger(self.verbose, self.tensorboard_log, name, reset_num_timesteps)
        last = math.inf if iterations is None else self.iteration + iterations
        last_step = math.inf if total_timesteps is None else self.num_timesteps + total_timesteps
        callbacks = _as_callback(callback)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        # Callbacks are called once for each iteration, so that is what a bar of theirs can count.
        expected = last_step if iterations is None else self.num_timesteps + iterations
        callbacks.on_training_start({"self": self, "total_timesteps": expected, "tb_log_name": tb_log_name}, globals())
        with logs.progress_bar(iterations, shown=progress_bar) as bar:
            final = not self.trains
            if final:
                self._validate()
                self.dump_logs()
            while not final:
                self._iterate(callbacks, bar)
                final = self.iteration >= last or self.num_timesteps >= last_step
                if self.iteration % self.settings.evaluation.every == 0 or final:
                    self._validate()
                if final or (log_interval is not None and self.iteration % log_interval == 0):
                    self.dump_logs()
                if not callbacks.on_step() and not final:
                    if self.iteration % self.settings.evaluation.every != 0:
                        self._validate()
                    self.dump_logs()
                    break
        callbacks.on_training_end()
        return self

    def _iterate(self, callbacks: BaseCallback, bar: Any) -> None:
        began = time.perf_counter()
        iteration = self.iteration + 1
        callbacks.on_rollout_start()
        self._rollout_seconds = 0.0
        self.logger.record("rollout/iteration", iteration)
        try:
            with one_thread():
                outcome = self._meta_iteration(iteration)
        except RolloutError as error:
            raise RolloutError(f"iteration {iteration}: {error}", error.row) from error
        steps = outcome.steps + sum(part.steps() for part in outcome.rollouts)
        normalizer = self.normalizer
        for part in outcome.rollouts:
            normalizer = normalizer.update(part, self.settings.learning.gamma)
        # Copies, so that a resumed run, whose parameters are no views of a longer vector, computes the same bits.
        parameters = {name: value.clone() for name, value in outcome.parameters.items()}
        if "log_std" in parameters:
            # The policy is the same, but below its floor the noise would have no gradient and never rise again.
            parameters["log_std"].clamp_(min=self.settings.policy.log_std_min)
        self.parameters, self.normalizer, self.iteration = parameters, normalizer, iteration
        self.extra = {name: value.clone() for name, value in outcome.extra.items()}
        self.num_timesteps += steps
        callbacks.update_locals({"self": self, "iteration": iteration, **_episodes(outcome.rollouts)})
        callbacks.on_rollout_end()
        seconds = time.perf_counter() - began
        self.logger.record("rollout/timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.record("time/seconds_rollouts", self._rollout_seconds, exclude="csv")
        self.logger.record("time/seconds_update", seconds - self._rollout_seconds, exclude="csv")
        self.logger.record("time/steps_per_second", steps / seconds, exclude="csv")
        means = [float(part.returns().mean()) for part in outcome.rollouts]
        for step, mean in enumerate(means):
            self.logger.record(f"rollout/return_step_{step}", mean)
        if len(means) > 1:
            self.logger.record("rollout/gain", means[-1] - means[0])
        if means:
            after = f", after adaptation {means[-1]:.2f}" if len(means) > 1 else ""
            bar.set_postfix_str(f"return before {means[0]:.2f}{after}")
        bar.update()

    def _meta_iteration(self, iteration: int) -> Outcome:
        """Collect, adapt, collect, and return what the shared parameters become; the learner stays as it is."""
        raise NotImplementedError

    def _training_tasks(self, iteration: int) -> Any:
        """Return an iteration's batch of tasks: drawn anew, or those that ``learn`` was given."""
        if self._given_tasks is not None:
            return self._given_tasks
        rng = task_tools.task_rng(self.settings.seed, "train", iteration)
        return task_tools.draw_tasks(self._env, self.settings.learning.tasks, rng, "train")

    def _collect(
        self, parameters: Parameters, tasks: Any, iteration: int, step: int, *, episodes: int | None = None
    ) -> Rollouts:
        """Collect an iteration's rollouts after ``step`` inner steps, ``learning.episodes`` where none are given."""
        began = time.perf_counter()
        number = task_tools.count_tasks(tasks)
        streams = seeding.streams(self.settings.seed, seeding.TRAINING, iteration, step, tasks=range(number))
        rollouts = self._play(parameters, tasks, episodes or self.settings.learning.episodes, streams)
        self._rollout_seconds += time.perf_counter() - began
        return rollouts

    def _validate(self) -> None:
        evaluation, tasks, rollouts = self.evaluate_rollouts("validation")
        shown = any(isinstance(part, TensorBoardOutputFormat) for part in self.logger.output_formats)
        if shown and has_paths(self._env):
            picture = paths_figure(self._env, tasks[:_PICTURED_TASKS], rollouts)
            elsewhere = ("stdout", "log", "json", "csv")
            self.logger.record("validation/paths", Figure(picture, close=False), exclude=elsewhere)
        for step in range(len(evaluation.returns)):
            self.logger.record(f"validation/return_step_{step}", evaluation.mean(step))
        self.logger.record("validation/gain", evaluation.mean(-1) - evaluation.mean(0))
        score = float(evaluation.returns[1:].mean())
        if self.best is None or score > self.best.score:
            kept = {name: value.clone() for name, value in self.parameters.items()}
            self.best = Best(self.iteration, score, kept, self.normalizer, self.extra)

    @property
    def logger(self) -> Logger:
        """The logger; ``learn`` makes one where none was set."""
        if self._logger is None:
            raise ValueError("the learner has no logger yet; call learn() or set_logger() first")
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Use a logger of stable-baselines3, in every ``learn`` from now on."""
        self._logger = logger
        self._own_logger = True

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was recorded since the last write; stable-baselines3's ``LogEveryNTimesteps`` calls it."""
        if self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)

    def get_env(self) -> VecEnv:
        """Return an environment for stable-baselines3's callbacks: one of the family, each episode of a new task."""
        if self._callback_env is None:
            env = RandomTask(make(self.settings.family, **self.settings.family_kwargs))
            self._callback_env = DummyVecEnv([lambda: env])
        return self._callback_env

    def get_vec_normalize_env(self) -> None:
        """Return None: observations are not normalised by a wrapper."""

    def close(self) -> None:
        """Close the environments."""
        super().close()
        if self._callback_env is not None:
            self._callback_env.close()

    def save(self, path: str | Path) -> None:
        """Write a checkpoint to ``path`` (``.zip`` is added where it is missing)."""
        self._write(checkpoint_path(path), self.parameters, self.normalizer, self.extra, self.iteration)

    def save_best(self, path: str | Path) -> None:
        """Write a checkpoint with the parameters of the best validation.

        Raises:
            ValueError: there was no validation yet.
        """
        if self.best is None:
            raise ValueError("there was no validation yet; learn() validates every evaluation.every iterations")
        best = self.best
        self._write(checkpoint_path(path), best.parameters, best.normalizer, best.extra, best.iteration)

    def _write(
        self, path: Path, parameters: Parameters, normalizer: Normalizer, extra: dict[str, Tensor], iteration: int
    ) -> None:
        parts = {"parameters": parameters, "critic": self._policy.critic(), "normalizer": normalizer.tensors()}
        parts["extra"] = extra
        best = None
        if self.best is not None:
            parts |= {"best": self.best.parameters, "best_normalizer": self.best.normalizer.tensors()}
            parts["best_extra"] = self.best.extra
            best = {"iteration": self.best.iteration, "score": self.best.score}
        tensors = {f"{part}/{name}": value for part, named in parts.items() for name, value in named.items()}
        state = {
            "learner": self.name,
            "metarl": __version__,
            "settings": as_dict(self.settings),
            "policy_kwargs": encode(self.policy_kwargs),
            "iteration": iteration,
            "num_timesteps": self.num_timesteps,
            "line_search_failures": self.line_search_failures,
            "normalizer": {"clip": normalizer.clip, "epsilon": normalizer.epsilon},
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
        path = checkpoint_path(path)
        tensors, state = read_checkpoint(path)
        if state.get("learner") != cls.name:
            raise ValueError(f"{str(path)!r} is a checkpoint of learner {state.get('learner')!r}, not {cls.name!r}")
        try:
            data = dict(state["settings"])
            kept = decode(state["policy_kwargs"], policy_kwargs or {})
            if device is not None:
                data["device"] = device
            settings = structure(data, cls)
            learner = cls.__new__(cls)
            learner._begin(settings, kept, 0, None)
            learner._restore(tensors, state)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} is damaged or no checkpoint of metarl ({error!r})") from error
        return learner

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        shapes = dict(self._policy.shapes)
        self._policy.set_critic(_fitting(tensors, "critic", {k: v.shape for k, v in self._policy.critic().items()}))
        on_device = {name: value.to(self.device) for name, value in _fitting(tensors, "parameters", shapes).items()}
        self.parameters = on_device
        empty = replace(self.normalizer, **state["normalizer"])
        moments = {name: value.shape for name, value in empty.tensors().items()}
        self.normalizer = empty.restore(_fitting(tensors, "normalizer", moments))
        sizes = {name: value.shape for name, value in self.extra.items()}
        self.extra = {name: value.to(self.device) for name, value in _fitting(tensors, "extra", sizes).items()}
        if state["best"] is not None:
            best = state["best"]
            self.best = Best(
                int(best["iteration"]),
                float(best["score"]),
                {name: value.to(self.device) for name, value in _fitting(tensors, "best", shapes).items()},
                empty.restore(_fitting(tensors, "best_normalizer", moments)),
                {name: value.to(self.device) for name, value in _fitting(tensors, "best_extra", sizes).items()},
            )
        self.iteration = int(state["iteration"])
        self.num_timesteps = int(state["num_timesteps"])
        self.line_search_failures = int(state["line_search_failures"])


def _fitting(tensors: dict[str, Tensor], part: str, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Return a part of a checkpoint's tensors, by name."""
    found = {name.partition("/")[2]: value for name, value in tensors.items() if name.partition("/")[0] == part}
    if {name: value.shape for name, value in found.items()} != shapes:
        raise ValueError("the checkpoint's tensors do not fit its policy; it was damaged or edited")
    return {name: found[name] for name in shapes}


def _episodes(rollouts: list[Rollouts]) -> dict[str, Any]:
    """Return an iteration's episodes as stable-baselines3's callbacks read those of a step: all have ended."""
    if not rollouts:
        return {}
    returns = torch.cat([(part.rewards * part.mask).sum(dim=2).flatten() for part in rollouts]).double().numpy()
    lengths = torch.cat([part.mask.sum(dim=2).flatten() for part in rollouts]).long().tolist()
    infos = [{"episode": {"r": float(r), "l": length}} for r, length in zip(returns, lengths, strict=True)]
    return {"rewards": returns, "dones": np.ones(len(returns), dtype=np.bool_), "infos": infos}


def _as_callback(callback: Any) -> BaseCallback:
    if callback is None:
        return CallbackList([])
    if isinstance(callback, list):
        return CallbackList(callback)
    return callback if isinstance(callback, BaseCallback) else ConvertCallback(callback)
