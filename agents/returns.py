"""Returns and advantages: pure functions of rollouts ``[..., time]``."""

from __future__ import annotations

import torch
from torch import Tensor

# Relative error of fitted values, in single precision and through the baseline's ridge.
ROUNDING = 1e-5


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return the discounted sum of the rewards from each step to the episode's end.

    ``G_t = r_t + gamma * G_{t+1}``, and 0 where ``mask`` is 0. Truncated episodes are not bootstrapped.

    Args:
        rewards: ``[..., time]``.
        mask: ``[..., time]``, 1 while the episode runs.
        gamma: the discount factor, in [0, 1].
    """
    returns = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        following = (rewards[..., t] + gamma * following) * mask[..., t]
        returns[..., t] = following
    return returns


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Return the generalised advantage estimates, 0 where ``mask`` is 0.

    ``delta_t = r_t + gamma * V_{t+1} * (1 - terminated_t) - V_t`` and
    ``A_t = delta_t + gamma * lambda * A_{t+1}``, where the sum stops at the episode's end. After its end a terminated
    episode has the value 0; a truncated one is bootstrapped with the value of its last observation.

    Args:
        rewards: ``[..., time]``.
        values: ``[..., time + 1]``, of every observation, including the last one.
        mask: ``[..., time]``, 1 while the episode runs.
        terminated: ``[..., time]``, bool.
        truncated: ``[..., time]``, bool.
        gamma: the discount factor, in [0, 1].
        gae_lambda: the decay of the estimator, in [0, 1].

    Source: Schulman et al. 2016, equations 11 and 16.
    """
    alive = 1.0 - terminated.to(rewards.dtype)
    goes_on = 1.0 - (terminated | truncated).to(rewards.dtype)
    deltas = rewards + gamma * values[..., 1:] * alive - values[..., :-1]
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[..., 0])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        following = (deltas[..., t] + gamma * gae_lambda * goes_on[..., t] * following) * mask[..., t]
        advantages[..., t] = following
    return advantages


def normalize(values: Tensor, mask: Tensor, origin: Tensor, *, centre: bool = True) -> Tensor:
    """Shift and scale each task's values to mean 0 and standard deviation 1 over the environment steps.

    Without ``centre`` they are only scaled, to a root mean square of 1.

    Values whose deviation is not larger than their rounding errors become 0; normalised, they would be mere noise.

    Args:
        values: ``[task, episode, time]``, differences of larger numbers.
        mask: ``[task, episode, time]``, 1 while the episode runs.
        origin: ``[task, episode, time]``, those larger numbers, whose size bounds the precision of ``values``.
        centre: whether to shift the values.

    Returns:
        ``[task, episode, time]``, 0 where ``mask`` is 0; all 0 for a task whose values differ only by rounding errors.
    """
    count = mask.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)
    shifted = values * mask
    if centre:
        mean = shifted.sum(dim=(1, 2), keepdim=True) / count
        shifted = (values - mean) * mask
    deviation = (shifted.square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    size = ((origin * mask).square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    return torch.where(deviation > ROUNDING * size, shifted / (deviation + 1e-8), 0.0)
