"""CAVIA: only a context, additional inputs of the policy, adapts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents import Policy
from metarl.agents.policies import ContextPolicy
from metarl.agents.policies.context import CONTEXT, with_context
from metarl.agents.policies.selection import refuse_part
from metarl.gradients.adaptation import LinearMap
from metarl.learners.maml import MAML
from metarl.state import State


class CAVIA(MAML):
    """CAVIA: fast context adaptation.

    A context phi of ``policy.context_size`` numbers is appended to the observation. It starts at 0 for each task, and
    only the context adapts, ``phi' = -alpha grad_phi L(phi = 0, theta)``; the meta-update changes the other parameters,
    theta (Zintgraf et al. 2019, algorithm 2). The context adapts with larger steps than weights do: in the paper
    ``inner.step_size`` is 1. An adapted policy is a plain perceptron, since constant inputs shift the first layer's
    biases. The context's gradient is propagated back through all layers, but needs no gradients of weights: an inner
    update takes 0.8 of the time of MAML's.
    """

    name = "cavia"
    source = "Zintgraf et al. 2019"
    functional_policy: ContextPolicy

    def prepare_policy(self, policy: Policy) -> Policy:
        """Return the policy with a context.

        Raises:
            ValueError: the policy is not a perceptron.
        """
        return with_context(policy, self.settings.policy.context_size, self.settings.seed, "learner cavia")

    def adapting_parameters(self, policy: Policy) -> frozenset[str]:
        """Return the name of the context.

        Raises:
            ValueError: ``inner.adapts`` is set.
        """
        refuse_part(self.settings.inner.adapts, self.name, "its context alone")
        return frozenset({CONTEXT})

    def meta_vector(self, state: State) -> Tensor:
        """Return the meta-vector: all parameters but the context, which comes last."""
        return super().meta_vector(state)[: -self.functional_policy.context_size]

    def linear_map(self) -> LinearMap:
        """Return the map that appends a context of 0."""
        return WithoutLast(self.functional_policy.context_size)


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
