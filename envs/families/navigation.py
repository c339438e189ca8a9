"""2-D navigation: a point has to find a goal that it cannot see.

Here are the base classes of the navigation families and ``Navigation2D-v0``; ``half_circle.py`` and ``corner.py`` hold
the others.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.single import SingleFamily

STEP_LENGTH = 0.1  # distance per unit of action and step
GOAL_RANGE = 0.5  # goals lie in [-GOAL_RANGE, GOAL_RANGE]^2
GOAL_RADIUS = 0.01  # half side of the box around the goal that ends the episode
POSITION_RANGE = 1000.0  # half width of the observation space: no point gets so far within 5,000 steps


def distance(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Euclidean length of offsets ``[..., 2]``."""
    return np.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2)


def check_reward(reward: str) -> str:
    """Return the name of a reward, which must be ``dense`` or ``sparse``.

    Raises:
        ValueError: the name is another.
    """
    if reward not in ("dense", "sparse"):
        raise ValueError(f"reward is {reward!r}; expected 'dense' or 'sparse'")
    return reward


class PointVectorEnv(BatchedFamily):
    """Points in the plane, stepped in batches; a family adds its tasks, goals, starts and rewards.

    A subclass sets ``task_space`` and ``default_task`` before it calls this constructor, and defines ``goals`` and
    ``outcomes``.

    Attributes:
        locations: where the points are, ``[num_envs, 2]``, float64.
    """

    step_length: ClassVar[float] = STEP_LENGTH

    def __init__(self, num_envs: int, max_episode_steps: int | None, render_mode: str | None) -> None:
        self.single_observation_space = spaces.Box(-POSITION_RANGE, POSITION_RANGE, (2,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)
        self.locations = np.zeros((self.num_envs, 2))
        self._goals = np.zeros((self.num_envs, 2))

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the goals ``[..., 2]`` of tasks ``[...]``."""
        raise NotImplementedError

    def start_episodes(self, indices: EnvIndices) -> None:
        """Put the points at the origin and look up their goals."""
        self.locations[indices] = 0.0
        self._goals[indices] = self.goals(self.tasks[indices])

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Move the points by ``step_length`` times their clipped actions."""
        before = self.locations[indices]
        after = before + self.step_length * np.clip(actions.astype(np.float64), -1.0, 1.0)
        result = self.outcomes(before, after, self._goals[indices])
        self.locations[indices] = after
        return result

    def outcomes(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the rewards ``[n]`` of moves and which of them terminate the episode ``[n]``.

        Args:
            before: positions before the move, ``[n, 2]``.
            after: positions after it, ``[n, 2]``.
            goals: ``[n, 2]``.
        """
        raise NotImplementedError

    def observe(self) -> NDArray[np.float32]:
        """Return the positions, ``[num_envs, 2]``."""
        return self.locations.astype(np.float32)

    def straight_distances(self, offset: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """Return the least possible distances to the goal ``[steps, ...]`` after 1, 2, ... steps.

        Each coordinate approaches the goal's by ``step_length`` a step until it is reached.

        Args:
            offset: from the start to the goal, ``[..., 2]``.
            steps: how many.
        """
        times = np.arange(1, steps + 1).reshape(-1, *[1] * offset.ndim)
        return distance(np.maximum(np.abs(offset) - self.step_length * times, 0.0))


class PointEnv(SingleFamily):
    """One point in the plane; it keeps the path of the episode for the picture."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}  # type: ignore[misc]
    view_range: ClassVar[float] = 0.8  # half side of the rendered area

    def __init__(self, batch: PointVectorEnv, render_mode: str | None) -> None:
        self.batch: PointVectorEnv
        super().__init__(batch, render_mode)
        self._path: list[NDArray[np.float32]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; see ``SingleFamily.reset``."""
        observation, info = super().reset(seed=seed, options=options)
        self._path = [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the point; see ``SingleFamily.step``."""
        result = super().step(action)
        self._path.append(result[0])
        return result

    def positions(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the positions ``[..., 2]`` in observations ``[..., 2]``, which are the same; for pictures of paths."""
        return observations

    def landmarks(self, task: Any) -> NDArray[Any]:
        """Return the points of a task, ``[1, 2]``: its goal."""
        return self.batch.goals(task)[None]

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the path of the episode so far, its start and its goal."""
        canvas = Canvas(size=256, extent=self.view_range)
        canvas.disc(self.batch.goals(self.task), radius=self.view_range / 27, colour=(214, 69, 65))
        canvas.disc(self._path[0], radius=self.view_range / 54, colour=(120, 120, 120))
        canvas.line(np.stack(self._path), colour=(46, 92, 184))
        return canvas.pixels


class Navigation2DVectorEnv(PointVectorEnv):
    """``metarl/Navigation2D-v0``, batched in numpy; the data sheet is in ``Navigation2DEnv``."""

    def __init__(self, num_envs: int, max_episode_steps: int | None = 100, render_mode: str | None = None) -> None:
        self.task_space = spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)
        self.default_task = np.array([0.3, 0.4], dtype=np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)

    def goals(self, tasks: Any) -> NDArray[np.float64]:
        """Return the tasks themselves: a task is a goal."""
        return np.asarray(tasks, dtype=np.float64)

    def outcomes(
        self, before: NDArray[np.float64], after: NDArray[np.float64], goals: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return minus the distances to the goals, and which points are near theirs in both coordinates."""
        offset = goals - after
        near = np.abs(offset) < GOAL_RADIUS
        return -distance(offset), near[:, 0] & near[:, 1]

    def oracle_return(self, task: Any) -> float:
        """Return the best return of an agent that knows the goal, within the time limit.

        Each coordinate approaches the goal's by ``STEP_LENGTH`` a step; the episode ends when both are within
        ``GOAL_RADIUS``.
        """
        offset = np.abs(np.asarray(task, dtype=np.float64))
        steps = int(max(1, np.ceil((offset.max() - GOAL_RADIUS) / STEP_LENGTH)))
        return -float(self.straight_distances(offset, min(steps, self.max_episode_steps or steps)).sum())

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return goals ``[task, 2]``, each under one of the square's eight symmetries, drawn at random.

        They reflect the two coordinates and exchange them. Done to positions and actions too, they change no reward.
        """
        goals = np.asarray(tasks)
        exchanged = np.where(rng.random((len(goals), 1)) < 0.5, goals[:, ::-1], goals)
        return np.asarray(exchanged * rng.choice([-1.0, 1.0], goals.shape), goals.dtype)


class Navigation2DEnv(PointEnv):
    """Find an unseen goal in the plane (``metarl/Navigation2D-v0``).

    - **What varies** (the task): the goal, uniform over [-0.5, 0.5]^2. **Hidden**: the observation does not show it.
    - **Observation**: the position, ``Box(-1000, 1000, (2,))``. Episodes start at (0, 0).
    - **Action**: ``Box(-1, 1, (2,))``, clipped to it; a unit moves the point by 0.1 along a coordinate.
    - **Reward**: minus the Euclidean distance to the goal after the move.
    - **Ends**: terminates within 0.01 of the goal in both coordinates; truncates after 100 steps.
    - **Optimum**: -0.51 on average over goals (``oracle_return``).
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the point robot of Finn et al. 2017 (MAML), whose actions are scaled in the same way.
    - **Versions**: v0, the first.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        self.batch: Navigation2DVectorEnv
        super().__init__(Navigation2DVectorEnv(1, max_episode_steps=None), render_mode)

    def oracle_return(self, task: Any) -> float:
        """Return the best return of an agent that knows the goal; see ``Navigation2DVectorEnv.oracle_return``."""
        return self.batch.oracle_return(task)

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[Any]:
        """Return goals under symmetries drawn at random; see the batched class."""
        return self.batch.mirror_tasks(tasks, rng)
