"""What adapts: shared parameters, the policy they belong to, and how a few episodes change them for a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl import seeding
from metarl.adaptation_loop import adapt_on_rollouts
from metarl.adapter import Adapter
from metarl.agents import Normalizer, Parameters, Policy, Rollouts, Samples, build_policy, new_normalizer, to_samples
from metarl.envs import make
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.evaluation import Evaluation, evaluation_of
from metarl.gradients import task_axis
from metarl.gradients.adaptation import StepSize, inner_update
from metarl.gradients.devices import pick_device
from metarl.gradients.flat import one_task, task_parameters
from metarl.gradients.parallel import one_thread
from metarl.sampler import Sampler
from metarl.sb3.models_out import Model, fit_value, to_model
from metarl.settings import Settings
from metarl.state import State

# Numbered for the random streams; ``given`` are tasks of the caller's own.
SPLITS = (*task_tools.SPLITS, "given")
_MADE_AGAIN = ("_env", "backend", "step_size_map")


class MetaAgent:
    """An agent that adapts; ``BaseLearner`` adds how it is trained to.

    Hooks of a subclass: ``prepare_policy``, ``adapting_parameters``, ``initial_state``, ``validate``,
    ``begin_adaptation``, ``adapted``, ``step_size``, ``collect``, ``samples`` and ``inner_samples``.

    Attributes:
        settings: everything that determines it.
        functional_policy: the policy as pure functions of its parameters.
        state: all that training changes.
        sampler: plays episodes; it keeps vector environments and remembers nothing else.
        adapts: names of the parameters that adaptation changes; None for all.
        observation_space: of the family.
        action_space: of the family, as the policy's actions are.
        device: where updates run.
    """

    name = ""
    inner_objective: ClassVar[Literal["policy-gradient", "likelihood-ratio", "dice"]] = "policy-gradient"  # of its own
    adapts_by_experience: ClassVar[bool] = True  # False: ``adapt`` needs the task only, and plays no episodes

    def __init__(
        self,
        settings: Settings,
        policy_kwargs: dict[str, Any],
        policy: Policy | None = None,
        normalizer: Normalizer | None = None,
        buffers: Parameters | None = None,
    ) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.policy_kwargs = policy_kwargs
        self._env = make(settings.family, **settings.family_kwargs)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        built = policy or self._build_policy()
        self.functional_policy = self.prepare_policy(built if buffers is None else built.with_buffers(buffers))
        self.adapts = self.adapting_parameters(self.functional_policy)
        learning = settings.learning
        empty = new_normalizer(
            self.functional_policy.observation_space, learning.normalize_observations, learning.normalize_rewards
        )
        self._normalizer = empty if normalizer is None else replace(normalizer, returns=empty.returns)
        self.validate()
        self.state = self.initial_state()
        self.sampler = Sampler(settings.family, settings.family_kwargs, learning.workers, learning.step_timeout)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open or can be computed again, for ``copy`` and ``pickle``."""
        return {name: value for name, value in self.__dict__.items() if name not in _MADE_AGAIN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the environment again."""
        self.__dict__.update(state)
        self._env = make(self.settings.family, **self.settings.family_kwargs)

    def _build_policy(self) -> Policy:
        network = self.settings.policy
        arguments = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
        arguments |= self.policy_kwargs
        return build_policy(self.observation_space, self.action_space, seed=self.settings.seed, **arguments)

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy that is trained, made of the one that was built; a pure function of it and the settings.

        Raises:
            ValueError: the learner cannot train such a policy.
        """
        return policy

    def adapting_parameters(self, policy: Policy) -> frozenset[str] | None:
        """Return the names of the parameters that adaptation changes; None for all.

        Raises:
            ValueError: the settings ask for some that the policy does not have.
        """
        return None

    def validate(self) -> None:
        """Check that settings and policy fit each other, before any work.

        Raises:
            ValueError: they do not.
        """

    def initial_state(self) -> State:
        """Return the state before training; a subclass adds its own tensors to it."""
        parameters = {name: value.to(self.device) for name, value in self.functional_policy.parameters().items()}
        return State(parameters=parameters, critic=self.functional_policy.critic(), normalizer=self._normalizer)

    def begin_adaptation(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return what adaptation to a batch of tasks begins with: shared or stacked parameters as they are."""
        return parameters

    def samples(self, state: State, rollouts: Rollouts) -> Samples:
        """Return rollouts as objectives read them: ``[task, sample, ...]`` with advantages."""
        return self._estimate(state, rollouts)

    def inner_samples(self, state: State, rollouts: Rollouts) -> Samples:
        """Return rollouts as the inner update reads them: for DiCE discounted by time, with ``inner.baseline``."""
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
        """Return the size of adaptation step ``step`` (from 0) at evaluation; training uses the first for all."""
        inner = self.settings.inner
        return inner.step_size if step == 0 else inner.step_size * inner.later_step_scale

    def adapted(self, state: State, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters after adaptation step ``step`` (from 0) on rollouts collected with them."""
        samples = self.inner_samples(state, rollouts)
        return inner_update(self.functional_policy, parameters, samples, self.step_size(state, step), self.adapts)

    def as_policy(self, parameters: Parameters, state: State) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy with parameters (no task axis) and the learner's normalisation."""
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

        Args:
            task: a task of the family (anything ``as_task`` takes), or a ``gymnasium.Env`` with the family's
                spaces whose task need not be known (see ``adapter``).
            steps: adaptation steps; ``inner.steps`` where it is not given.
            episodes: fresh episodes for each step; ``learning.episodes`` where it is not given.
            seed: of the episodes; the learner's where it is not given.

        Raises:
            ValueError: a task outside the task space, an environment with other spaces, or a negative count.
        """
        steps, episodes, seed = self._adaptation_counts(steps, episodes, seed)
        if isinstance(task, gymnasium.Env):
            adapter = self.adapter(task, episodes=episodes, seed=seed)
            while adapter.updates < steps:
                adapter.play()
            return adapter.policy
        parameters = self._adapt_to(self._one_task(task), steps, episodes, seed)
        return self.as_policy(task_parameters(parameters, 0), self.state)

    def adapter(self, env: gymnasium.Env[Any, Any], *, episodes: int | None = None, seed: int | None = None) -> Adapter:
        """Return what adapts to one environment episode by episode, in a loop of one's own; see ``Adapter``.

        Args:
            env: with the family's spaces (its own action box or the mapped one); its task need not be known.
            episodes: after how many episodes the policy is updated; ``learning.episodes`` where it is not given.
            seed: of the actions and of the environment's resets; the learner's where it is not given.

        Raises:
            ValueError: an environment with other spaces, or a count that is not positive.
        """
        _, episodes, seed = self._adaptation_counts(None, episodes, seed)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(f"{type(env).__name__} is no gymnasium.Env; give the environment to adapt to")
        return Adapter(self, self.state, env, episodes, seed)

    def _adaptation_counts(self, steps: int | None, episodes: int | None, seed: int | None) -> tuple[int, int, int]:
        return (
            self.settings.inner.steps if steps is None else whole_number("steps", steps, least=0),
            self.settings.learning.episodes if episodes is None else whole_number("episodes", episodes),
            self.settings.seed if seed is None else whole_number("seed", seed, least=0),
        )

    def _single_tasks(self, tasks: Any) -> list[Any]:
        """Return the tasks of a batch; refuse an empty one, and tasks outside the space."""
        space = task_tools.task_space(self._env)
        single = [task_tools.as_task(self._env, task) for task in task_tools.unstack_tasks(space, tasks)]
        if not single:
            raise ValueError("the batch of tasks is empty; give at least one")
        return single

    def _one_task(self, task: Any) -> Any:
        return task_tools.stack_tasks(task_tools.task_space(self._env), [task_tools.as_task(self._env, task)])

    def _adapt_to(self, task: Any, steps: int, episodes: int, seed: int) -> Parameters:
        """Return the parameters adapted to a batch of one task."""
        if not self.adapts_by_experience:
            steps = 0
        streams = (seeding.streams(seed, seeding.ADAPTATION, step, tasks=range(1)) for step in range(steps))
        state = self.state
        return adapt_on_rollouts(
            self.begin_adaptation(one_task(state.parameters), task),
            lambda parameters, step: self.collect(state, parameters, task, next(streams), episodes=episodes),
            lambda parameters, rollouts, step: self.adapted(state, parameters, rollouts, step),
            steps,
            play_adapted=False,
        )[0]

    def collect(
        self,
        state: State,
        parameters: Parameters,
        tasks: Any,
        streams: Sequence[seeding.Stream],
        *,
        episodes: int | None = None,
    ) -> Rollouts:
        """Collect rollouts of a batch of tasks, or of those tasks in it that belong to this share (``task_axis``).

        Args:
            state: whose normaliser is used.
            parameters: shared (no task axis), or stacked with one row for each task that is played.
            tasks: the whole batch.
            streams: the randomness of each task of the batch.
            episodes: for each task; ``learning.episodes`` where it is not given.

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
        """Adapt to a task and return a model of stable-baselines3 (PPO or A2C) that goes on learning it.

        Its value function is fitted to ``episodes`` more episodes of the adapted policy; its optimizer is new.

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
        steps, episodes, chosen = self._adaptation_counts(steps, episodes, seed)
        one = self._one_task(task)
        parameters = self._adapt_to(one, steps, episodes, chosen)
        streams = seeding.streams(chosen, seeding.ADAPTATION, steps, tasks=range(1))
        rollouts = self.collect(self.state, parameters, one, streams, episodes=episodes)
        policy = self.as_policy(task_parameters(parameters, 0), self.state)
        fit_value(policy, rollouts, float(arguments.get("gamma", 0.99)), chosen)
        env = make(self.settings.family, task=task, **self.settings.family_kwargs)
        return to_model(algorithm, policy, env, **{"seed": chosen, "device": self.device, **arguments})

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
            tasks: a batch of tasks, which the result then calls ``given``; drawn from the split where it is not given.
            n_tasks: how many are drawn.
            episodes: for each task and step.
            steps: adaptation steps.
            seed: of tasks and episodes; the learner's where it is not given.

        Raises:
            ValueError: a count that is not positive, an unknown split, or tasks outside the task space.
        """
        return self.evaluate_rollouts(split, tasks, n_tasks, episodes, steps, seed)[0]

    def evaluate_rollouts(
        self,
        split: str,
        tasks: Any = None,
        n_tasks: int | None = None,
        episodes: int | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> tuple[Evaluation, list[Any], list[Rollouts]]:
        """Return an evaluation, and its first group of tasks with their rollouts after 0, 1, ... steps."""
        evaluating = self.settings.evaluation
        steps = evaluating.steps if steps is None else whole_number("steps", steps)
        episodes = evaluating.episodes if episodes is None else whole_number("episodes", episodes)
        seed = self.settings.seed if seed is None else whole_number("seed", seed, least=0)
        if tasks is None:
            standard = evaluating.test_tasks if split == "test" else evaluating.tasks
            wanted = standard if n_tasks is None else whole_number("tasks", n_tasks)
            tasks = task_tools.draw_tasks(self._env, wanted, task_tools.task_rng(seed, split), split)
        else:
            split = "given"
        single = self._single_tasks(tasks)
        # Groups of the size of training, so that its environments serve again.
        size = self.settings.learning.tasks
        groups = [range(start, min(start + size, len(single))) for start in range(0, len(single), size)]
        state = self.state
        rollouts = [self._adapt_group(state, single, group, episodes, steps, seed, split) for group in groups]
        shared = task_tools.attribute(self._env, "splits_share_tasks", False)
        oracle = task_tools.attribute(self._env, "oracle_return")
        evaluation = evaluation_of(
            rollouts,
            family=self.settings.family,
            learner=self.name,
            split=f"{split} (the tasks of training)" if shared and split != "given" else split,
            seed=self.settings.seed,
            evaluation_seed=seed,
            iteration=state.iteration,
            episodes=episodes,
            oracle=None if oracle is None else np.array([oracle(task) for task in single]),
            timesteps=state.num_timesteps,
        )
        return evaluation, [single[i] for i in groups[0]], rollouts[0]

    def _adapt_group(
        self, state: State, single: list[Any], group: range, episodes: int, steps: int, seed: int, split: str
    ) -> list[Rollouts]:
        tasks = task_tools.stack_tasks(task_tools.task_space(self._env), [single[i] for i in group])
        key = (seeding.EVALUATION, SPLITS.index(split))

        def collect(parameters: Parameters, step: int) -> Rollouts:
            streams = seeding.streams(seed, *key, step, tasks=group)
            return self.collect(state, parameters, tasks, streams, episodes=episodes)

        return adapt_on_rollouts(
            self.begin_adaptation(state.parameters, tasks),
            collect,
            lambda parameters, rollouts, step: self.adapted(state, parameters, rollouts, step),
            steps,
        )[1]

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
        """How many meta-iterations were made."""
        return self.state.iteration

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family, as the learner reads its spaces and tasks from."""
        return self._env

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy before adaptation, a copy as a stable-baselines3 policy."""
        return self.as_policy(self.parameters, self.state)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Return actions of the policy before adaptation, as stable-baselines3's ``predict`` does."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def close(self) -> None:
        """Close the environments."""
        self.sampler.close()
        self._env.close()
