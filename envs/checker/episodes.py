"""Episodes that the checker plays and compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from metarl.envs.answers import check_reset, check_step

EPISODE_STEPS = 250
SEED = 1234


@dataclass(frozen=True)
class Episode:
    """What a single environment gave in an episode, step by step.

    ``observations`` are copies; ``ends`` are ``(terminated, truncated)``; ``shared`` are the steps, from 0, whose
    original observation shares memory with the one before.
    """

    observations: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ends: list[tuple[bool, bool]] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)

    def equals(self, other: Episode) -> bool:
        """Whether two episodes are the same to the last bit."""
        return (
            self.ends == other.ends
            and np.array_equal(self.rewards, other.rewards)
            and all(data_equivalence(x, y) for x, y in zip(self.observations, other.observations, strict=True))
        )


def play_episode(
    env: gymnasium.Env[Any, Any], options: dict[str, Any] | None, seed: int = SEED, steps: int = EPISODE_STEPS
) -> Episode:
    """Play an episode, or the first ``steps`` steps of it, with always the same actions.

    Raises:
        ValueError: the environment returns something that is no observation, reward, end or info.
    """
    env.action_space.seed(SEED)
    answer: Any = env.reset(seed=seed, options=options)
    check_reset(env.observation_space, answer)
    original = answer[0]
    episode = Episode(observations=[_copy(original)])
    for step in range(steps):
        previous, answer = original, env.step(env.action_space.sample())
        _, reward, terminated, truncated, _ = check_step(env.observation_space, answer)
        original = answer[0]
        if any(np.shares_memory(a, b) for a, b in zip(arrays_in(previous), arrays_in(original), strict=False)):
            episode.shared.append(step)
        episode.observations.append(_copy(original))
        episode.rewards.append(reward)
        episode.ends.append((terminated, truncated))
        if terminated or truncated:
            break
    return episode


def arrays_in(value: Any) -> Iterator[Any]:
    """Yield the arrays in an observation or a task."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):  # a dict's own order means nothing
            yield from arrays_in(value[key])
    elif isinstance(value, tuple):
        for part in value:
            yield from arrays_in(part)
    elif isinstance(value, np.ndarray):
        yield value


def as_arrays(value: Any) -> Any:
    """Return an observation or a task in which every number is an array; texts are left out."""
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(as_arrays(part) for part in value)
    return None if isinstance(value, str) else np.asarray(value)


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: _copy(part) for key, part in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copy(part) for part in observation)
    return observation.copy() if isinstance(observation, np.ndarray) else observation
