"""Which policies equal a perceptron whose parameters are a function of theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents import Policy
from metarl.agents.policies import ContextPolicy
from metarl.agents.policies.changed_perceptron import ChangedPerceptronPolicy
from metarl.gradients.folds.backend import Fold
from metarl.gradients.folds.changed import ChangedFold, ChangedParts
from metarl.gradients.folds.context import ContextFold


def how_to_fold(
    policy: Policy, adapts: frozenset[str] | None, device: torch.device
) -> tuple[Policy, Callable[[Tensor], Fold], frozenset[str] | None] | None:
    """Return what ``FoldedBackend`` takes first: the perceptron, the map to it, and what of it adapts; else None.

    Args:
        policy: of which only the context adapts, if it has one.
        adapts: names of the parameters that inner updates change; None for all.
        device: where the vectors are.
    """
    if isinstance(policy, ContextPolicy):
        return policy.plain, functools.partial(ContextFold, policy), frozenset({policy.first_bias})
    if isinstance(policy, ChangedPerceptronPolicy):
        parts = ChangedParts(policy, adapts, device)
        return policy.plain, functools.partial(ChangedFold, parts), parts.plain_adapts
    return None
