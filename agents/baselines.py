"""The linear feature baseline: a value for every observation, fitted in one batched solve."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-5
STEPS_PER_FEATURE = 3


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
    """Fit returns by features of the observations, task by task, and return the fitted values.

    Ridge regression over the steps that ran, in float64. Each feature is first scaled to unit root mean square, so
    that the ridge of 1e-5 keeps any batch of episodes solvable, constant or repeated features included. A fit with
    about as many features as steps would reproduce the returns and leave no advantage, so a task with too few steps is
    fitted by time alone, and with fewer still by its mean.

    Args:
        observations: ``[task, episode, time + 1, feature]``.
        returns: ``[task, episode, time]``, what is fitted.
        mask: ``[task, episode, time]``, 1 while the episode runs.

    Returns:
        values ``[task, episode, time + 1]``, the observation after the last step included.
    """
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
    # cholesky_ex does not read the outcome back to the host; the ridge makes it solvable.
    coefficients = torch.cholesky_solve(rows.mT @ targets, torch.linalg.cholesky_ex(gram).L)
    values = (features.flatten(1, 2) @ coefficients).reshape(observations.shape[:3])
    fitted: Tensor = values.to(returns.dtype)
    return fitted


def _affordable(count: Tensor, width: int) -> Tensor:
    """Return 1 for the features that a task with ``count [task, 1, 1, 1]`` steps can be fitted by, else 0."""
    enough_for_all = (count >= STEPS_PER_FEATURE * (2 * width + 4)).to(count.dtype)
    enough_for_time = (count >= STEPS_PER_FEATURE * 4).to(count.dtype)
    always = torch.ones_like(count)
    return torch.cat(
        [enough_for_all.expand(-1, -1, -1, 2 * width), enough_for_time.expand(-1, -1, -1, 3), always], dim=-1
    )
