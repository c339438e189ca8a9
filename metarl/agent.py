"""An agent that adapts: shared parameters, their policy, and the adaptation to a task from a few episodes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.adapter import Adapter
from metarl.agents import (
    InnerObjective,
    Normalizer,
    Parameters,
    Policy,
    Rollouts,
    Samples,
    build_policy,
    to_samples,
)
from metarl.agents.policies.context import with_context
from metarl.agents.policies.selection import selected
from metarl.envs import make, own_actions
from metarl.envs import tasks as task_tools
from metarl.envs.sequence import task_list
from metarl.envs.sync import close_or_warn
from metarl.envs.tasks import whole_number
from metarl.gradients import task_axis
from metarl.gradients.adaptation import StepSize, inner_update
from metarl.gradients.devices import pick_device
from metarl.gradients.flat import one_task, task_parameters
from metarl.gradients.parallel import one_thread
from metarl.guide.faults import shown
from metarl.protocols.evaluated import Evaluated
from metarl.recommending.recommended import Recommended
from metarl.sampler import Sampler
from metarl.sb3.models_out import Model, fit_value, refuse_other_algorithms, to_model
from metarl.sb3.own_actions import which_actions
from metarl.settings import Settings
from metarl.state import State
from metarl.training.schedules import in_force
from metarl.training.warning import warn_caller

Objective = Literal["policy-gradient", "likelihood-ratio", "dice"]
_Policy = TypeVar("_Policy", bound=BasePolicy)


class MetaAgent(Evaluated, Recommended):
    """An agent that adapts to tasks; ``BaseLearner`` adds meta-training.

    Hooks of a subclass: ``prepare_policy``, ``adapting_parameters``, ``initial_state``, ``validate``,
    ``begin_adaptation``, ``adapted``, ``step_size``, ``collect``, ``samples`` and ``inner_samples``.

    Attributes:
        settings: all settings of a run; step sizes with a schedule have the value in force in the last iteration.
        given_settings: all settings as they were given, with schedules.
        functional_policy: the policy as pure functions of its parameters.
        tasks_trained_on: digests of the tasks that were given to ``learn`` (``evaluation.task_digest``).
        state: everything that training changes.
        sampler: plays episodes; its only state are vector environments.
        adapts: names of the parameters that adaptation changes; None for all.
        observation_space: of the family.
        action_space: of the family, with a box of actions mapped to [-1, 1].
        device: where updates run.
    """

    name = ""
    # What the inner update descends where ``inner.objective`` is "auto".
    inner_objective: ClassVar[InnerObjective | Objective] = "policy-gradient"
    adapts_by_experience: ClassVar[bool] = True  # False: ``adapt`` needs only the task, and plays no episodes
    remembers: ClassVar[bool] = False  # True: it adapts by its memory, without inner steps
    policy_name: ClassVar[str] = "MlpPolicy"  # where policy.name is not given
    learns_to_adapt: ClassVar[bool] = True  # False: training makes no inner updates, as in baselines

    def __init__(
        self,
        settings: Settings,
        policy_kwargs: dict[str, Any],
        policy: Policy | None = None,
        normalizer: Normalizer | None = None,
        buffers: Parameters | None = None,
    ) -> None:
        self.given_settings = settings
        self.tasks_trained_on: frozenset[str] = frozenset()
        self._said: frozenset[str] = frozenset()
        self.device = pick_device(settings.device)
        self.policy_kwargs = policy_kwargs
        self._env = make(settings.family, **settings.family_kwargs)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        built = policy or self._build_policy()
        self.functional_policy = self.prepare_policy(built if buffers is None else built.with_buffers(buffers))
        self.adapts = self.adapting_parameters(self.functional_policy)
        learning = settings.learning
        empty = self.functional_policy.new_normalizer(learning.normalize_observations, learning.normalize_rewards)
        self._normalizer = empty if normalizer is None else replace(normalizer, returns=empty.returns)
        self.validate()
        self.state = self.initial_state()
        more = (learning.workers, learning.step_timeout, settings.evaluation.record, settings.augment)
        self.sampler = Sampler(settings.family, settings.family_kwargs, *more, learning.restart_workers)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``, without what ``__setstate__`` or first use makes again."""
        cached = {name for name in vars(self) if isinstance(getattr(type(self), name, None), functools.cached_property)}
        return {name: value for name, value in vars(self).items() if name != "_env" and name not in cached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes and make the environment again."""
        self.__dict__.update(state)
        self._env = make(self.settings.family, **self.settings.family_kwargs)

    @property
    def settings(self) -> Settings:
        """All settings of a run, with the step sizes in force in the last iteration."""
        state: State | None = vars(self).get("state")
        return in_force(self.given_settings, 1.0 if state is None else state.progress_remaining)

    def _build_policy(self) -> Policy:
        given, seed = self.settings.policy, self.settings.seed
        arguments = {**given.arguments(), "trained": given.trained(seed), **self.policy_kwargs}
        return build_policy(self.observation_space, self.action_space, seed=seed, **arguments)

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy to train, made from the one that was built; a pure function of it and the settings.

        Raises:
            ValueError: the learner cannot train such a policy.
        """
        policy.need_no_memory(self.name)
        given = self.settings
        if given.inner.adapts == "context":
            return with_context(policy, given.policy.context_size, given.seed, "inner.adapts = 'context'")
        return policy

    def adapting_parameters(self, policy: Policy) -> frozenset[str] | None:
        """Return the names of the parameters that adaptation changes, by ``inner.adapts``; None for all.

        Raises:
            ValueError: the settings name parameters that the policy does not have.
        """
        return selected(policy, self.settings.inner.adapts)

    def validate(self) -> None:
        """Check that the settings fit the policy, before any computation.

        Raises:
            ValueError: they do not fit.
        """

    def initial_state(self) -> State:
        """Return the state before training; subclasses add their own tensors."""
        parameters = {name: value.to(self.device) for name, value in self.functional_policy.parameters().items()}
        return State(parameters=parameters, critic=self.functional_policy.critic(), normalizer=self._normalizer)

    def begin_adaptation(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return the parameters with which adaptation to a batch of tasks begins; here those given, unchanged."""
        return parameters

    def samples(self, state: State, rollouts: Rollouts) -> Samples:
        """Return the samples of rollouts, ``[task, sample, ...]``, with advantages."""
        return self._estimate(state, rollouts)

    def inner_samples(self, state: State, rollouts: Rollouts) -> Samples:
        """Return the samples for the inner update: for DiCE, discounted by time and with ``inner.baseline``."""
        inner = self.settings.inner
        if inner.objective_of(self) != "dice":
            return self.samples(state, rollouts)
        return self._estimate(state, rollouts, baseline=inner.baseline, discounted=True)

    def _estimate(self, state: State, rollouts: Rollouts, **options: Any) -> Samples:
        rollouts = replace(
            rollouts,
            observations=state.normalizer.observe(rollouts.observations),
            rewards=state.normalizer.scale_rewards(rollouts.rewards),
        ).to(self.device)
        learning = self.settings.learning
        features = self.functional_policy.features(rollouts.observations)
        options = {"gamma": learning.gamma, "gae_lambda": learning.gae_lambda, **options}
        with one_thread():
            return to_samples(rollouts, features, **options)

    def step_size(self, state: State, step: int) -> StepSize:
        """Return the size of adaptation step ``step`` (from 0) at evaluation; training uses that of step 0 for all."""
        inner = in_force(self.given_settings, state.progress_remaining).inner
        return inner.step_size if step == 0 else inner.step_size * inner.later_step_scale

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters after adaptation step ``step`` (from 0) on rollouts collected with them."""
        samples = self.inner_samples(state, rollouts)
        return inner_update(self.functional_policy, parameters, samples, self.step_size(state, step), self.adapts)

    def as_policy(self, parameters: Parameters, state: State) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy with these parameters (no task axis) and the state's normalisation."""
        return self.functional_policy.module(parameters, state.critic, state.normalizer, self.device)

    def adapt(
        self,
        task: Any,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        seed: int | None = None,
    ) -> ActorCriticPolicy:
        """Adapt to a task and return the adapted policy, a stable-baselines3 policy; the learner does not change.

        Adapted to a task, the policy acts in the action space of ``metarl.make``, where boxes are [-1, 1]; adapted to
        an environment, in that environment's own. A warning says so, once, where the family's own action space is
        another.

        Args:
            task: a task of the family (anything ``as_task`` accepts), or a ``gymnasium.Env`` with the family's
                spaces, whose task need not be known (see ``adapter``).
            steps: adaptation steps; default ``evaluation.steps``.
            episodes: new episodes for each step; default ``evaluation.episodes``.
            seed: of the episodes; default the learner's.

        Raises:
            ValueError: a task outside the task space, an environment with other spaces, or a negative count.
        """
        steps, episodes, seed = self._adaptation_counts(steps, episodes, seed)
        if isinstance(task, gymnasium.Env):
            adapter = self.adapter(task, episodes=episodes, seed=seed)
            while adapter.updates < steps:
                adapter.play()
            return adapter.policy
        parameters = self._adapt_to(self._one_task(task), steps, episodes, seed)[-1]
        return self._for_made_environments(self.as_policy(task_parameters(parameters, 0), self.state))

    def adapter(self, env: gymnasium.Env[Any, Any], *, episodes: int | None = None, seed: int | None = None) -> Adapter:
        """Return an ``Adapter``, which adapts to one environment episode by episode, in a loop of your own.

        Args:
            env: with the family's spaces (its own action box or the mapped one); its task need not be known.
            episodes: the number of episodes between updates of the policy; default ``evaluation.episodes``.
            seed: of the actions and of the environment's resets; default the learner's.

        Raises:
            ValueError: an environment with other spaces, or a count that is not positive.
        """
        _, episodes, seed = self._adaptation_counts(None, episodes, seed)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(f"{type(env).__name__} is no gymnasium.Env; give the environment to adapt to")
        return Adapter(self, self.state, env, episodes, seed)

    def _adaptation_counts(self, steps: int | None, episodes: int | None, seed: int | None) -> tuple[int, int, int]:
        return (
            self.settings.evaluation.steps if steps is None else whole_number("steps", steps, least=0),
            self.settings.evaluation.episodes if episodes is None else whole_number("episodes", episodes),
            self.settings.seed if seed is None else whole_number("seed", seed, least=0),
        )

    def single_tasks(self, tasks: Any) -> list[Any]:
        """Return tasks, however they are given, as a list of elements of the task space."""
        return task_list(self._env, tasks)

    def _one_task(self, task: Any) -> Any:
        if isinstance(task, type) or (isinstance(task, str) and task in gymnasium.registry):
            made = f"gymnasium.make({task!r})" if isinstance(task, str) else f"{task.__name__}()"
            raise ValueError(f"{shown(task)} is no task but stands for an environment; give one that is made: {made}")
        return task_tools.stack_tasks(task_tools.task_space(self._env), [task_tools.as_task(self._env, task)])

    def adaptation(
        self, task: Any, *, steps: int | None = None, episodes: int | None = None, seed: int | None = None
    ) -> list[Parameters]:
        """Return the stacked parameters of one task after 0, 1, ... adaptation steps; the last are those of ``adapt``.

        The arguments and errors are those of ``adapt`` with a task. A learner that adapts without experience returns
        only those that it acts with.
        """
        return self._adapt_to(self._one_task(task), *self._adaptation_counts(steps, episodes, seed))

    def _adapt_to(self, task: Any, steps: int, episodes: int, seed: int) -> list[Parameters]:
        """Return the parameters of a batch of a single task after 0, 1, ... steps."""
        steps = steps if self.adapts_by_experience else 0
        state = self.state
        before: list[Parameters] = []

        def collect(parameters: Parameters, step: int) -> Rollouts:
            before.append(parameters)
            streams = seeding.streams(seed, seeding.ADAPTATION, step, tasks=range(1))
            return self.collect(state, parameters, task, streams, episodes=episodes)

        last, _ = adapt_on_rollouts(
            self.begin_adaptation(one_task(state.parameters), task),
            collect,
            lambda parameters, rollouts, step: self.adapted(state, parameters, rollouts, step),
            steps,
            play_adapted=False,
        )
        return [*before, last]

    def collect(
        self,
        state: State,
        parameters: Parameters,
        tasks: Any,
        streams: Sequence[seeding.Stream],
        *,
        episodes: int | None = None,
        deterministic: bool = False,
    ) -> Rollouts:
        """Collect rollouts of a batch of tasks; with several shares (``task_axis``), of this share's tasks.

        Args:
            state: whose normaliser is used.
            parameters: shared (no task axis), or stacked with one row for each task that is played.
            tasks: the whole batch.
            streams: the random stream of each task of the batch.
            episodes: for each task; default ``learning.episodes``.
            deterministic: whether the most likely actions are taken.

        Raises:
            RolloutError: an environment failed.
        """
        own = task_axis.own_tasks(len(streams))
        played = tasks if len(own) == len(streams) else task_tools.take_tasks(tasks, np.asarray(own))
        rollouts = self.sampler.collect(
            self.functional_policy,
            parameters,
            state.normalizer,
            played,
            episodes or self.settings.learning.episodes,
            [streams[task] for task in own],
            deterministic=deterministic,
        )
        return task_axis.same_length(rollouts)

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
        """Adapt to a task and return a stable-baselines3 model (PPO or A2C) that can continue learning it.

        The model's value function is fitted to ``episodes`` more episodes of the adapted policy; its optimizer is new.

        Args:
            algorithm: the model's class.
            task: a task of the family, for which an environment is made, or a ``gymnasium.Env``, as for ``adapt``, in
                which the model adapts and goes on learning, with its own action space.
            steps: adaptation steps before, as for ``adapt``; 0 keeps the shared parameters.
            episodes: for each step, as for ``adapt``.
            seed: of adaptation and of the model.
            arguments: further arguments of the model.

        Raises:
            ValueError: see ``adapt``; or the algorithm is not an on-policy one.
        """
        steps, episodes, chosen = self._adaptation_counts(steps, episodes, seed)
        refuse_other_algorithms(algorithm)
        if isinstance(task, gymnasium.Env):
            env = task
            adapter = self.adapter(env, episodes=episodes, seed=chosen)
            adapter.max_updates = steps
            for _ in range((steps + 1) * episodes):
                adapter.play()
            policy, rollouts = adapter.policy, adapter.rollouts
        else:
            one = self._one_task(task)
            parameters = self._adapt_to(one, steps, episodes, chosen)[-1]
            streams = seeding.streams(chosen, seeding.ADAPTATION, steps, tasks=range(1))
            rollouts = self.collect(self.state, parameters, one, streams, episodes=episodes)
            policy = self.as_policy(task_parameters(parameters, 0), self.state)
            env = make(self.settings.family, task=task, **self.settings.family_kwargs)
        fit_value(self.functional_policy.behind_front(policy), rollouts, float(arguments.get("gamma", 0.99)), chosen)
        return to_model(algorithm, policy, env, **{"seed": chosen, "device": self.device, **arguments})

    @property
    def parameters(self) -> Parameters:
        """The shared parameters, no task axis."""
        return self.state.parameters

    @property
    def normalizer(self) -> Normalizer:
        """Statistics of observations and rewards."""
        return self.state.normalizer

    @property
    def iteration(self) -> int:
        """The number of meta-iterations so far."""
        return self.state.iteration

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family, from which the learner reads spaces and tasks."""
        return self._env

    @property
    def policy(self) -> ActorCriticPolicy:
        """A copy of the policy before adaptation, as a stable-baselines3 policy.

        It acts in the action space of ``metarl.make``, as that of ``adapt(task)``; ``adapt(env, steps=0)`` returns the
        one for an environment of your own.
        """
        return self._for_made_environments(self.as_policy(self.parameters, self.state))

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Return actions of the policy before adaptation, as stable-baselines3's ``predict`` does."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def say_once(self, sentence: str) -> None:
        """Give a warning at the line that called metarl, unless this learner has given the same one."""
        if sentence not in self._said:
            self._said |= {sentence}
            warn_caller(sentence)

    def _for_made_environments(self, policy: _Policy) -> _Policy:
        """Return a policy; warn if environments of the family that ``metarl.make`` did not make take other actions."""
        own = own_actions(self._env)
        if own != self.action_space:
            self.say_once(which_actions(self.action_space, own, "episodes" if self.remembers else "steps"))
        return policy

    def close(self) -> None:
        """Close the environments."""
        self.sampler.close()
        close_or_warn(self._env)


def learner_of(model: Any) -> MetaAgent:
    """Return the learner itself, of ``MetaLearner`` the one that it holds.

    Raises:
        ValueError: it is no learner.
    """
    for found in (model, getattr(model, "learner", None)):
        if isinstance(found, MetaAgent):
            return found
    raise ValueError(
        f"the model is of type {type(model).__name__}; expected a learner, as metarl.MAML.load('runs/navigation')"
    )
