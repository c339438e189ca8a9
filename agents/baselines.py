"""The linear feature baseline: values of observations, fitted for all tasks in one batched solve."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-5
STEPS_PER_FEATURE = 3
WIDE = 128  # observations, as of images, whose fit takes long


def baseline_features(observations: Tensor) -> Tensor:
    """Return ``[o, o^2, t/100, (t/100)^2, (t/100)^3, 1]``, the time step t counted from 0.

    Args:
        observations: ``[task, episode, time, feature]``.

    Source: Duan et al. 2016, as in rllab's ``LinearFeatureBaseline``.
    """
    tasks, episodes, steps, _ = observations.shape
    time = torch.arange(steps, dtype=observations.dtype, device=observations.device) / 100.0
    polynomial = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=-1)
    polynomial = polynomial.expand(tasks, episodes, steps, 4)
    return torch.cat([observations, observations.square(), polynomial], dim=-1)


def linear_baseline(observations: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Fit returns to features of the observations, task by task, and return the fitted values.

    It is a ridge regression over the environment steps, in float64. Each feature is first scaled to unit root mean
    square; so with a ridge of 1e-5 any batch of episodes is solvable, even with constant or repeated features. A fit
    with about as many features as steps would reproduce the returns and leave no advantages. So a task with too few
    steps is fitted to features of time alone, and with even fewer steps to its mean.

    Args:
        observations: ``[task, episode, time + 1, feature]``.
        returns: ``[task, episode, time]``, the targets.
        mask: ``[task, episode, time]``, 1 while the episode runs.

    Returns:
        values ``[task, episode, time + 1]``, including those of the observations after the last step.
    """
    width = observations.shape[-1]
    if width >= WIDE and mask[0].numel() < STEPS_PER_FEATURE * (2 * width + 4):
        observations = observations[..., :0]  # no task has steps enough for them
    features = baseline_features(observations.double())
    weights = mask.double().unsqueeze(-1)
    count = weights.sum(dim=(1, 2), keepdim=True).clamp(min=1.0)
    features = features * _affordable(count, observations.shape[-1])
    scale = ((features[:, :, :-1].square() * weights).sum(dim=(1, 2), keepdim=True) / count).sqrt()
    features = features / torch.where(scale > 0, scale, 1.0)
    rows = (features[:, :, :-1] * weights).flatten(1, 2)
    targets = (returns.double() * mask.double()).flatten(1, 2).unsqueeze(-1)
    gram = rows.mT @ rows
    gram = gram + RIDGE * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    # cholesky_ex, unlike cholesky, does not wait for a GPU to check for success, which the ridge guarantees.
    coefficients = torch.cholesky_solve(rows.mT @ targets, torch.linalg.cholesky_ex(gram).L)
    values = (features.flatten(1, 2) @ coefficients).reshape(observations.shape[:3])
    fitted: Tensor = values.to(returns.dtype)
    return fitted


def _affordable(count: Tensor, width: int) -> Tensor:
    """Return 1 for the features that a task with ``count [task, 1, 1, 1]`` steps can be fitted to, else 0."""
    enough_for_all = (count >= STEPS_PER_FEATURE * (2 * width + 4)).to(count.dtype)
    enough_for_time = (count >= STEPS_PER_FEATURE * 4).to(count.dtype)
    always = torch.ones_like(count)
    return torch.cat(
        [enough_for_all.expand(-1, -1, -1, 2 * width), enough_for_time.expand(-1, -1, -1, 3), always], dim=-1
    )
