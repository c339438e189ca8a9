"""What adapts: shared parameters, the policy they belong to, and how a few episodes change them for a task."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl import seeding
from metarl.adapter import Adapter
from metarl.agents import Parameters, Policy, Rollouts, Samples, build_policy, new_normalizer, to_samples
from metarl.agents.policies import Actor
from metarl.devices import pick_device
from metarl.envs import make
from metarl.envs import tasks as task_tools
from metarl.envs.tasks import whole_number
from metarl.evaluation import Evaluation
from metarl.inner import StepSize, inner_update
from metarl.parallel import all_threads, one_thread
from metarl.sampler import Sampler
from metarl.sb3 import Model, fit_value, to_model
from metarl.settings import Settings
from metarl.vectors import one_task, task_parameters

# Numbered for the random streams; ``given`` are tasks of the caller's own.
SPLITS = (*task_tools.SPLITS, "given")


class MetaAgent:
    """An agent that adapts; ``BaseLearner`` adds how it is trained to.

    Attributes:
        settings: everything that determines it.
        parameters: the shared parameters, no task axis.
        normalizer: of observations and rewards.
        iteration: after how many meta-iterations.
        adapts: names of the parameters that adaptation changes; None for all.
    """

    name = ""
    adapts: frozenset[str] | None = None
    inner_objective: ClassVar[Literal["policy-gradient", "likelihood-ratio", "dice"]] = "policy-gradient"  # of its own

    def __init__(self, settings: Settings, policy_kwargs: dict[str, Any]) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.policy_kwargs = policy_kwargs
        self._env = make(settings.family, **settings.family_kwargs)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        network = {field.name: getattr(settings.policy, field.name) for field in dataclasses.fields(settings.policy)}
        self._take_policy(
            build_policy(self.observation_space, self.action_space, seed=settings.seed, **{**network, **policy_kwargs})
        )
        learning = settings.learning
        self.normalizer = new_normalizer(
            self._policy.observation_space, learning.normalize_observations, learning.normalize_rewards
        )
        self._sampler = Sampler(settings.family, settings.family_kwargs, learning.workers, learning.step_timeout)
        self.iteration = 0

    def _take_policy(self, policy: Policy) -> None:
        self._policy = policy
        self.parameters = {name: value.to(self.device) for name, value in policy.parameters().items()}

    def _play(self, parameters: Parameters, tasks: Any, episodes: int, streams: list[seeding.Stream]) -> Rollouts:
        return self._collected(self._policy, parameters, tasks, episodes, streams)

    def _collected(
        self, policy: Policy, parameters: Parameters, tasks: Any, episodes: int, streams: list[seeding.Stream]
    ) -> Rollouts:
        with all_threads():
            return self._sampler.collect(policy, parameters, self.normalizer, tasks, episodes, streams)

    def begin(self, parameters: Parameters, tasks: Any) -> Parameters:
        """Return what adaptation to a batch of tasks begins with: shared or stacked parameters as they are."""
        return parameters

    def _samples(self, rollouts: Rollouts) -> Samples:
        """Return rollouts as objectives read them."""
        return self._estimate(rollouts)

    def _inner_samples(self, rollouts: Rollouts) -> Samples:
        """Return rollouts as the inner update reads them: for DiCE discounted by time, with ``inner.baseline``."""
        inner = self.settings.inner
        if inner.objective_of(self) != "dice":
            return self._samples(rollouts)
        return self._estimate(rollouts, baseline=inner.baseline, discounted=True)

    def _estimate(self, rollouts: Rollouts, **options: Any) -> Samples:
        rollouts = replace(
            rollouts,
            observations=self.normalizer.observe(rollouts.observations),
            rewards=self.normalizer.scale_rewards(rollouts.rewards),
        ).to(self.device)
        learning = self.settings.learning
        features = self._policy.features(rollouts.observations)
        options = {"gamma": learning.gamma, "gae_lambda": learning.gae_lambda, **options}
        with one_thread():
            return to_samples(rollouts, features, **options)

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
        return self.as_policy(task_parameters(self._adapt_to(self._one_task(task), steps, episodes, seed), 0))

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
        return Adapter(self, env, episodes, seed)

    def adapted(self, parameters: Parameters, rollouts: Rollouts, step: int) -> Parameters:
        """Return stacked parameters after adaptation step ``step`` (from 0) on rollouts collected with them."""
        samples = self._inner_samples(rollouts)
        return inner_update(self._policy, parameters, samples, self.step_size(step), self.adapts)

    def actor(self, parameters: Parameters) -> Actor:
        """Return what acts with parameters, shared or stacked, on observations as the environments give them."""
        return self._policy.actor(parameters, self.normalizer)

    def as_policy(self, parameters: Parameters) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy with parameters (no task axis) and the learner's normalisation."""
        return self._policy.module(parameters, self.normalizer, self.device)

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

    def _batch(self, tasks: Any) -> Any:
        return task_tools.stack_tasks(task_tools.task_space(self._env), self._single_tasks(tasks))

    def _one_task(self, task: Any) -> Any:
        return task_tools.stack_tasks(task_tools.task_space(self._env), [task_tools.as_task(self._env, task)])

    def _adapt_to(self, task: Any, steps: int, episodes: int, seed: int) -> Parameters:
        parameters = self.begin(one_task(self.parameters), task)
        for step in range(steps):
            streams = seeding.streams(seed, seeding.ADAPTATION, step, tasks=range(1))
            parameters = self.adapted(parameters, self._play(parameters, task, episodes, streams), step)
        return parameters

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
        rollouts = self._play(parameters, one, episodes, streams)
        policy = self.as_policy(task_parameters(parameters, 0))
        fit_value(policy, rollouts, float(arguments.get("gamma", 0.99)), chosen)
        env = make(self.settings.family, task=task, **self.settings.family_kwargs)
        return to_model(algorithm, policy, env, **{"seed": chosen, "device": self.device, **arguments})

    def step_size(self, step: int) -> StepSize:
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
        returns = []
        first: list[Rollouts] = []
        for group in groups:
            rollouts = self._adapt_group(single, group, episodes, steps, seed, split)
            returns.append(np.stack([part.returns().double().numpy() for part in rollouts]))
            first = first or rollouts
        shared = task_tools.attribute(self._env, "splits_share_tasks", False)
        oracle = task_tools.attribute(self._env, "oracle_return")
        evaluation = Evaluation(
            family=self.settings.family,
            learner=self.name,
            split=f"{split} (the tasks of training)" if shared and split != "given" else split,
            seed=self.settings.seed,
            evaluation_seed=seed,
            iteration=self.iteration,
            episodes=episodes,
            returns=np.concatenate(returns, axis=1),
            oracle=None if oracle is None else np.array([oracle(task) for task in single]),
            timesteps=getattr(self, "num_timesteps", None),
        )
        return evaluation, [single[i] for i in groups[0]], first

    def _adapt_group(
        self, single: list[Any], group: range, episodes: int, steps: int, seed: int, split: str
    ) -> list[Rollouts]:
        tasks = task_tools.stack_tasks(task_tools.task_space(self._env), [single[i] for i in group])
        domain = (seeding.EVALUATION, SPLITS.index(split))
        parameters = self.begin(self.parameters, tasks)
        rollouts = []
        for step in range(steps + 1):
            streams = seeding.streams(seed, *domain, step, tasks=group)
            rollouts.append(self._play(parameters, tasks, episodes, streams))
            if step < steps:
                parameters = self.adapted(parameters, rollouts[-1], step)
        return rollouts

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family, as the learner reads its spaces and tasks from."""
        return self._env

    @property
    def policy(self) -> ActorCriticPolicy:
        """The policy before adaptation, a copy as a stable-baselines3 policy."""
        return self.as_policy(self.parameters)

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
        self._sampler.close()
        self._env.close()
