"""The base class of all meta-learners: an interface like stable-baselines3's, and the training loop."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Never, Self

from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from metarl import checkpoints
from metarl.agent import MetaAgent
from metarl.agents import Normalizer, Parameters, Policy
from metarl.augmenting.drawn import TrainingTasks
from metarl.envs import RandomTask, make
from metarl.envs import tasks as task_tools
from metarl.envs.references import as_family
from metarl.envs.registry import FamilyLike
from metarl.evaluation import task_digest
from metarl.gradients.meta_update import TrustRegion
from metarl.guide.meanings import Documented
from metarl.learners.registry import option_owner
from metarl.sb3 import loggers
from metarl.sb3.bounds import Bounded
from metarl.sb3.callbacks import as_callback
from metarl.sb3.models_in import take_over
from metarl.sb3.policy_arguments import encode
from metarl.settings import Settings, as_dict, structure_arguments
from metarl.state import Best, Outcome, State
from metarl.training.adaptation_check import AdaptationCheck
from metarl.training.family_check import check_family
from metarl.training.loop import counted, refuse_arguments, train
from metarl.training.schedules import Horizon
from metarl.training.standstill import Standstill
from metarl.version import __version__


class BaseLearner(MetaAgent, TrainingTasks):
    """A meta-learner: shared parameters, and the meta-training that makes them adapt well.

    A learner is a subclass with ``meta_iteration`` and ``outer_settings``: the dataclasses that ``[outer]`` can be,
    chosen by ``outer.update``, the first by default. ``options`` is a dataclass of settings that are added to each.
    What a learner keeps besides the shared parameters (such as learned step sizes or Adam's moments) are tensors in
    ``State.own_tensors``, which checkpoints hold: ``initial_state`` makes them, ``meta_iteration`` returns new ones.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"GruPolicy"`` or ``"module:Class"``.
        family: the id of an environment family, or ``module:Id``; what ``metarl.parameterized`` returns; or a class or
            function that makes its environments.
        family_kwargs: arguments of the family's constructor.
        learning: a dict of the settings of ``[learning]``, as for ``inner``, ``outer`` and ``evaluation``.
        inner: settings of the inner update.
        outer: settings of the meta-update.
        augment: settings of augmentation in training.
        evaluation: settings of validation and test.
        policy_kwargs: settings of ``[policy]`` (hidden_sizes, activation, output_gain, log_std_init, log_std_min)
            and any other argument of the stable-baselines3 policy (net_arch, activation_fn, ...).
        seed: of everything that is random.
        device: where updates run; ``auto`` is the GPU if there is one. Rollouts run on the CPU.
        verbose: from 1 on, a table is printed for each iteration.
        tensorboard_log: the folder for TensorBoard, or None.

    Raises:
        ValueError: an unknown family or device, or settings that are unknown or out of range, all named.
    """

    outer_settings: ClassVar[tuple[type[Any], ...]] = (TrustRegion,)
    options: ClassVar[type[Any] | None] = None
    trains: ClassVar[bool] = True  # False: ``learn`` only validates
    source: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.__doc__ = Documented(cls.__doc__)  # type: ignore[assignment]
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}:{cls.__qualname__}"

    def __init__(
        self,
        policy: str | None = None,
        family: FamilyLike = "metarl/Navigation2D-v0",
        *,
        family_kwargs: dict[str, Any] | None = None,
        learning: dict[str, Any] | None = None,
        inner: dict[str, Any] | None = None,
        outer: dict[str, Any] | None = None,
        augment: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        seed: int = 1,
        device: str = "auto",
        verbose: int = 0,
        tensorboard_log: str | Path | None = None,
        **unknown: Never,
    ) -> None:
        self._begin(
            *structure_arguments(
                type(self),
                option_owner,
                policy,
                policy_kwargs,
                family=family,
                seed=seed,
                device=device,
                family_kwargs=family_kwargs,
                learning=learning,
                inner=inner,
                outer=outer,
                augment=augment,
                evaluation=evaluation,
                **unknown,
            ),
            verbose,
            tensorboard_log,
        )

    @classmethod
    def from_settings(cls, settings: Settings, policy_kwargs: Any = None, buffers: Parameters | None = None) -> Self:
        """Return a new learner from settings, and further arguments and buffers of its policy, as checkpoints have."""
        learner = cls.__new__(cls)
        learner._begin(settings, policy_kwargs or {}, 0, None, buffers=buffers)
        return learner

    def _begin(
        self,
        settings: Settings,
        policy_kwargs: dict[str, Any],
        verbose: int,
        tensorboard_log: str | Path | None,
        policy: Policy | None = None,
        normalizer: Normalizer | None = None,
        buffers: Parameters | None = None,
    ) -> None:
        super().__init__(settings, policy_kwargs, policy, normalizer, buffers)
        self.verbose = loggers.checked_verbosity(verbose)
        self.tensorboard_log = loggers.checked_folder(tensorboard_log)
        self.best: Best | None = None
        self.horizon = Horizon()
        self.adaptation_check = AdaptationCheck()
        self.standstill = Standstill()
        self._family_checked = False
        self._given_tasks: Any = None
        self._close_outside()

    def _close_outside(self) -> None:
        """Set the logger and the environment for callbacks to none."""
        self._logger: Logger | None = None
        self._own_logger = False
        self._callback_env: VecEnv | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``, without logger and open environments."""
        outside = ("_logger", "_own_logger", "_callback_env")
        return {name: value for name, value in super().__getstate__().items() if name not in outside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, without a logger."""
        super().__setstate__(state)
        self._close_outside()

    @classmethod
    def from_pretrained(
        cls,
        source: Any,
        family: FamilyLike = "metarl/Navigation2D-v0",
        *,
        policy_kwargs: dict[str, Any] | None = None,
        vec_normalize: VecNormalize | None = None,
        check_spaces: bool = True,
        verbose: int = 0,
        tensorboard_log: str | Path | None = None,
        **sections: Any,
    ) -> Self:
        """Return a new learner that starts from a PPO or A2C model of stable-baselines3.

        It has the model's architecture and weights, including the value function. A model that was trained on the
        family's own action box is converted to the equivalent one for the box [-1, 1]. The floor ``policy.log_std_min``
        is lowered to the model's log_std if that is smaller.

        Args:
            source: the model, or the path of its zip file, of which only tensors and plain JSON are read.
            family: the id of an environment family with the spaces the model was trained on.
            policy_kwargs: what a file keeps only as pickled code, as own classes; and what is trained.
            vec_normalize: the ``VecNormalize`` that the model was trained with, whose observation statistics are taken
                over and go on running; a model that still has its environments brings its own.
            check_spaces: refuse a model whose spaces are not the family's; False insists that they mean the same.
            verbose: as for the class.
            tensorboard_log: as for the class.
            sections: as for the class: ``seed``, ``device``, ``family_kwargs``, ``learning``, ``inner``, ...

        Raises:
            ValueError: a model that cannot be used (state-dependent noise, squashed actions, other algorithms), one
                that does not fit the family, or a file that is damaged or incomplete.
        """
        family, sections["family_kwargs"] = as_family(family, sections.get("family_kwargs") or {})
        taken = take_over(
            source,
            family,
            sections["family_kwargs"],
            policy_kwargs or {},
            vec_normalize,
            log_std_min=Settings().policy.log_std_min,
            check_spaces=check_spaces,
        )
        if taken.normalizer is not None:
            sections["learning"] = {**(sections.get("learning") or {}), "normalize_observations": True}
        settings, kept = structure_arguments(
            cls, option_owner, taken.policy_name, taken.architecture, family=family, **sections
        )
        learner = cls.__new__(cls)
        policy = taken.policy(settings.policy.log_std_min, settings.policy.trained(settings.seed))
        learner._begin(settings, kept, verbose, tensorboard_log, policy, taken.normalizer)
        return learner

    def learn(
        self,
        *positional: object,
        iterations: int | None = None,
        tasks: Any = None,
        total_timesteps: float | None = None,
        callback: Any = None,
        log_interval: int | None = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        **unknown: Never,
    ) -> Self:
        """Meta-train.

        Step sizes with a schedule go from its start to its end in this call. As in stable-baselines3, a call with
        ``reset_num_timesteps=False`` goes on in the schedule of the calls before; and so does a call that ends where an
        interrupted one would have ended.

        Args:
            positional: none; what the first argument counts has to be named.
            iterations: how many more; ``learning.iterations`` if neither this nor ``total_timesteps`` is given.
            tasks: a batch of tasks to train on in every iteration; default: new tasks are drawn in each.
            total_timesteps: stop after the iteration that reaches this many environment steps, counted from the current
                ``num_timesteps``, if ``iterations`` does not stop it before; a whole number, which may be written as
                ``1e5``.
            callback: a stable-baselines3 callback, a list of callbacks, or a function; its ``_on_step`` is called
                after each iteration and stops training by returning False.
            log_interval: iterations between writes to the logger; None: only a callback and the last iteration write.
            tb_log_name: the name of the run under ``tensorboard_log``.
            reset_num_timesteps: count environment steps from 0 and begin a new TensorBoard run; else continue the
                latest run of that name. A logger given to ``set_logger`` is kept.
            progress_bar: show a bar that counts iterations.
            unknown: none; another name is refused, with the nearest.

        Raises:
            TypeError: an argument by position, or one that there is not.
            ValueError: a count that is no whole number of at least 1, or tasks outside the task space; or see
                ``check_family``.
            RolloutError: an environment raised an error or returned numbers that are not finite.
            FloatingPointError: the meta-gradient is not finite; the parameters are unchanged.
        """
        refuse_arguments(self.learn, positional, unknown)
        if iterations is None and total_timesteps is None:
            iterations = self.settings.learning.iterations
        iterations, log_interval = counted("iterations", iterations), counted("log_interval", log_interval)
        total_timesteps = counted("total_timesteps", total_timesteps, as_float=True)
        self.check_family()
        self._given_tasks, digests = None, set()
        if tasks is not None:
            self.refuse_few_tasks()
            single = self.single_tasks(tasks)
            self._given_tasks = task_tools.stack_tasks(task_tools.task_space(self._env), single)
            digests = {task_digest(task) for task in single}
        if reset_num_timesteps:
            self.state = replace(self.state, num_timesteps=0, earlier_timesteps=self.state.all_timesteps)
        if not self._own_logger:
            if self._logger is not None:
                self._logger.close()
            name = tb_log_name or type(self).__name__
            self._logger = loggers.default_logger(self.verbose, self.tensorboard_log, name, reset_num_timesteps)
        before, steps = self.iteration, self.num_timesteps
        last = None if iterations is None else before + iterations
        last_step = None if total_timesteps is None else steps + total_timesteps
        self.horizon = self.horizon.following(before, steps, last, last_step, new=reset_num_timesteps)
        callbacks = as_callback(callback)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        # A callback's progress bar can only count its calls, one for each iteration.
        expected = last_step if iterations is None else steps + iterations
        callbacks.on_training_start({"self": self, "total_timesteps": expected, "tb_log_name": tb_log_name}, globals())
        try:
            with loggers.progress_bar(before, iterations, shown=progress_bar) as bar:
                train(self, callbacks, bar, last_iteration=last, last_timestep=last_step, log_interval=log_interval)
        finally:
            if self.iteration > before:
                self.tasks_trained_on |= digests
        callbacks.on_training_end()
        return self

    def check_family(self) -> None:
        """Play a few episodes before training begins, once; see ``training.family_check.check_family``.

        Raises:
            ValueError: no episode ends and there is no time limit, or no ``info`` has what a setting names.
            RolloutError: an observation or reward is not finite.
        """
        self.check_augmentation()
        if self.iteration == 0 and not self._family_checked:
            check_family(self.settings)
        self._family_checked = True

    def meta_iteration(self, state: State, iteration: int) -> Outcome:
        """Collect, adapt, collect again, and return the next state, without changing the learner or ``state``.

        Args:
            state: before the iteration.
            iteration: its number, from 1, which is part of the keys of random streams.
        """
        raise NotImplementedError

    def check_state(self, state: State) -> None:
        """Check a state read from a checkpoint, whose shapes, types and finite numbers were checked before.

        Raises:
            ValueError: an own tensor has values that the learner's cannot have.
        """

    @property
    def num_timesteps(self) -> int:
        """Environment steps of training so far."""
        return self.state.num_timesteps

    @property
    def logger(self) -> Logger:
        """The logger; ``learn`` makes one unless one was set."""
        if self._logger is None:
            raise ValueError("the learner has no logger yet; call learn() or set_logger() first")
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Use a stable-baselines3 logger in every later ``learn``."""
        self._logger = logger
        self._own_logger = True

    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was recorded since the last write; stable-baselines3's ``LogEveryNTimesteps`` calls this."""
        if self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)

    def get_env(self) -> VecEnv:
        """Return an environment of the family for stable-baselines3's callbacks; each episode has a new task."""
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
        """Write a checkpoint to ``path`` (``.zip`` is added if it is missing).

        Raises:
            ValueError: the state has numbers that are not finite, with which nobody could go on; an old file is kept.
        """
        self._write(checkpoints.checkpoint_path(path), self.state)

    def save_best(self, path: str | Path) -> None:
        """Write a checkpoint with the parameters of the best validation.

        Raises:
            ValueError: there was no validation yet.
        """
        if self.best is None:
            raise ValueError("there was no validation yet; learn() validates every evaluation.every iterations")
        # The steps of the whole training, since all of it was used to choose these parameters.
        steps = {name: getattr(self.state, name) for name in ("num_timesteps", "earlier_timesteps")}
        self._write(checkpoints.checkpoint_path(path), replace(self.best.state, **steps))

    def _write(self, path: Path, state: State) -> None:
        facts = {"learner": self.name, "metarl": __version__, "settings": as_dict(self.given_settings)}
        facts["policy_kwargs"] = encode(self.policy_kwargs)
        facts["horizon"] = asdict(self.horizon)
        facts["tasks_trained_on"] = sorted(self.tasks_trained_on)
        best = None if self.best is None else (self.best.score, self.best.state)
        checkpoints.write_checkpoint(path, state, best, facts, self.functional_policy.buffers())

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        allow: checkpoints.Allowed = False,
    ) -> Self:
        """Return the learner of a checkpoint.

        The file holds no code, but may name modules of yours: of the learner, the policy, the family and its arguments.
        Such a module is imported, and so run, only if ``allow`` names it or it needs no permission: modules that your
        program has imported already, those of metarl, torch, stable_baselines3, gymnasium and numpy, and those that
        installed packages name in the entry-point groups ``metarl.envs`` and ``metarl.learners``.

        Args:
            path: as given to ``save``, or a run's folder: the best on validation tasks so far.
            device: where updates run; default: the device in the checkpoint's settings.
            policy_kwargs: arguments that the file cannot hold (classes that are not torch's), as given to the class.
            allow: modules that may be imported, a name or several, each with the modules inside it; True: any.

        Raises:
            ValueError: the file is not a checkpoint, is damaged, is of another learner, names a module that may not be
                imported, or its tensors do not fit the policy.
        """
        path = checkpoints.stored_checkpoint(path)
        checkpoint = checkpoints.read_checkpoint(path)
        facts, tensors = checkpoint.facts, checkpoint.all_tensors()
        if facts["learner"] != cls.name:
            raise ValueError(f"{str(path)!r} is a checkpoint of learner {facts['learner']!r}, not {cls.name!r}")
        checkpoints.refuse_imports(path, facts, allow)
        with checkpoints.refused_in_a_sentence(path), Bounded(tensors):
            settings, kept = checkpoints.checked_settings(facts, tensors, cls, option_owner, device, policy_kwargs)
            learner = cls.__new__(cls)
            learner._begin(settings, kept, 0, None, buffers=checkpoint.tensors.get("buffers"))
            try:
                checkpoint.check_buffers(learner.functional_policy.buffers())
                learner.state, best = checkpoint.states(learner.state)
                for state in [learner.state] if best is None else [learner.state, best[1]]:
                    learner.check_state(state)
            except BaseException:
                learner.close()
                raise
        learner.horizon = Horizon(**facts.get("horizon", {}))
        learner.tasks_trained_on = frozenset(facts.get("tasks_trained_on", ()))
        learner.best = None if best is None else Best(*best)
        return learner
