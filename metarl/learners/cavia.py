"""CAVIA: only a context, additional inputs of the policy, adapts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import Policy
from metarl.agents.policies import ContextPolicy
from metarl.agents.policies.context import CONTEXT
from metarl.agents.policies.selection import refuse_part
from metarl.fields import FORBID, Count, setting
from metarl.gradients.adaptation import LinearMap
from metarl.learners.maml import MAML
from metarl.state import State


@dataclass(frozen=True, kw_only=True)
class Context:
    """The context: how many numbers are appended to the observation."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    context_size: Count = setting(5, "size of the context appended to the observation", "numbers")


class CAVIA(MAML):
    """CAVIA: fast context adaptation.

    A context phi of a few numbers is appended to the observation. It starts at 0 for each task, and only the context
    adapts, ``phi' = -alpha grad_phi L(phi = 0, theta)``; the meta-update changes the other parameters, theta (Zintgraf
    et al. 2019, algorithm 2). The context adapts with larger steps than weights do: ``inner.step_size`` is 1 in the
    paper. An adapted policy is a plain perceptron, since constant inputs shift the first layer's biases. The context's
    gradient is propagated back through all layers, but needs no gradients of weights: an inner update takes 0.8 of the
    time of MAML's.
    """

    name = "cavia"
    options = Context
    source = "Zintgraf et al. 2019"
    functional_policy: ContextPolicy

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy with a context.

        Raises:
            ValueError: the policy is not a perceptron.
        """
        policy.need_perceptron(
            "learner cavia appends a context to the observation, which",
            "learner anil adapts the head of any policy",
            behind_front=True,
        )
        return ContextPolicy(policy, self.settings.outer.context_size, self.settings.seed)

    def adapting_parameters(self, policy: Policy) -> frozenset[str]:
        """Return the name of the context.

        Raises:
            ValueError: ``inner.adapts`` is set.
        """
        refuse_part(self.settings.inner.adapts, self.name, "its context alone")
        return frozenset({CONTEXT})

    def meta_vector(self, state: State) -> Tensor:
        """Return the meta-vector: all parameters but the context, which comes last."""
        return super().meta_vector(state)[: -self.settings.outer.context_size]

    def linear_map(self) -> LinearMap:
        """Return the map that appends a context of 0."""
        return WithoutLast(self.settings.outer.context_size)


class WithoutLast(LinearMap):
    """The linear map of a meta-vector without the last shared parameters, which are 0.

    Args:
        count: the number of parameters left out.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def apply(self, vector: Tensor) -> tuple[Tensor, None]:
        """Return the shared parameters."""
        return torch.cat([vector, vector.new_zeros(self._count)]), None

    def transpose(self, parameters: Tensor, step_sizes: Sequence[Tensor]) -> Tensor:
        """Return a gradient with respect to the shared parameters without its last entries."""
        return parameters[..., : -self._count]
