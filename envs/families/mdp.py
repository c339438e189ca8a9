"""Tabular Markov decision processes, ``TabularMDP-v0``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.single import SingleFamily

STATES = 10
ACTIONS = 5
CONCENTRATION = 1.0  # of the Dirichlet distribution that transition probabilities are drawn from
REWARD_MEAN = 1.0  # of the normal distribution that mean rewards are drawn from
REWARD_MEAN_STD = 1.0
REWARD_STD = 1.0  # standard deviation of a reward around its mean
SUM_TOLERANCE = 1e-4  # how far from 1 the probabilities of a transition may sum up to
CHUNK = 10  # how many steps' noise is drawn at once


def check_transitions(transitions: Any) -> None:
    """Refuse transition probabilities ``[..., next state]`` that do not sum up to 1.

    Raises:
        ValueError: the probabilities of some state and action have another sum; the message names the first.
    """
    sums = np.asarray(transitions, dtype=np.float64).sum(axis=-1)
    wrong = np.abs(sums - 1.0) > SUM_TOLERANCE
    if wrong.any():
        where = tuple(int(index) for index in np.argwhere(wrong)[0][-2:])
        raise ValueError(
            f"the transition probabilities of state {where[0]} and action {where[1]} sum up to {sums[wrong][0]:.6g}; "
            "expected 1"
        )


def best_return(transitions: NDArray[Any], means: NDArray[Any], horizon: int) -> float:
    """Return the best expected return of ``horizon`` steps from state 0, by value iteration backwards in time.

    Args:
        transitions: ``[state, action, next state]``, probabilities.
        means: ``[state, action]``, mean rewards.
        horizon: steps.

    Source: Bellman 1957, V_t(s) = max_a r(s, a) + sum_s' P(s' | s, a) V_{t+1}(s').
    """
    values = np.zeros(len(means))
    for _ in range(horizon):
        values = (means + transitions @ values).max(axis=1)
    return float(values[0])


class TabularMDPVectorEnv(BatchedFamily):
    """``metarl/TabularMDP-v0``, batched in numpy; the data sheet is in ``TabularMDPEnv``."""

    ranges_are_limits = True  # of probabilities

    def __init__(self, num_envs: int, max_episode_steps: int | None = 10, render_mode: str | None = None) -> None:
        self.single_observation_space = spaces.Box(0.0, 1.0, (STATES,), np.float32)
        self.single_action_space = spaces.Discrete(ACTIONS)
        self.task_space = spaces.Dict(
            {
                "transitions": spaces.Box(0.0, 1.0, (STATES, ACTIONS, STATES), np.float32),
                "rewards": spaces.Box(-np.inf, np.inf, (STATES, ACTIONS), np.float32),
            }
        )
        self.default_task = {
            "transitions": np.full((STATES, ACTIONS, STATES), 1.0 / STATES, dtype=np.float32),
            "rewards": np.full((STATES, ACTIONS), REWARD_MEAN, dtype=np.float32),
        }
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._states = np.zeros(self.num_envs, dtype=np.int64)
        self._noise = np.zeros((self.num_envs, CHUNK, 2))

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float32]]:
        """Draw ``n`` tasks; every split is the same distribution."""
        transitions = rng.dirichlet(np.full(STATES, CONCENTRATION), size=(n, STATES, ACTIONS))
        rewards = rng.normal(REWARD_MEAN, REWARD_MEAN_STD, size=(n, STATES, ACTIONS))
        return {"transitions": transitions.astype(np.float32), "rewards": rewards.astype(np.float32)}

    def check_task(self, task: Any) -> None:
        """Refuse a task whose transition probabilities do not sum up to 1; see ``check_transitions``."""
        check_transitions(task["transitions"])

    def validate_tasks(self, batch: Any) -> None:
        """Refuse a batch in which transition probabilities do not sum up to 1; see ``check_transitions``."""
        check_transitions(batch["transitions"])

    def start_episodes(self, indices: EnvIndices) -> None:
        """Begin in state 0."""
        self._states[indices] = 0
        self._refill(indices)

    def _refill(self, indices: EnvIndices) -> None:
        """Draw the noise of the next steps: a uniform number for the transition, a normal one for the reward."""
        self._noise[indices, :, 0] = self.streams.uniform(indices, CHUNK)
        self._noise[indices, :, 1] = self.streams.normal(indices, CHUNK)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Draw the next states and the rewards, from noise that was drawn before."""
        running, steps = np.arange(self.num_envs)[indices], self.elapsed_steps[indices]
        used_up = (steps > 0) & (steps % CHUNK == 0)
        if used_up.any():
            self._refill(running[used_up])
        uniform, normal = self._noise[running, steps % CHUNK].T
        states = self._states[running]
        rewards = self.tasks["rewards"][running, states, actions] + REWARD_STD * normal
        reached = self.tasks["transitions"][running, states, actions].cumsum(axis=1, dtype=np.float64)
        # The next state is the first whose cumulated probability exceeds the uniform number. The last state is left
        # out of the comparison because rounding may leave its cumulated probability a little below 1.
        self._states[running] = (reached[:, :-1] <= uniform[:, None]).sum(axis=1)
        return rewards, np.zeros(len(running), dtype=np.bool_)

    def observe(self) -> NDArray[np.float32]:
        """Return the states, one-hot, ``[num_envs, 10]``."""
        return np.eye(STATES, dtype=np.float32)[self._states]

    def oracle_return(self, task: Any) -> float:
        """Return the best expected return of an agent that knows the process, within the time limit."""
        transitions = np.asarray(task["transitions"], dtype=np.float64)
        return best_return(transitions, np.asarray(task["rewards"], dtype=np.float64), self.horizon())


class TabularMDPEnv(SingleFamily):
    """Act well in a finite Markov decision process one does not know (``metarl/TabularMDP-v0``).

    - **What varies** (the task): ``transitions[state, action, next state]``, for each state and action drawn from
      Dirichlet(1, ..., 1), and the mean ``rewards[state, action]``, drawn from Normal(1, 1); 10 states, 5 actions.
      **Hidden**: the observation shows the state only.
    - **Observation**: the state, one-hot, ``Box(0, 1, (10,))``. Episodes start in state 0.
    - **Action**: ``Discrete(5)``.
    - **Reward**: normal with the mean of the state and the action and a standard deviation of 1.
    - **Ends**: never terminates; truncates after 10 steps.
    - **Optimum**: exact, by value iteration over the time limit (``oracle_return``).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Duan et al. 2016 (RL2).
    - **Versions**: v0, the first.
    """

    ranges_are_limits = True  # of probabilities

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, render_mode: str | None = None) -> None:
        self.batch: TabularMDPVectorEnv
        super().__init__(TabularMDPVectorEnv(1, max_episode_steps=None), render_mode)

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> dict[str, NDArray[np.float32]]:
        """Draw ``n`` tasks; every split is the same distribution."""
        return self.batch.sample_tasks(n, rng, split)

    def check_task(self, task: Any) -> None:
        """Refuse a task whose transition probabilities do not sum up to 1; see ``check_transitions``."""
        self.batch.check_task(task)

    def oracle_return(self, task: Any) -> float:
        """Return the best expected return of an agent that knows the process, within the time limit."""
        return self.batch.oracle_return(task)
