"""The base class of learners with memory: experience is their adaptation, and its interface is that of all learners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor

from metarl import seeding
from metarl.agents import Parameters, Policy, Rollouts
from metarl.agents.policies import GruActor, GruPolicy, Memory, TrialPolicy
from metarl.agents.policies.selection import refuse_part
from metarl.agents.trials import TrialSteps, trial_steps
from metarl.envs import RandomTask, Trial, make
from metarl.envs import tasks as task_tools
from metarl.envs.actions import standard_actions
from metarl.envs.tasks import whole_number
from metarl.envs.wrappers import TOLD_KEYS
from metarl.evaluation import SPLITS
from metarl.gradients import task_axis
from metarl.learner import BaseLearner
from metarl.memory.adapter import TrialAdapter
from metarl.memory.playing import SHARE, by_episode, free_bytes, trial_player
from metarl.state import State


class MemoryLearner(BaseLearner):
    """A learner whose policy remembers: it adapts by what it experiences in a trial, without inner steps.

    A trial is ``learning.trial_episodes`` episodes of one task in order; the memory starts at zero with a trial and
    goes on from episode to episode. Everywhere, the axis of adaptation steps is that of earlier episodes of the trial:
    ``evaluate`` returns the returns after 0, 1, ... episodes. Subclasses define ``meta_iteration``.
    """

    policy_name = "GruPolicy"
    remembers = True
    functional_policy: GruPolicy

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy.

        Raises:
            ValueError: it does not remember.
        """
        if not isinstance(policy, GruPolicy):
            raise ValueError(
                f"learner {self.name} needs a policy with memory, and {self.settings.policy.name!r} has none; set "
                "policy.name = 'GruPolicy', or leave it out"
            )
        return policy

    def validate(self) -> None:
        """Check that no inner steps are asked for, nor what they change.

        Raises:
            ValueError: they are.
        """
        if self.settings.inner.steps != 1:
            raise ValueError(
                f"inner.steps is {self.settings.inner.steps}, but learner {self.name} adapts by its memory, without "
                "inner steps; leave it out, and set learning.trial_episodes, the number of episodes in a trial"
            )
        refuse_part(self.settings.inner.adapts, self.name, "by its memory, without inner steps")

    @property
    def trial_space(self) -> spaces.Dict:
        """The observation space of ``metarl.Trial`` around an environment of the family."""
        space = Trial(self._env, 1).observation_space
        assert isinstance(space, spaces.Dict)
        return space

    def as_policy(  # type: ignore[override]
        self,
        parameters: Parameters,
        state: State,
        start: Memory | None = None,
        env: gymnasium.Env[Any, Any] | None = None,
    ) -> TrialPolicy:
        """Return a policy for ``metarl.Trial`` with stable-baselines3's ``predict``, which starts from a memory.

        Args:
            parameters: of the policy, no task axis.
            state: whose normaliser is used.
            start: what was remembered in adaptation, of a single trial; None for nothing.
            env: in whose own action space the policy acts; None for that of ``metarl.make``.
        """
        mapped = None if env is None else standard_actions(env.action_space)
        own = None if env is None or mapped is None or env.action_space == mapped[0] else (env.action_space, mapped[1])
        space = self.trial_space if env is None else Trial(env, 1).observation_space
        assert isinstance(space, spaces.Dict)
        return TrialPolicy(
            self.functional_policy,
            parameters,
            state.normalizer,
            space,
            TOLD_KEYS,
            start,
            self.device,
            own,
        )

    def collect_trials(
        self,
        state: State,
        tasks: Any,
        streams: Sequence[seeding.Stream],
        *,
        trials: int = 1,
        episodes: int | None = None,
        keep: Callable[[GruActor], None] | None = None,
    ) -> Rollouts:
        """Play trials of a batch of tasks; with several shares (``task_axis``), of this share's tasks.

        Args:
            state: whose parameters and normaliser are used.
            tasks: the whole batch.
            streams: the random stream of each task of the batch.
            trials: of each task.
            episodes: in a trial; default ``learning.trial_episodes``.
            keep: called with the actor after the last step.

        Returns:
            rollouts ``[trial, episode, time, ...]``, the trials of a task side by side.

        Raises:
            ValueError: the steps take more memory than there is.
            RolloutError: an environment failed.
        """
        own = task_axis.own_tasks(len(streams))
        played = tasks if len(own) == len(streams) else task_tools.take_tasks(tasks, np.asarray(own))
        ours = [streams[task] for task in own]
        count = self.settings.learning.trial_episodes if episodes is None else episodes
        player = trial_player(ours, count, self._size_check(trials * len(ours), count), keep)
        parameters, policy = state.parameters, self.functional_policy
        rollouts = self.sampler.collect(policy, parameters, state.normalizer, played, trials, ours, player)
        return task_axis.same_length(rollouts)

    def as_seen(self, state: State, rollouts: Rollouts) -> tuple[TrialSteps, Tensor]:
        """Return the steps of trials as the policy sees them, and the rewards that it is told.

        Args:
            state: whose normaliser is used.
            rollouts: ``[trial, episode, time, ...]``.

        Returns:
            the steps, on the device, and rewards ``[trial, episode, time]``.
        """
        rewards = state.normalizer.scale_rewards(rollouts.rewards)
        seen = replace(rollouts, observations=state.normalizer.observe(rollouts.observations))
        return trial_steps(self.functional_policy.action_space, seen, rewards).to(self.device), rewards

    def longest_trial(self, episodes: int) -> int | None:
        """Return how many steps a trial can have by the family's time limit; None without a limit."""
        limit = None if self._env.spec is None else self._env.spec.max_episode_steps
        return None if limit is None else limit * episodes

    def _size_check(self, trials: int, episodes: int) -> Callable[[int, int], None]:
        limit = self.longest_trial(episodes)

        def refuse(steps: int, bytes_of_step: int) -> None:
            # Twice: as single steps, and as the rollouts that they are put together to.
            expected = steps if limit is None else max(steps, limit)
            needed, free = 2 * expected * bytes_of_step, int(SHARE * free_bytes())
            if needed > free:
                length = f"{expected:,} steps each so far" if limit is None else f"up to {expected:,} steps each"
                raise ValueError(
                    f"{trials} trials of {episodes} episodes, {length}, need {needed:,} bytes of memory, and {free:,} "
                    "may be used; play fewer or shorter trials at once (learning.trial_episodes, outer.trials, "
                    "evaluation.episodes, family_kwargs.max_episode_steps)"
                )

        return refuse

    def evaluation_rollouts(
        self, state: State, single: list[Any], group: range, episodes: int, steps: int, seed: int, split: str
    ) -> list[Rollouts]:
        """Return the rollouts ``[task, trial, time, ...]`` of trials' first episodes, second episodes, and so on."""
        tasks = task_tools.stack_tasks(task_tools.task_space(self._env), [single[i] for i in group])
        streams = seeding.streams(seed, seeding.EVALUATION, SPLITS.index(split), 0, tasks=group)
        return by_episode(self.collect_trials(state, tasks, streams, trials=episodes, episodes=steps + 1), len(group))

    def adapt(  # type: ignore[override]
        self,
        task: Any,
        *,
        steps: int | None = None,
        episodes: int | None = None,
        seed: int | None = None,
    ) -> TrialPolicy:
        """Play episodes of a task, and return the policy that remembers them; the learner does not change.

        Args:
            task: a task of the family (anything ``as_task`` accepts), or a ``gymnasium.Env`` with the family's
                spaces, whose task need not be known (see ``adapter``).
            steps: must be None, since there are no inner steps.
            episodes: how many episodes; 0 for none. Default: all of a trial in training but the last.
            seed: of the episodes; default the learner's.

        Returns:
            a policy for ``metarl.Trial(env, episodes)``, whose trials go on from what is remembered. Adapted to a task,
            it acts in the action space of ``metarl.make``; adapted to an environment, in that environment's own.

        Raises:
            ValueError: a task outside the task space, an environment with other spaces, a negative count, or steps.
        """
        if steps is not None:
            raise ValueError(
                f"steps is {steps}, but learner {self.name} adapts by its memory, without inner steps; give episodes, "
                "the number of episodes to play"
            )
        if isinstance(task, gymnasium.Env):
            adapter = self.adapter(task, seed=seed)
            for _ in range(self._episodes(episodes)):
                adapter.play()
            return adapter.policy
        policy = self.as_policy(self.parameters, self.state, self.remembered(task, episodes=episodes, seed=seed))
        return self._for_made_environments(policy)

    def remembered(self, task: Any, *, episodes: int | None = None, seed: int | None = None) -> Memory | None:
        """Play episodes of a task, and return what is remembered of them; None for no episodes.

        The arguments and errors are those of ``adapt`` with a task.
        """
        episodes = self._episodes(episodes)
        seed = self.settings.seed if seed is None else whole_number("seed", seed, least=0)
        one = task_tools.stack_tasks(task_tools.task_space(self._env), [task_tools.as_task(self._env, task)])
        kept: list[GruActor] = []
        if episodes > 0:
            streams = seeding.streams(seed, seeding.ADAPTATION, 0, tasks=range(1))
            self.collect_trials(self.state, one, streams, episodes=episodes, keep=kept.append)
        return kept[0].memory if kept else None

    def _episodes(self, episodes: int | None) -> int:
        standard = self.settings.learning.trial_episodes - 1
        return standard if episodes is None else whole_number("episodes", episodes, least=0)

    def adapter(  # type: ignore[override]
        self, env: gymnasium.Env[Any, Any], *, episodes: int | None = None, seed: int | None = None
    ) -> TrialAdapter:
        """Return a ``TrialAdapter``, which acts in one environment and remembers, in a loop of your own.

        Args:
            env: with the family's spaces (its own action box or the mapped one); its task need not be known. It is not
                wrapped into ``metarl.Trial``.
            episodes: must be None, since the policy adapts at every step.
            seed: of the actions and of the environment's resets; default the learner's.

        Raises:
            ValueError: an environment with other spaces, or episodes.
        """
        if episodes is not None:
            raise ValueError(
                f"episodes is {episodes}, but the policy of learner {self.name} adapts at every step and not between "
                "episodes; leave it out"
            )
        seed = self.settings.seed if seed is None else whole_number("seed", seed, least=0)
        if not isinstance(env, gymnasium.Env):
            raise ValueError(f"{type(env).__name__} is no gymnasium.Env; give the environment to adapt to")
        return TrialAdapter(self, self.state, env, seed)

    def to_sb3(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error: stable-baselines3's own algorithms have no policies with memory."""
        raise ValueError(
            f"learner {self.name} has a policy with memory, which PPO and A2C cannot train; adapt() returns a policy "
            "that acts, and sb3-contrib's RecurrentPPO trains one of its own on metarl.Trial(env, episodes)"
        )

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> NoReturn:
        """Raise an error: a PPO or A2C model has no memory."""
        raise ValueError(
            f"learner {cls.name} needs a policy with memory, and a PPO or A2C model has none; train from the start"
        )

    def get_env(self) -> VecEnv:
        """Return an environment of trials for stable-baselines3's callbacks; each trial has a new task."""
        if self._callback_env is None:
            env = make(self.settings.family, **self.settings.family_kwargs)
            trials = RandomTask(Trial(env, self.settings.learning.trial_episodes))
            self._callback_env = DummyVecEnv([lambda: trials])
        return self._callback_env
