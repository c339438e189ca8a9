"""CAVIA: only a context, further inputs of the policy, adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.agents import Distribution, Normalizer, Parameters, Policy
from metarl.agents.observations import Observations
from metarl.agents.policies import Actor
from metarl.curvature import Chain, Jacobian
from metarl.inner import Path
from metarl.partial import PartlyAdapting
from metarl.settings import FORBID, Clipped, Count, PlainGradient, TrustRegion

_WEIGHTS, _CONTEXT = "context_weights", "context"
_AS_GIVEN = Normalizer()


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


class CAVIA(PartlyAdapting):
    """CAVIA: fast context adaptation.

    A context phi of a few numbers is appended to the observation. It starts at 0 for each task and is all that adapts,
    ``phi' = -alpha grad_phi L(phi = 0, theta)``; the meta-update changes the rest of the parameters, theta (Zintgraf et
    al. 2019, algorithm 2). The context adapts with larger steps than weights do: ``inner.step_size`` is 1 in the paper.
    An adapted policy is a plain perceptron, since inputs that do not change shift the first layer's biases.
    """

    name = "cavia"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (ContextTrustRegion, ContextClipped, ContextPlainGradient)
    source = "Zintgraf et al. 2019"

    def _take_policy(self, policy: Policy) -> None:
        if policy.layers is None:
            raise ValueError(
                "learner cavia appends a context to the observation, which needs a perceptron (MlpPolicy with tanh or "
                f"relu on a flat Box), and this policy is none, on {policy.observation_space}; learner anil adapts the "
                "head of any policy"
            )
        size = self.settings.outer.context_size
        policy = ContextPolicy(policy, size, self.settings.seed)
        length = sum(shape.numel() for shape in policy.shapes.values())
        self._adapts = (torch.arange(length) >= length - size).float().to(self.device)
        super()._take_policy(policy)

    def _chain(self) -> Chain:
        return ContextChain(self._policy, self.path, self.parameters)


class ContextPolicy(Policy):
    """A perceptron with further inputs, the context, which are parameters: the last of them.

    Args:
        plain: the perceptron without.
        size: of the context.
        seed: of the context's initial weights, Xavier-uniform as the others.
    """

    def __init__(self, plain: Policy, size: int, seed: int) -> None:
        assert plain.layers is not None
        self._plain = plain
        self._bias = plain.layers[0].bias
        first = plain.parameters()[plain.layers[0].weight]
        bound = (6.0 / (first.shape[0] + first.shape[1] + size)) ** 0.5
        generator = torch.Generator().manual_seed(seed)
        self._weights: Tensor = bound * (2.0 * torch.rand(len(first), size, generator=generator) - 1.0)
        super().__init__(plain._module, plain.log_std_min)
        self.layers = None

    def parameters(self) -> Parameters:
        """Return a copy of the actor's parameters, the context last."""
        return {
            **self._plain.parameters(),
            _WEIGHTS: self._weights.clone(),
            _CONTEXT: torch.zeros(self._weights.shape[1]),
        }

    @property
    def context_size(self) -> int:
        """How many numbers the context has."""
        return self._weights.shape[1]

    def folded(self, parameters: Parameters) -> Parameters:
        """Return the parameters, shared or stacked, of the perceptron without that does the same."""
        plain = {name: value for name, value in parameters.items() if name not in (_WEIGHTS, _CONTEXT)}
        shift = torch.einsum("...hc,...c->...h", parameters[_WEIGHTS], parameters[_CONTEXT])
        return {**plain, self._bias: plain[self._bias] + shift}

    def distribution(self, parameters: Parameters, observations: Observations) -> Distribution:
        """Return the distribution over actions; see ``Policy``."""
        return self._plain.distribution(self.folded(parameters), observations)

    def actor(self, parameters: Parameters, normalizer: Normalizer = _AS_GIVEN) -> Actor:
        """Return what acts with parameters, shared or stacked."""
        return self._plain.actor(self.folded(parameters), normalizer)

    def module(
        self, parameters: Parameters, normalizer: Normalizer = _AS_GIVEN, device: str | torch.device = "cpu"
    ) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy that does the same; see ``Policy``."""
        return self._plain.module(self.folded(parameters), normalizer, device)

    def critic(self) -> Parameters:
        """Return a copy of the value function's own parameters."""
        return self._plain.critic()

    def set_critic(self, parameters: Parameters) -> None:
        """Take over the value function's own parameters."""
        self._plain.set_critic(parameters)


class ContextChain(Chain):
    """Inner updates of a context, which starts at 0 and so is no part of what the meta-update changes."""

    def __init__(self, policy: Policy, path: Path, parameters: Parameters) -> None:
        super().__init__(policy, path, parameters)
        assert isinstance(policy, ContextPolicy)
        self._size = policy.context_size
        self.vector = self.vector[: -self._size]

    def shared(self, vector: Tensor) -> Parameters:
        """Return the shared parameters, with a context of 0."""
        return self.named(_padded(vector, self._size))

    def retrace(self, vector: Tensor, part: int | slice) -> list[Tensor]:
        """Return parameters after 0, 1, ... inner steps from other shared ones, on the same samples."""
        return super().retrace(_padded(vector, self._size), part)

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

    def backward(self, vector: Tensor, before: Sequence[Tensor] = ()) -> Tensor:
        """Return J^T w."""
        return super().backward(vector, before)[..., : -self._size]


def _padded(vector: Tensor, size: int) -> Tensor:
    return torch.cat([vector, vector.new_zeros(size)])
