"""Acting: the noise of actions, and actions computed from the output of a policy's last layer and noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.agents.frozen.front import Front
from metarl.agents.normalization import Normalizer
from metarl.agents.observations import transpose_images


class Noise:
    """The action noise of tasks for all their episodes and steps; it does not depend on how tasks are grouped.

    Args:
        rngs: a generator for each task.
        episodes: of each task.
        action_space: of the family.
        choices: how many numbers a step has in addition to those of the action, at the end.
    """

    CHUNK = 50

    def __init__(
        self, rngs: Sequence[np.random.Generator], episodes: int, action_space: spaces.Space[Any], choices: int = 0
    ) -> None:
        self._rngs = rngs
        self._episodes = episodes
        self._box = isinstance(action_space, spaces.Box)
        if isinstance(action_space, spaces.Box | spaces.MultiDiscrete):
            self._width = int(np.prod(action_space.shape))
        else:
            self._width = 1
        self._width += choices
        self._chunk: NDArray[np.float32] = np.empty((0, 0, 0, 0), dtype=np.float32)

    def at(self, step: int) -> NDArray[np.float32]:
        """Return the noise of a step, ``[task, episode, action]``: normal for a box, else uniform in [0, 1)."""
        position = step % self.CHUNK
        if position == 0:
            shape = (self.CHUNK, self._episodes, self._width)
            draws = [
                rng.standard_normal(shape, dtype=np.float32) if self._box else rng.random(shape, dtype=np.float32)
                for rng in self._rngs
            ]
            self._chunk = np.stack(draws, axis=1)
        noise: NDArray[np.float32] = self._chunk[position]
        return noise


class NoNoise:
    """In place of noise, for the most likely actions."""

    def at(self, step: int) -> None:
        """Return None, with which ``Actor.act`` takes the most likely actions."""


class Actor:
    """Draws actions for ``[task, episode]`` sub-environments, each task with its own parameters."""

    choices: ClassVar[int] = 0  # numbers of a step's noise in addition to those of the action
    acts_without_noise: ClassVar[bool] = True  # whether ``act`` takes None for the most likely actions
    _front: Front | None = None

    def __init_subclass__(cls) -> None:
        """Ask of an ``act`` of one's own that it says whether it takes None for the noise."""
        super().__init_subclass__()
        if "act" in vars(cls) and "acts_without_noise" not in vars(cls):
            cls.acts_without_noise = False

    def __init__(self, action_space: spaces.Space[Any], log_std: NDArray[Any] | None, normalizer: Normalizer) -> None:
        self._space = action_space
        self._normalizer = normalizer
        self._spread = None if log_std is None else spread(log_std)  # [task or 1, 1, action], the floor applied

    def after(self, front: Front | None, device: torch.device) -> Self:
        """Put the actor behind a frozen front, which runs on a device; return the actor."""
        self._front, self._device = front, device
        return self

    def see(self, space: spaces.Space[Any], observations: Any) -> Any:
        """Return what ``act`` takes and rollouts keep of a batch of observations ``[row, *obs]``.

        Args:
            space: of the observations.
            observations: arrays, as environments return them.
        """
        seen = transpose_images(space, observations)
        return seen if self._front is None else self._front.see(seen, self._device)

    def noise(self, rngs: Sequence[np.random.Generator], episodes: int) -> Noise:
        """Return the noise for ``act``, for episodes of tasks, each task with its own generator."""
        return Noise(rngs, episodes, self._space, self.choices)

    def act(self, observations: Any, noise: NDArray[np.float32] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return actions ``[task, episode, *action]`` and their log-probabilities ``[task, episode]``.

        Args:
            observations: ``[task, episode, *obs]``, arrays, from ``see``.
            noise: ``[task, episode, action]``, from ``noise``; None for the most likely actions.
        """
        return draw(self._space, self.output(self._normalizer.observe(observations)), self._spread, noise)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return the output of the last layer, ``[task, episode, output]``."""
        raise NotImplementedError


Spread = tuple[NDArray[Any], NDArray[Any]]


def spread(log_std: NDArray[Any]) -> Spread:
    """Return the standard deviation of a Gaussian and the logarithm of the normalising constant of its density."""
    return np.exp(log_std), (log_std + np.float32(0.5 * np.log(2 * np.pi))).sum(axis=-1)


def draw(
    space: spaces.Space[Any], output: NDArray[Any], spread: Spread | None, noise: NDArray[np.float32] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return actions ``[task, episode, *action]`` and their log-probabilities, from a last layer's output and noise.

    Args:
        space: of the actions.
        output: ``[task, episode, output]``, the mean for a box, else logits.
        spread: for a box, from ``spread``.
        noise: ``[task, episode, action]``, from ``Noise``; None for the most likely actions.
    """
    if noise is None:
        noise = _least_noise(space, output)
    if isinstance(space, spaces.Box):
        assert spread is not None
        std, log_volume = spread
        actions = std * noise
        actions += output
        log_probs = np.float32(-0.5) * np.einsum("...a,...a->...", noise, noise)
        log_probs -= log_volume
        return actions.reshape(*actions.shape[:2], *space.shape), log_probs
    if isinstance(space, spaces.MultiDiscrete):
        ends = np.cumsum(space.nvec)
        chosen = [
            choose(output[..., end - n : end], noise[..., i])
            for i, (n, end) in enumerate(zip(space.nvec, ends, strict=True))
        ]
        actions = np.stack([choice for choice, _ in chosen], axis=-1)
        return actions, np.sum([log_prob for _, log_prob in chosen], axis=0)
    return choose(output, noise[..., 0])


def _least_noise(space: spaces.Space[Any], output: NDArray[Any]) -> NDArray[np.float32]:
    """Return the noise with which the most likely actions are drawn."""
    if isinstance(space, spaces.Box):
        return np.zeros(output.shape, dtype=np.float32)
    ends = np.cumsum(space.nvec) if isinstance(space, spaces.MultiDiscrete) else np.array([output.shape[-1]])
    starts = np.concatenate([[0], ends[:-1]])
    parts = [output[..., start:end] for start, end in zip(starts, ends, strict=True)]
    return np.stack([_middle_of_likeliest(part) for part in parts], axis=-1)


def _middle_of_likeliest(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Return the uniform numbers ``[...]`` in the middle of the share of the likeliest choice."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    best = shares.argmax(axis=-1)[..., None]
    ends = np.take_along_axis(shares.cumsum(axis=-1), best, axis=-1)
    middle: NDArray[np.float32] = (ends - np.take_along_axis(shares, best, axis=-1) / 2)[..., 0].astype(np.float32)
    return middle


def choose(logits: NDArray[Any], uniform: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return choices ``[...]`` by logits ``[..., choice]`` and uniform numbers, and their log-probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    cumulative = np.exp(log_probs).cumsum(axis=-1)
    choice = (uniform[..., None] * cumulative[..., -1:] >= cumulative).sum(axis=-1)
    choice = np.minimum(choice, logits.shape[-1] - 1)
    return choice, np.take_along_axis(log_probs, choice[..., None], axis=-1)[..., 0]
