"""Playing trials: several episodes of each task in order, each in the same sub-environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from metarl.agents import Noise, Rollouts
from metarl.agents.observations import map_observations, parts
from metarl.agents.policies import Actor, GruActor
from metarl.envs import BatchedFamily, RolloutError
from metarl.envs.sync import error_text
from metarl.sampler import MAX_STEPS, refuse_non_finite
from metarl.seeding import Stream, foreign_seed
from metarl.statistics import number_infos

SHARE = 0.5  # of the machine's free memory, which the steps of trials may take while they are played


def free_bytes(device: torch.device | None = None) -> int:
    """Return how many bytes of memory are free; a very large number where the system does not tell.

    Args:
        device: a GPU, whose memory it is then.
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            told = {line.split(":")[0]: line.split()[1] for line in file}
        return int(told["MemAvailable"]) * 1024
    except (OSError, KeyError, IndexError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**62


def trial_player(
    streams: Sequence[Stream],
    trial_episodes: int,
    refuse_size: Callable[[int, int], None],
    keep: Callable[[GruActor], None] | None = None,
) -> Callable[..., Rollouts]:
    """Return a function that plays trials, for ``Sampler.collect``, whose ``episodes`` are then trials of each task.

    Args:
        streams: of the tasks, from which the seeds of all episodes come.
        trial_episodes: the number of episodes in a trial.
        refuse_size: called with the number of steps so far, and the bytes that a step of all trials takes; raises an
            error if they are too many.
        keep: called with the actor after the last step.
    """

    def play(
        env: VectorEnv[Any, Any, Any],
        actor: Actor,
        noise: Noise,
        first: Any,
        n_tasks: int,
        trials: int,
        *,
        double: bool = False,
        record: Sequence[str] = (),
    ) -> Rollouts:
        assert isinstance(actor, GruActor)
        seeds = np.array([stream.environment_seeds(trials * trial_episodes) for stream in streams], dtype=np.int64)
        seeds = seeds.reshape(n_tasks, trial_episodes, trials).swapaxes(1, 2).reshape(-1, trial_episodes)
        if not isinstance(env.unwrapped, BatchedFamily):
            seeds = np.vectorize(foreign_seed, otypes=[np.int64])(seeds)
        shape = (n_tasks, trials)
        rollouts = play_trials(env, actor, noise, first, shape, seeds, refuse_size, double=double, record=record)
        if keep is not None:
            keep(actor)
        return rollouts

    return play


def play_trials(
    env: VectorEnv[Any, Any, Any],
    actor: GruActor,
    noise: Noise,
    first: Any,
    shape: tuple[int, int],
    seeds: NDArray[np.int64],
    refuse_size: Callable[[int, int], None],
    *,
    double: bool = False,
    record: Sequence[str] = (),
) -> Rollouts:
    """Step the environments until all trials have ended; a sub-environment that ends an episode begins its next.

    Args:
        env: a sub-environment for each trial, in task-major order, just reset.
        actor: chooses the actions, and remembers.
        noise: of the actions.
        first: the first observations.
        shape: the number of tasks, and of trials of each task.
        seeds: ``[trial, episode]``, of the environments' resets; the first ones have been used.
        refuse_size: see ``trial_player``.
        double: keep observations in double precision if the environments return them so.
        record: names of entries of ``info`` to keep besides those of success.

    Returns:
        rollouts ``[trial, episode, time, ...]`` with a row for each trial.

    Raises:
        RolloutError: an environment failed; the message does not name the task yet.
    """
    space, (rows, episodes) = env.single_observation_space, seeds.shape
    played = _Record(rows, episodes)
    latest = actor.see(space, first)
    refuse_non_finite("gave the observation", first, "at reset")
    running = np.ones(rows, dtype=np.bool_)
    while running.any():
        when = f"at step {played.steps} of the trial"
        if played.elapsed.max() >= MAX_STEPS:
            raise RolloutError(
                f"is still running after {MAX_STEPS} steps; set family_kwargs.max_episode_steps",
                int(played.elapsed.argmax()),
            )
        shaped = map_observations(lambda part: part.reshape(*shape, *part.shape[1:]), latest)
        actions, log_probs = actor.act(shaped, noise.at(played.steps))
        flat = actions.reshape(rows, *actions.shape[2:])
        refuse_non_finite("got the action", flat, when)
        try:
            following, rewards, terminated, truncated, info = env.step(flat)
        except RolloutError as error:
            raise RolloutError(f"{error}, {when}", error.env_index) from error
        except Exception as error:
            raise RolloutError(f"raised {error_text(error)}, {when}", None) from error
        refuse_non_finite("gave the observation", following, when)
        refuse_non_finite("gave the reward", rewards, when)
        ended = (terminated | truncated) & running
        after = actor.see(space, following)
        played.add(
            latest,
            (flat, log_probs.reshape(-1), rewards * running, terminated & running, truncated & running),
            number_infos(info, running, record),
            running,
        )
        if played.steps in _CHECKED:
            refuse_size(played.steps, played.bytes_of_step())
        actor.tell(rewards * running, ended)
        latest = after
        if ended.any():
            played.end(after, ended)
            begins = ended & (played.episode < episodes)
            if begins.any():
                given = [int(seeds[row, played.episode[row]]) if begins[row] else None for row in range(rows)]
                try:
                    again = env.reset(seed=given, options={"reset_mask": begins})[0]  # type: ignore[arg-type]
                except RolloutError:
                    raise
                except Exception as error:
                    raise RolloutError(f"raised {error_text(error, ' in reset')}, {when}", None) from error
                refuse_non_finite("gave the observation", again, f"at reset, {when}")
                latest = actor.see(space, again)
            running = played.episode < episodes
    return played.rollouts(double=double)


_ARRAY_BYTES = 128  # of an array, besides its numbers
_CHECKED = frozenset([1, *(2**power for power in range(4, 40))])


class _Record:
    """What happens in trials, step by step: every entry is of all trials, whichever episode each of them is in."""

    def __init__(self, rows: int, episodes: int) -> None:
        self.episode = np.zeros(rows, dtype=np.int64)
        self.elapsed = np.zeros(rows, dtype=np.int64)  # steps of the current episodes
        self.lengths = np.zeros((rows, episodes), dtype=np.int64)  # of the episodes that ended
        self.steps = 0
        self._all = np.arange(rows)
        self._observations: list[Any] = []
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._infos: list[dict[str, NDArray[np.float64]]] = []
        self._last: Any = None  # the last observations of episodes, [trial, episode, *obs]

    def add(
        self,
        observations: Any,
        step: tuple[NDArray[Any], ...],
        infos: dict[str, NDArray[np.float64]],
        running: NDArray[np.bool_],
    ) -> None:
        """Add a step: the observations before it; actions, log-probabilities, rewards, terminated, truncated."""
        self._observations.append(observations)
        self._parts.append(step)
        self._infos.append(infos)
        self.elapsed += running
        self.steps += 1

    def end(self, observations: Any, ended: NDArray[np.bool_]) -> None:
        """Note the last observations of the episodes that ended."""
        rows, number = self._all[ended], self.episode[ended]
        if self._last is None:
            shape = self.lengths.shape
            self._last = map_observations(lambda part: np.zeros((*shape, *part.shape[1:]), part.dtype), observations)

        def note(last: NDArray[Any], part: NDArray[Any]) -> None:
            last[rows, number] = part[ended]

        map_observations(note, self._last, observations)
        self.lengths[rows, number] = self.elapsed[ended]
        self.elapsed[ended] = 0
        self.episode[ended] += 1

    def bytes_of_step(self) -> int:
        """Return how many bytes the last step takes."""
        arrays = [*parts(self._observations[-1]), *self._parts[-1], *self._infos[-1].values()]
        return sum(int(array.nbytes) + _ARRAY_BYTES for array in arrays)

    def rollouts(self, *, double: bool) -> Rollouts:
        """Return the steps as rollouts ``[trial, episode, time, ...]``."""
        longest = int(self.lengths.max())
        times = np.arange(longest)
        starts = self.lengths.cumsum(axis=1) - self.lengths
        at = starts[:, :, None] + np.minimum(times, self.lengths[:, :, None] - 1)
        mask = times < self.lengths[:, :, None]
        whole = self._all[:, None, None]

        def spread(arrays: Sequence[NDArray[Any]], *, double: bool = False) -> NDArray[Any]:
            stacked = np.stack(arrays)
            if stacked.dtype == np.float64 and not double:
                stacked = stacked.astype(np.float32)
            return stacked[at, whole]

        def masked(arrays: Sequence[NDArray[Any]]) -> torch.Tensor:
            found = spread(arrays)
            cut = mask.reshape(*mask.shape, *[1] * (found.ndim - 3))
            return torch.from_numpy(np.where(cut, found, np.zeros((), found.dtype)))

        def observed(last: NDArray[Any], *arrays: NDArray[Any]) -> torch.Tensor:
            found = spread(arrays, double=double)
            after = np.concatenate([found, found[:, :, -1:]], axis=2)
            ends = last.astype(found.dtype)[:, :, None]
            beyond = np.arange(longest + 1) >= self.lengths[:, :, None]
            return torch.from_numpy(np.where(beyond.reshape(*beyond.shape, *[1] * (ends.ndim - 3)), ends, after))

        actions, log_probs, rewards, terminated, truncated = (masked(part) for part in zip(*self._parts, strict=True))
        names = sorted({name for step in self._infos for name in step})
        missing = np.full(len(self._all), np.nan)
        infos = {}
        for name in names:
            found = spread([step.get(name, missing) for step in self._infos])
            infos[name] = torch.from_numpy(np.where(mask, found, np.float32(np.nan)))
        return Rollouts(
            observations=map_observations(observed, self._last, *self._observations),
            actions=actions,
            log_probs=log_probs,
            rewards=rewards,
            mask=torch.from_numpy(mask.astype(np.float32)),
            terminated=terminated,
            truncated=truncated,
            infos=infos,
        )


def by_episode(rollouts: Rollouts, n_tasks: int) -> list[Rollouts]:
    """Return the rollouts ``[task, trial, time, ...]`` of the trials' first episodes, of their second ones, and so on.

    Args:
        rollouts: ``[trial, episode, time, ...]``, the trials in task-major order.
        n_tasks: the number of tasks.
    """

    def taken(episode: int) -> Rollouts:
        return rollouts.map(lambda part: part[:, episode].reshape(n_tasks, -1, *part.shape[2:]))

    return [taken(episode) for episode in range(rollouts.mask.shape[1])]
