"""Other views of training episodes, between a vector environment and the policy: what is seen, done and paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from metarl import seeding
from metarl.augmenting.settings import Augmenting
from metarl.augmenting.tasks import is_real


class AugmentedVector(VectorWrapper):
    """A vector environment whose training episodes are augmented; the policy sees, and rollouts keep, the result.

    Everything that is drawn for a task depends on its own stream and its own episodes only. What actions mean and how
    rewards are scaled stays the same for a task in an iteration; noise and shifts are new in every step.

    Args:
        env: with ``len(streams) * episodes`` sub-environments in task-major order.
        augment: the settings.
        streams: of the tasks.
        episodes: that are played of each task at a time.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], augment: Augmenting, streams: Sequence[seeding.Stream], episodes: int
    ) -> None:
        super().__init__(env)
        self._augment, self._episodes = augment, episodes
        self._noise = [stream.augmentation() for stream in streams]
        of_tasks = [stream.of_task().augmentation() for stream in streams]
        self._actions = [action_map(env.single_action_space, augment.remap_actions, rng) for rng in of_tasks]
        self._factors = np.repeat([reward_factor(augment, rng) for rng in of_tasks], episodes)
        self._latest: Any = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes; where only some begin, the others' observations are those that were seen last."""
        mask = (options or {}).get("reset_mask")
        observations, infos = self.env.reset(seed=seed, options=options)
        begins = np.ones(self.num_envs, dtype=np.bool_) if mask is None else np.asarray(mask).copy()
        return self._seen(observations, begins), infos

    def step(self, actions: Any) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step the environments with what the actions mean in each task."""
        rows = range(0, self.num_envs, self._episodes)
        meant = [change(actions[row : row + self._episodes]) for row, change in zip(rows, self._actions, strict=True)]
        following, rewards, terminated, truncated, infos = self.env.step(np.concatenate(meant))
        seen = self._seen(following, np.ones(self.num_envs, dtype=np.bool_))
        return seen, rewards * self._factors, terminated, truncated, infos

    def _seen(self, observations: Any, new: NDArray[np.bool_]) -> Any:
        """Return observations with noise and shifts, of the sub-environments that have new ones."""
        tasks = new.reshape(-1, self._episodes)
        generators = [rng if row.any() else None for rng, row in zip(self._noise, tasks, strict=True)]
        found = self._viewed(self.env.single_observation_space, observations, generators)
        self._latest = found if self._latest is None else _where(new, found, self._latest)
        return self._latest

    def _viewed(self, space: spaces.Space[Any], seen: Any, generators: Sequence[np.random.Generator | None]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._viewed(part, seen[key], generators) for key, part in space.spaces.items()}
        augment = self._augment
        noisy = is_real(space) and augment.observation_noise > 0.0
        moved = is_picture(space) and augment.random_shift > 0
        if not (noisy or moved) or not isinstance(space, spaces.Box):
            return seen
        changed = seen.copy()
        for task, rng in enumerate(generators):
            own = slice(task * self._episodes, (task + 1) * self._episodes)
            if rng is not None and moved:
                offsets = rng.integers(-augment.random_shift, augment.random_shift + 1, (self._episodes, 2))
                changed[own] = shifted(changed[own], offsets, channels_first=is_channels_first(space))
            if rng is not None and noisy:
                noise = augment.observation_noise * rng.standard_normal(changed[own].shape)
                changed[own] = np.clip(changed[own] + noise, space.low, space.high)
        return changed


def _where(rows: NDArray[np.bool_], one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {key: _where(rows, one[key], other[key]) for key in one}
    return np.where(rows.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def is_picture(space: spaces.Space[Any]) -> bool:
    """Whether a space is a box of pictures: ``[height, width, channel]`` or ``[channel, height, width]``."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def is_channels_first(space: spaces.Space[Any]) -> bool:
    """Whether the first of a picture's three axes is the channel: the shortest one is, as in stable-baselines3."""
    return int(np.argmin(space.shape or ())) == 0


def height_and_width(space: spaces.Space[Any]) -> tuple[int, int]:
    """Return the height and the width of a space of pictures."""
    shape = space.shape or ()
    return shape[1:] if is_channels_first(space) else shape[:2]  # type: ignore[return-value]


def shifted(images: NDArray[Any], offsets: NDArray[np.int64], *, channels_first: bool) -> NDArray[Any]:
    """Return images that are shifted, with their edges repeated where nothing comes in.

    This is padding and cropping at random, the "random translate" of Laskin et al. 2020 with the edge-padding of
    Kostrikov et al. 2020. All channels of an image, as of stacked frames, move together.

    Args:
        images: ``[image, height, width, channel]``, or ``[image, channel, height, width]``.
        offsets: ``[image, 2]``: how many pixels further down, and to the right, of the image each pixel is taken.
        channels_first: which of the two it is.
    """
    last = np.moveaxis(images, 1, -1) if channels_first else images
    height, width = last.shape[1:3]
    rows = np.clip(np.arange(height) + offsets[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) + offsets[:, 1:], 0, width - 1)
    moved = last[np.arange(len(last))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.moveaxis(moved, -1, 1) if channels_first else moved


def action_map(space: spaces.Space[Any], share: float, rng: np.random.Generator) -> Callable[[Any], Any]:
    """Return what actions ``[episode, ...]`` mean in a task: choices are permuted, signs of real numbers are drawn.

    Args:
        space: of the actions that a policy chooses: Discrete, MultiDiscrete, or a box that is symmetric about 0.
        share: the probability with which a task has other actions.
        rng: of the task.
    """
    if rng.random() >= share:
        return lambda actions: actions
    if isinstance(space, spaces.Box):
        signs = rng.choice([-1.0, 1.0], space.shape).astype(space.dtype)
        return lambda actions: actions * signs
    if isinstance(space, spaces.MultiDiscrete):
        orders = [rng.permutation(int(count)) for count in space.nvec.reshape(-1)]

        def permuted(actions: Any) -> Any:
            columns = actions.reshape(len(actions), -1).T
            meant = [order[column] for order, column in zip(orders, columns, strict=True)]
            return np.stack(meant, axis=1).reshape(actions.shape).astype(actions.dtype)

        return permuted
    assert isinstance(space, spaces.Discrete)
    order = rng.permutation(int(space.n))
    return lambda actions: order[actions].astype(actions.dtype)


def reward_factor(augment: Augmenting, rng: np.random.Generator) -> float:
    """Return the factor of a task's rewards, whose logarithm is uniform; negative where their sign is flipped."""
    limit = np.log1p(augment.scale_rewards)
    size = float(np.exp(rng.uniform(-limit, limit)))
    return -size if rng.random() < augment.flip_rewards else size
