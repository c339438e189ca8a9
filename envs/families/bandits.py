"""Bandits, ``BernoulliBandit-v0`` and ``GaussianBandit-v0``: find the best arm within a number of pulls."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.single import SingleFamily

ARMS = 5
PULLS = 10
REWARD_STD = 1.0  # standard deviation of the Gaussian bandit's rewards


class BanditVectorEnv(BatchedFamily):
    """Bandits, batched in numpy. The noise of an episode is drawn when it starts, one number for each pull."""

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        arms: int = ARMS,
        pulls: int = PULLS,
    ) -> None:
        arms = task_tools.whole_number("arms", arms, least=2)
        self.pulls = task_tools.whole_number("pulls", pulls)
        self.single_observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.single_action_space = spaces.Discrete(arms)
        self.task_space = spaces.Box(0.0, 1.0, (arms,), np.float32)
        self.default_task = np.linspace(0.0, 1.0, arms, dtype=np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._noise = np.zeros((self.num_envs, self.pulls))

    def draw_noise(self, indices: EnvIndices) -> NDArray[np.float64]:
        """Return the noise of an episode's pulls ``[len(indices), pulls]``, from ``streams``."""
        raise NotImplementedError

    def pull_rewards(self, means: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rewards ``[pull]`` of pulls of arms with these ``means [pull]``, given their ``noise [pull]``."""
        raise NotImplementedError

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw the noise of all pulls of the episode."""
        self._noise[indices] = self.draw_noise(indices)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pull one arm of each bandit; the last pull terminates the episode."""
        running, steps = np.arange(self.num_envs)[indices], self.elapsed_steps[indices]
        means = self.tasks[running, actions].astype(np.float64)
        return self.pull_rewards(means, self._noise[running, steps]), steps + 1 == self.pulls

    def observe(self) -> NDArray[np.float32]:
        """Return the constant observation 0, ``[num_envs, 1]``."""
        return np.zeros((self.num_envs, 1), dtype=np.float32)

    def oracle_return(self, task: Any) -> float:
        """Return the expected return of pulling the best arm all the time."""
        pulls = min(self.pulls, self.max_episode_steps or self.pulls)
        return pulls * float(np.max(np.asarray(task, dtype=np.float64)))

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return the means ``[task, arm]`` with the arms of each task in random order."""
        return rng.permuted(np.asarray(tasks), axis=1)


class BernoulliBanditVectorEnv(BanditVectorEnv):
    """``metarl/BernoulliBandit-v0``, batched in numpy; the data sheet is in ``BernoulliBanditEnv``."""

    ranges_are_limits = True  # of probabilities

    def draw_noise(self, indices: EnvIndices) -> NDArray[np.float64]:
        """Return uniform numbers in [0, 1), ``[len(indices), pulls]``."""
        return self.streams.uniform(indices, self.pulls)

    def pull_rewards(self, means: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return 1 with a probability of ``means``, else 0."""
        return (noise < means).astype(np.float64)


class GaussianBanditVectorEnv(BanditVectorEnv):
    """``metarl/GaussianBandit-v0``, batched in numpy; the data sheet is in ``GaussianBanditEnv``."""

    def draw_noise(self, indices: EnvIndices) -> NDArray[np.float64]:
        """Return standard normal numbers, ``[len(indices), pulls]``."""
        return self.streams.normal(indices, self.pulls)

    def pull_rewards(self, means: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the means plus normal noise."""
        return means + REWARD_STD * noise


class BanditEnv(SingleFamily):
    """One bandit; it counts the pulls of each arm for the picture."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}  # type: ignore[misc]
    batched: ClassVar[type[BanditVectorEnv]]

    def __init__(self, render_mode: str | None = None, arms: int = ARMS, pulls: int = PULLS) -> None:
        self.batch: BanditVectorEnv
        super().__init__(self.batched(1, arms=arms, pulls=pulls), render_mode)
        self._counts = np.zeros(arms, dtype=np.int64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the pulls; see ``SingleFamily.reset``."""
        self._counts[:] = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pull an arm; see ``SingleFamily.step``."""
        result = super().step(action)
        self._counts[action] += 1
        return result

    def oracle_return(self, task: Any) -> float:
        """Return the expected return of pulling the best arm all the time."""
        return self.batch.oracle_return(task)

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return the means with the arms of each task in random order."""
        return self.batch.mirror_tasks(tasks, rng)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw two bars for each arm: its mean in grey, its share of the pulls in blue."""
        canvas = Canvas(size=256, extent=1.0)
        width = 2.0 / len(self._counts)
        for arm, (mean, count) in enumerate(zip(self.task, self._counts, strict=True)):
            left = -1.0 + arm * width
            canvas.box((left + 0.1 * width, -1.0), (left + 0.5 * width, -1.0 + 2.0 * mean), (170, 170, 170))
            height = 2.0 * count / self.batch.pulls
            canvas.box((left + 0.5 * width, -1.0), (left + 0.9 * width, -1.0 + height), (46, 92, 184))
        return canvas.pixels


class BernoulliBanditEnv(BanditEnv):
    """Find the arm that pays most often (``metarl/BernoulliBandit-v0``).

    - **What varies** (the task): the arms' probabilities of a reward, each uniform over [0, 1]. **Hidden**: only the
      rewards tell of them.
    - **Arguments**: ``arms=5``, ``pulls=10``.
    - **Observation**: the constant 0, ``Box(0, 1, (1,))``.
    - **Action**: the arm, ``Discrete(arms)``.
    - **Reward**: 1 with the arm's probability, else 0.
    - **Ends**: terminates after ``pulls`` steps.
    - **Optimum**: pulls times the best arm's probability (``oracle_return``), 8.33 on average with five arms.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: Duan et al. 2016 (RL2), with 5, 10 or 50 arms and 10, 100 or 500 pulls.
    - **Versions**: v0, the first.
    """

    ranges_are_limits = True  # of probabilities

    batched = BernoulliBanditVectorEnv


class GaussianBanditEnv(BanditEnv):
    """Find the arm that pays most on average (``metarl/GaussianBandit-v0``).

    - **What varies** (the task): the arms' mean rewards, each uniform over [0, 1]. **Hidden**: only the rewards tell
      of them.
    - **Arguments**: ``arms=5``, ``pulls=10``.
    - **Observation**: the constant 0, ``Box(0, 1, (1,))``.
    - **Action**: the arm, ``Discrete(arms)``.
    - **Reward**: normal with the arm's mean and a standard deviation of 1.
    - **Ends**: terminates after ``pulls`` steps.
    - **Optimum**: pulls times the best arm's mean (``oracle_return``), 8.33 on average with five arms.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: as pytorch-maml-rl (Deleu 2018) has it, after Duan et al. 2016 (RL2).
    - **Versions**: v0, the first.
    """

    batched = GaussianBanditVectorEnv
