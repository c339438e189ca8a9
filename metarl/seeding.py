"""Random streams: a separate one for each (purpose, iteration, step, task).

So the numbers drawn for a task depend neither on the other tasks, nor on how tasks are grouped, nor on whether the run
was interrupted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

# The first number of a key, the purpose; 0 to 2 are the splits' tasks (metarl.envs.tasks).
TRAINING = 10
EVALUATION = 11
ADAPTATION = 12
PROTOCOLS = 13
REPLAY = 14
AUGMENTATION = 15


@dataclass(frozen=True)
class Stream:
    """The random stream of one task's episodes: the noise of actions and the seeds of environments."""

    seed: int
    key: tuple[int, ...]

    def noise(self) -> np.random.Generator:
        """Return the generator of the action noise."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(*self.key, 0)))

    def environment_seeds(self, episodes: int) -> list[int]:
        """Return a seed for each episode's environment, below 2^32."""
        return _environment_sequence(self).generate_state(episodes).tolist()  # type: ignore[no-any-return]

    def augmentation(self) -> np.random.Generator:
        """Return the generator of what augmentation changes in the episodes."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(*self.key, 2)))

    def of_task(self) -> Stream:
        """Return the stream of what stays the same for a training task after any number of inner steps."""
        purpose, iteration, *_, task = self.key
        return Stream(self.seed, (AUGMENTATION, purpose, iteration, task))

    @property
    def is_training(self) -> bool:
        """Whether it is a stream of training episodes."""
        return self.key[0] == TRAINING


@functools.lru_cache(maxsize=1024)  # trials ask for the first episodes' seeds, then for all
def _environment_sequence(stream: Stream) -> np.random.SeedSequence:
    return np.random.SeedSequence(stream.seed, spawn_key=(*stream.key, 1))


def streams(seed: int, *key: int, tasks: range) -> list[Stream]:
    """Return the random streams of tasks, given by their numbers, under a key."""
    return [Stream(seed, (*key, task)) for task in tasks]


def augmentation(seed: int, iteration: int) -> np.random.Generator:
    """Return the generator of what augmentation makes of an iteration's tasks."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(AUGMENTATION, iteration)))


def foreign_seed(seed: int) -> int:
    """Return a seed below 2^31: environments that are stepped one by one may keep it in a C integer."""
    return seed >> 1
