"""Checks that a policy's modules support updates: they must be pure functions of parameters and single samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from metarl.agents.frozen.extractors import agree
from metarl.agents.observations import map_observations
from metarl.agents.policies.module import ActorModule, ModulePolicy


def refuse_unsound_modules(module: ActorCriticPolicy) -> None:
    """Refuse a policy with modules that are not pure functions of their parameters and a single sample.

    Raises:
        ValueError: there is such a module; the message names it and what to use instead.
    """
    refuse_unsound_parts(ActorModule(module))


def refuse_unsound_parts(module: nn.Module) -> None:
    """Refuse a module with parts that are not pure functions of their parameters and a single sample.

    Raises:
        ValueError: there is such a part; the message names it and what to use instead.
    """
    for name, part in module.named_modules():
        kind, name = type(part).__name__, name.removeprefix("policy.")
        if isinstance(part, _NormBase) and part.track_running_stats:
            raise ValueError(
                f"the policy's {name} is a {kind}, which makes an output depend on the other samples and remembers "
                "them; use torch.nn.LayerNorm or GroupNorm"
            )
        if isinstance(part, _DropoutNd) and part.p > 0:
            raise ValueError(
                f"the policy's {name} is a {kind}, which draws at random at each pass, so that acting and learning "
                "would disagree; leave it out"
            )
        if isinstance(part, nn.RNNBase | nn.RNNCellBase):
            raise ValueError(
                f"the policy's {name} is a {kind}; layers with memory are not supported, since each observation is "
                "taken by itself"
            )


def refuse_unsound_policy(policy: ModulePolicy) -> None:
    """Refuse a policy that cannot be computed for several tasks at once by ``vmap``, or whose buffers change with use.

    Raises:
        ValueError: a module branches on values, changes something in place, updates a buffer, or lets an observation's
            output depend on the others.
    """
    before = policy.buffers()
    observations = _some(policy.observation_space)
    stacked = {name: torch.stack([value, value]) for name, value in policy.parameters().items()}
    try:
        with torch.no_grad():
            torch.func.vmap(policy.output)(stacked, observations)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            "the policy cannot be run for several tasks at once: a module of it branches on values, changes something "
            f"in place or leaves torch ({reason})"
        ) from error
    single = map_observations(lambda part: part[0], observations)
    with torch.no_grad():
        together = policy.output(policy.parameters(), single)
        rows = [map_observations(lambda part, n=n: part[n : n + 1], single) for n in range(len(together))]
        alone = torch.cat([policy.output(policy.parameters(), row) for row in rows])
    after = policy.buffers(of_copy=True)
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise ValueError(
            f"the policy's buffer {changed[0]!r} changes when the policy is used; what is trained has to be a "
            "parameter, and statistics of observations are kept by learning.normalize_observations"
        )
    if not agree(together, alone):
        raise ValueError(
            "the policy's output for an observation alone is another than among others; compute each row by itself, "
            "without means or branches over rows"
        )


def _some(space: spaces.Space[Any]) -> Any:
    """Return random observations ``[2, 3, *obs]``, as tensors."""
    batch = batch_space(space, 6)
    batch.seed(0)
    drawn = map_observations(lambda part: np.asarray(part).reshape(2, 3, *np.asarray(part).shape[1:]), batch.sample())
    return map_observations(torch.as_tensor, drawn)
