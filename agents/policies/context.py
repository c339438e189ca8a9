"""A perceptron with a context: additional inputs, the same at every step, that are parameters themselves.

Inputs that are the same for all samples shift the first layer's biases. So the policy equals a perceptron without a
context whose first biases are ``b + C phi``: phi is the context, and C are its weights.
"""

from __future__ import annotations

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.agents.distributions import Distribution
from metarl.agents.normalization import Normalizer
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.perceptron import PerceptronPolicy
from metarl.agents.policies.policy import Parameters, Policy
from metarl.agents.samples import Samples

CONTEXT_WEIGHTS, CONTEXT = "context_weights", "context"


def with_context(policy: Policy, size: int, seed: int, who: str) -> ContextPolicy:
    """Return a policy with a context that adapts.

    Args:
        policy: the perceptron without a context, which may stand behind a frozen front.
        size: of the context.
        seed: of the context's initial weights.
        who: asks for it, for the error.

    Raises:
        ValueError: the policy is not a perceptron.
    """
    policy.need_perceptron(
        f"{who} appends a context to the observation, which",
        "learner anil adapts the head of any policy",
        behind_front=True,
    )
    return ContextPolicy(policy, size, seed)


class ContextPolicy(Policy):
    """A perceptron with a context, additional inputs that are its last parameters.

    Attributes:
        plain: the perceptron without a context.
        first_bias: the name of its first layer's biases.
        bias_places: the slice of these biases in a flat vector.
        sizes: of a flat vector's parts: the perceptron, the context's weights, and the context.

    Args:
        plain: the perceptron without a context.
        size: of the context.
        seed: of the context's initial weights, which are Xavier-uniform like the others.
    """

    plain: PerceptronPolicy

    def __init__(self, plain: Policy, size: int, seed: int) -> None:
        assert isinstance(plain, PerceptronPolicy)
        self.plain = plain
        self.first_bias = plain.layers[0].bias
        first = plain.parameters()[plain.layers[0].weight]
        bound = (6.0 / (first.shape[0] + first.shape[1] + size)) ** 0.5
        generator = torch.Generator().manual_seed(seed)
        self._weights: Tensor = bound * (
            2.0 * torch.rand(len(first), size, generator=generator, dtype=first.dtype) - 1.0
        )
        self.front = plain.front
        super().__init__(plain.observation_space, plain.action_space, plain.log_std_min)
        counts = [shape.numel() for shape in self.shapes.values()]
        start = sum(counts[: list(self.shapes).index(self.first_bias)])
        self.bias_places = slice(start, start + len(first))
        self.sizes = [sum(counts[:-2]), *counts[-2:]]

    def parameters(self) -> Parameters:
        """Return a copy of the actor's initial parameters, the context last."""
        return {
            **self.plain.parameters(),
            CONTEXT_WEIGHTS: self._weights.clone(),
            CONTEXT: self._weights.new_zeros(self._weights.shape[1]),
        }

    def critic(self) -> Parameters:
        """Return a copy of the value function's own initial parameters."""
        return self.plain.critic()

    def buffers(self) -> Parameters:
        """Return a copy of the perceptron's buffers."""
        return self.plain.buffers()

    @property
    def context_size(self) -> int:
        """The number of entries of the context."""
        return self._weights.shape[1]

    def folded(self, parameters: Parameters) -> Parameters:
        """Return the shared or stacked parameters of the equivalent perceptron without a context."""
        plain = {name: value for name, value in parameters.items() if name not in (CONTEXT_WEIGHTS, CONTEXT)}
        shift = torch.einsum("...hc,...c->...h", parameters[CONTEXT_WEIGHTS], parameters[CONTEXT])
        return {**plain, self.first_bias: plain[self.first_bias] + shift}

    def distribution(self, parameters: Parameters, samples: Samples) -> Distribution:
        """Return the distribution over actions; see ``Policy``."""
        return self.plain.distribution(self.folded(parameters), samples)

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor with these shared or stacked parameters; see ``Policy``."""
        return self.plain.actor(self.folded(parameters), normalizer)

    def module(
        self,
        parameters: Parameters,
        critic: Parameters | None = None,
        normalizer: Normalizer | None = None,
        device: str | torch.device = "cpu",
    ) -> ActorCriticPolicy:
        """Return an equivalent stable-baselines3 policy; see ``Policy``."""
        return self.plain.module(self.folded(parameters), critic, normalizer, device)
