"""CAVIA: only a context, further inputs of the policy, adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import Parameters, Policy
from metarl.gradients.context_backend import CONTEXT, ContextPolicy
from metarl.gradients.curvature import Added, Chain, Jacobian
from metarl.gradients.inner import Path
from metarl.learners.maml import MAML
from metarl.settings import FORBID, Clipped, Count, PlainGradient, TrustRegion


@dataclass(frozen=True, kw_only=True)
class Context:
    """The context: how many numbers are appended to the observation."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    context_size: Count = 5


@dataclass(frozen=True, kw_only=True)
class ContextTrustRegion(Context, TrustRegion):
    """CAVIA with TRPO."""


@dataclass(frozen=True, kw_only=True)
class ContextClipped(Context, Clipped):
    """CAVIA with PPO."""


@dataclass(frozen=True, kw_only=True)
class ContextPlainGradient(Context, PlainGradient):
    """CAVIA with a plain gradient step."""


class CAVIA(MAML):
    """CAVIA: fast context adaptation.

    A context phi of a few numbers is appended to the observation. It starts at 0 for each task and is all that adapts,
    ``phi' = -alpha grad_phi L(phi = 0, theta)``; the meta-update changes the rest of the parameters, theta (Zintgraf et
    al. 2019, algorithm 2). The context adapts with larger steps than weights do: ``inner.step_size`` is 1 in the paper.
    An adapted policy is a plain perceptron, since inputs that do not change shift the first layer's biases. The
    context's gradient comes down through all layers without those of their weights: an inner update takes 0.8 of the
    time of MAML's.
    """

    name = "cavia"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (ContextTrustRegion, ContextClipped, ContextPlainGradient)
    source = "Zintgraf et al. 2019"
    adapts = frozenset({CONTEXT})

    def _take_policy(self, policy: Policy) -> None:
        policy.need_perceptron(
            "learner cavia appends a context to the observation, which", "learner anil adapts the head of any policy"
        )
        super()._take_policy(ContextPolicy(policy, self.settings.outer.context_size, self.settings.seed))

    def _chain(self) -> Chain:
        return ContextChain(self._policy, self.path, self.parameters)


class ContextChain(Chain):
    """Inner updates of a context, which starts at 0 and so is no part of what the meta-update changes."""

    def __init__(self, policy: Policy, path: Path, parameters: Parameters) -> None:
        super().__init__(policy, path, parameters)
        assert isinstance(policy, ContextPolicy)
        self._size = policy.context_size
        self.vector = self.vector[: -self._size]

    def _read(self, vector: Tensor) -> tuple[Tensor, Sequence[float | Tensor]]:
        return _padded(vector, self._size), self._scales

    def jacobians(self) -> list[Jacobian]:
        """Return each part's Jacobian by the shared parameters without the context."""
        return [ContextJacobian(part, self._size) for part in super().jacobians()]


class ContextJacobian(Jacobian):
    """The Jacobian of one task's adapted parameters by all shared ones but the context."""

    def __init__(self, plain: Jacobian, size: int) -> None:
        self._steps = plain._steps
        self._size = size

    def forward(self, vector: Tensor) -> Tensor:
        """Return J v."""
        return super().forward(_padded(vector, self._size))

    def backward(self, vector: Tensor, added: Added | None = None) -> Tensor:
        """Return J^T w."""
        return super().backward(vector, added)[..., : -self._size]


def _padded(vector: Tensor, size: int) -> Tensor:
    return torch.cat([vector, vector.new_zeros(size)])
