"""Rollouts: the data collected in environments, for several tasks and episodes, as ``[task, episode, time, ...]``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from metarl.agents.observations import Observations, map_observations, parts

_ALIGNMENT = 64  # bytes; at least the size of any number


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Episodes of several tasks, tensors ``[task, episode, time, ...]`` (T time steps).

    Attributes:
        observations: ``[task, episode, T + 1, *obs]``, a dict of them for a Dict space. They have one more time step
            than the others: entry t + 1 is the observation after step t, so a truncated episode is bootstrapped from
            the entry after its last step.
        actions: ``[task, episode, T, *action]``, as sampled; the environment clips them.
        log_probs: ``[task, episode, T]``, under the policy that acted.
        rewards: ``[task, episode, T]``, 0 after an episode's end.
        mask: ``[task, episode, T]``, 1.0 while the episode runs, up to and including its last step, else 0.0.
        terminated: ``[task, episode, T]``, bool: the step reached a terminal state.
        truncated: ``[task, episode, T]``, bool: the step ended the episode otherwise (a time limit).
        infos: numbers of the environments' ``info`` by name, ``[task, episode, T]``, NaN where there were none.

    Raises:
        ValueError: the tensors' leading shapes disagree.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    mask: Tensor
    terminated: Tensor
    truncated: Tensor
    infos: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.mask.shape
        if len(shape) != 3:
            raise ValueError(f"the mask has shape {tuple(shape)}; expected [task, episode, time]")
        for name in ("actions", "log_probs", "rewards", "terminated", "truncated"):
            found = getattr(self, name).shape[:3]
            if found != shape:
                raise ValueError(f"{name} has the leading shape {tuple(found)}; expected {tuple(shape)}")
        expected = (*shape[:2], shape[2] + 1)
        for part in parts(self.observations):
            if tuple(part.shape[:3]) != expected:
                raise ValueError(f"observations have the leading shape {tuple(part.shape[:3])}; expected {expected}")

    @property
    def n_tasks(self) -> int:
        """The number of tasks."""
        return self.mask.shape[0]

    def to(self, device: torch.device) -> Rollouts:
        """Return the rollouts on a device, moved in one copy; to a GPU it is asynchronous."""
        if device == self.mask.device:
            return self
        tensors = [part for entry in fields(self) for part in parts(getattr(self, entry.name))]
        moved = iter(_move(tensors, device))
        return Rollouts(
            **{entry.name: map_observations(lambda _: next(moved), getattr(self, entry.name)) for entry in fields(self)}
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Rollouts:
        """Return the rollouts with a function applied to every tensor."""
        return Rollouts(**{entry.name: map_observations(function, getattr(self, entry.name)) for entry in fields(self)})

    def returns(self) -> Tensor:
        """Return the mean undiscounted return of each task's episodes, ``[task]``."""
        return self.episode_returns().mean(dim=1)

    def episode_returns(self) -> Tensor:
        """Return the undiscounted return of every episode, ``[task, episode]``."""
        return (self.rewards * self.mask).sum(dim=2)

    def steps(self) -> int:
        """Return the number of environment steps, without padding."""
        return int(self.mask.sum())


def _move(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors on another device, copied as one block of bytes, to a GPU from pinned memory."""
    ends = list(itertools.accumulate(-(-part.nbytes // _ALIGNMENT) * _ALIGNMENT for part in tensors))
    block = torch.empty(ends[-1], dtype=torch.uint8, device=tensors[0].device, pin_memory=device.type == "cuda")

    def slots(memory: Tensor) -> list[Tensor]:
        starts = zip([0, *ends], tensors, strict=False)
        return [memory[start : start + part.nbytes].view(part.dtype).view(part.shape) for start, part in starts]

    for slot, part in zip(slots(block), tensors, strict=True):
        slot.copy_(part)
    return slots(block.to(device, non_blocking=True))


def pad_time(rollouts: Rollouts, length: int) -> Rollouts:
    """Return rollouts padded to ``length`` time steps: no episode runs in those added, the last observation repeats."""
    added = length - rollouts.mask.shape[2]
    if added == 0:
        return rollouts

    def pad(tensor: Tensor, final: Tensor) -> Tensor:
        return torch.cat([tensor, *[final] * added], dim=2)

    padded = {}
    for entry in fields(rollouts):
        if entry.name == "observations":
            padded[entry.name] = map_observations(lambda part: pad(part, part[:, :, -1:]), rollouts.observations)
        else:
            nothing = float("nan") if entry.name == "infos" else 0
            padded[entry.name] = map_observations(
                lambda part, nothing=nothing: pad(part, torch.full_like(part[:, :, -1:], nothing)),
                getattr(rollouts, entry.name),
            )
    return Rollouts(**padded)


def join_episodes(rollouts: Sequence[Rollouts]) -> Rollouts:
    """Join rollouts of the same tasks along the episode axis, padding shorter ones to the same number of time steps."""
    longest = max(part.mask.shape[2] for part in rollouts)
    padded = [pad_time(part, longest) for part in rollouts]
    joined = {}
    for entry in fields(Rollouts):
        given = [getattr(part, entry.name) for part in padded]
        if entry.name == "infos":
            common = set.intersection(*(set(part) for part in given))
            given = [{name: part[name] for name in sorted(common)} for part in given]
        joined[entry.name] = map_observations(lambda *tensors: torch.cat(tensors, dim=1), *given)
    return Rollouts(**joined)
