"""Perceptrons of which parts are frozen, masked or have low-rank updates: plain ones, whose weights are computed."""

from __future__ import annotations

import copy

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from metarl.agents.frozen.front import Front
from metarl.agents.frozen.lora import A, B
from metarl.agents.frozen.masked import MASK
from metarl.agents.frozen.merged import merge
from metarl.agents.normalization import Normalizer
from metarl.agents.observations import Observations
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.module import ModulePolicy
from metarl.agents.policies.perceptron import PerceptronActor, PerceptronPolicy, perceptron_layers
from metarl.agents.policies.policy import Parameters

# Each task has computed weights of its own. Above this, low-rank updates are there to save just that memory.
FEW_WEIGHTS = 2**20


class ChangedPerceptronPolicy(ModulePolicy):
    """A perceptron on a flat box with frozen parameters, masked weights or low-rank updates.

    Attributes:
        plain: the perceptron that it equals, whose parameters ``folded`` computes.

    Args:
        module: the policy, for which ``is_changed_perceptron`` is true.
        log_std_min: a floor on the logarithm of the standard deviation, or None.
        frozen: names of parameters that are neither adapted nor trained.
        front: a frozen features extractor before it, or None.
        whole: the policy with the front's features extractor in it.
    """

    def __init__(
        self,
        module: ActorCriticPolicy,
        log_std_min: float | None = None,
        *,
        frozen: frozenset[str],
        front: Front | None = None,
        whole: ActorCriticPolicy | None = None,
    ) -> None:
        super().__init__(module, log_std_min, frozen=frozen, front=front, whole=whole)
        self.plain = PerceptronPolicy(merge(copy.deepcopy(module)), log_std_min)

    def constants(self, device: torch.device) -> Parameters:
        """Return what is the same for all parameters, by name: frozen parameters and masks."""
        own = self._constant(self.initial_module)
        return {name: value.detach().to(device) for name, value in own.items()}

    def folded(self, parameters: Parameters, constants: Parameters | None = None) -> Parameters:
        """Return the shared or stacked parameters of the perceptron that it equals.

        Args:
            parameters: the trained ones.
            constants: what ``constants`` returns for their device, if it is at hand.
        """
        first, shape = next((parameters[name], shape) for name, shape in self.shapes.items())
        leading = first.shape[: first.dim() - len(shape)]
        named = {**(self.constants(first.device) if constants is None else constants), **parameters}
        found = {}
        for name, plain_shape in self.plain.shapes.items():
            layer, _, kind = name.rpartition(".")
            value = named[name]
            if kind == "weight" and f"{layer}.{MASK}" in named:
                value = value * named[f"{layer}.{MASK}"]
            if kind == "weight" and f"{layer}.{A}" in named:
                value = value + low_rank(named[f"{layer}.{B}"], named[f"{layer}.{A}"])
            found[name] = value.expand(*leading, *plain_shape)
        return found

    def output(self, parameters: Parameters, observations: Observations) -> Tensor:
        """Return the last layer's output ``[sample, output]`` for observations ``[sample, *obs]``."""
        return self.plain.output(self.folded(parameters), observations)

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor with these parameters: that of the perceptron; see ``Policy``."""
        actor = PerceptronActor(self.plain, self.folded(parameters), normalizer or Normalizer())
        return actor.after(self.front, next(iter(parameters.values())).device)


def is_changed_perceptron(module: ActorCriticPolicy) -> bool:
    """Return whether a policy's actor equals a plain perceptron of at most ``FEW_WEIGHTS`` weights."""
    plain = merge(copy.deepcopy(module))
    layers = perceptron_layers(plain)
    if layers is None:
        return False
    weights: dict[str, Tensor] = dict(plain.named_parameters())
    return sum(weights[layer.weight].numel() for layer in layers) <= FEW_WEIGHTS


def low_rank(b: Tensor, a: Tensor) -> Tensor:
    """Return ``B A``, ``[..., output, input]``, bit for bit the same for a single task as for several at once."""
    total = b[..., :, :1] * a[..., :1, :]
    for rank in range(1, b.shape[-1]):
        total = total + b[..., :, rank, None] * a[..., rank, None, :]
    return total
