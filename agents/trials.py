"""Trials: several episodes of one task in order, as one sequence of steps, for policies that remember.

Rollouts of trials have the layout ``[trial, episode, time, ...]``: each row of the first axis is a trial, and its
episodes are in the order in which they were played.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.agents.observations import Observations, map_observations
from metarl.agents.returns import generalized_advantages
from metarl.agents.rollouts import Rollouts

TOLD = 2  # numbers that a policy is told beside the last action: the last reward, and whether an episode has just ended


def encoded_width(space: spaces.Space[Any]) -> int:
    """Return how many numbers ``encode_actions`` makes of an action."""
    return int(spaces.flatdim(space))


def encode_actions(space: spaces.Space[Any], actions: NDArray[Any]) -> NDArray[np.float32]:
    """Return actions ``[row, *action]`` as vectors ``[row, number]``, as a policy with memory is told them.

    Choices become one-hot vectors. Those of a box are clipped to it, since that is what the environment does too.
    """
    if isinstance(space, spaces.Box):
        flat = actions.reshape(len(actions), -1).astype(np.float32)
        return np.clip(flat, space.low.reshape(-1), space.high.reshape(-1)).astype(np.float32)
    counts = [int(n) for n in space.nvec] if isinstance(space, spaces.MultiDiscrete) else [encoded_width(space)]
    chosen = actions.reshape(len(actions), -1)
    columns = [np.eye(count, dtype=np.float32)[chosen[:, i]] for i, count in enumerate(counts)]
    return np.concatenate(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class TrialSteps:
    """The steps of trials as rows, trial after trial, without padding.

    Attributes:
        observations: ``[row, *obs]``, a dict of them for a Dict space.
        told: ``[row, number]``, what a policy is told beside the observation: the last action (``encode_actions``), the
            last reward, and 1 if an episode has just ended; zeros at the first step of a trial.
        actions: ``[row, *action]``, those of a box as vectors.
        log_probs: ``[row]``, under the policy that acted.
        lengths: ``[trial]``, the number of steps of each trial, int64, on the CPU.
        cut: the truncated episodes, ``[episode]`` of all trials in order.
    """

    observations: Observations
    told: Tensor
    actions: Tensor
    log_probs: Tensor
    lengths: Tensor
    cut: CutEpisodes

    def to(self, device: torch.device) -> TrialSteps:
        """Return the steps on a device; lengths and places stay on the CPU."""
        if device == self.told.device:
            return self

        def moved(given: Any) -> Any:
            return map_observations(lambda part: part.to(device), given)

        cut = replace(
            self.cut,
            rows=moved(self.cut.rows),
            observations=moved(self.cut.observations),
            told=moved(self.cut.told),
        )
        names = ("observations", "told", "actions", "log_probs")
        return replace(self, cut=cut, **{name: moved(getattr(self, name)) for name in names})

    @property
    def starts(self) -> Tensor:
        """The row of each trial's first step, ``[trial]``."""
        return self.lengths.cumsum(0) - self.lengths


@dataclass(frozen=True, kw_only=True)
class CutEpisodes:
    """The episodes that were truncated, whose values after the last step are those of their last observation.

    Attributes:
        places: ``[cut, 2]``, trial and episode.
        rows: ``[cut]``, the row of the episode's last step.
        observations: ``[cut, *obs]``, the observation after it.
        told: ``[cut, number]``, what the policy is told with it; the episode has not ended for it.
    """

    places: Tensor
    rows: Tensor
    observations: Observations
    told: Tensor


def trial_steps(space: spaces.Space[Any], rollouts: Rollouts, rewards: Tensor) -> TrialSteps:
    """Return the steps of trials as rows.

    Args:
        space: of the actions.
        rollouts: ``[trial, episode, time, ...]``, on the CPU, with observations as the policy sees them.
        rewards: ``[trial, episode, time]``, as the policy is told them.
    """
    running = rollouts.mask.bool()
    lengths = running.sum(dim=(1, 2))
    actions = rollouts.actions[running]
    coded = torch.from_numpy(encode_actions(space, actions.numpy()))
    ends = (rollouts.terminated | rollouts.truncated)[running].float()
    after = torch.cat([coded, rewards[running].float()[:, None], ends[:, None]], dim=1)
    told = torch.cat([torch.zeros_like(after[:1]), after[:-1]])
    told[lengths.cumsum(0) - lengths] = 0.0
    rows = torch.full(running.shape, -1)
    rows[running] = torch.arange(int(lengths.sum()))
    places = rollouts.truncated.nonzero()
    last = rows[rollouts.truncated]
    unended = after[last]
    unended[:, -1] = 0.0
    trial, episode, time = places.unbind(dim=1)
    return TrialSteps(
        observations=map_observations(lambda part: part[:, :, :-1][running], rollouts.observations),
        told=told,
        actions=actions.reshape(len(actions), -1) if actions.is_floating_point() else actions,
        log_probs=rollouts.log_probs[running],
        lengths=lengths,
        cut=CutEpisodes(
            places=places[:, :2],
            rows=last,
            observations=map_observations(lambda part: part[trial, episode, time + 1], rollouts.observations),
            told=unended,
        ),
    )


def trial_advantages(
    rollouts: Rollouts,
    rewards: Tensor,
    values: Tensor,
    cut_values: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    across: bool,
) -> Tensor:
    """Return the generalised advantage estimates of the steps of trials, ``[row]``.

    Args:
        rollouts: ``[trial, episode, time, ...]``.
        rewards: ``[trial, episode, time]``, whose sum is to be large.
        values: ``[row]``, of the steps.
        cut_values: ``[trial, episode]``, of the last observation of truncated episodes, 0 for others.
        gamma: the discount factor.
        gae_lambda: the decay of the estimator.
        across: whether returns go on from an episode to the next of the trial, with the discount of one step (Duan et
            al. 2016), or end with the episode. A trial's last episode ends with it in either case: it is worth nothing
            beyond if it terminated, and is bootstrapped if it was truncated.
    """
    running = rollouts.mask.bool()
    terminated, truncated = rollouts.terminated, rollouts.truncated
    last = cut_values
    if across:
        lengths = running.sum(dim=(1, 2))
        longest = torch.arange(int(lengths.max()))
        joined = longest < lengths[:, None]
        at_end = longest == lengths[:, None] - 1

        def join(given: Tensor) -> Tensor:
            row = given.new_zeros(joined.shape)
            row[joined] = given[running]
            return row[:, None]

        rewards, terminated, truncated = (join(part) for part in (rewards, terminated, truncated))
        terminated, truncated = terminated & at_end[:, None], truncated & at_end[:, None]
        last = cut_values[:, -1:]
        running = joined[:, None]
    padded = values.new_zeros((*running.shape[:2], running.shape[2] + 1))
    padded[:, :, :-1][running] = values
    padded.scatter_(2, running.sum(dim=2, keepdim=True), last[:, :, None].to(values.dtype))
    advantages = generalized_advantages(
        rewards.to(values.dtype),
        padded,
        running.to(values.dtype),
        terminated,
        truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    return advantages[running]


@dataclass(frozen=True)
class Packing:
    """Some trials side by side, step by step: the order in which a recurrent layer reads them, without padding.

    Attributes:
        rows: ``[n]``, rows of ``TrialSteps``: all trials' first steps, then all second ones, and so on; longer trials
            come first.
        sizes: ``[time]``, the number of trials that are still running, int64, on the CPU.
    """

    rows: Tensor
    sizes: Tensor

    def chunks(self, steps: int) -> list[Packing]:
        """Return the packing in parts of ``steps`` time steps, the last of which may be shorter."""
        parts = torch.split(self.sizes, steps)
        return [
            Packing(rows, sizes)
            for rows, sizes in zip(torch.split(self.rows, [int(part.sum()) for part in parts]), parts, strict=True)
        ]


def pack(steps: TrialSteps, trials: Tensor) -> Packing:
    """Return the packing of some trials, given by their numbers ``[n]``."""
    every, chosen = steps.lengths.numpy(), trials.numpy()
    order = chosen[np.argsort(-every[chosen], kind="stable")]
    times = np.arange(every[order[0]])[:, None]
    running = times < every[order]
    rows = ((every.cumsum() - every)[order] + times)[running]
    return Packing(torch.from_numpy(rows), torch.from_numpy(running.sum(axis=1)))
