"""Perceptrons on a flat box: actors in numpy, and the layers' names, for the fast path of derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from metarl.agents.frozen.front import Front
from metarl.agents.normalization import Normalizer
from metarl.agents.observations import Observations
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.module import ModulePolicy
from metarl.agents.policies.policy import Layer, Parameters


def _relu(x: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    np.maximum(x, 0.0, out=out)
    return out


_NUMPY_ACTIVATIONS: dict[type[nn.Module], Callable[..., Any]] = {nn.Tanh: np.tanh, nn.ReLU: _relu}


class PerceptronPolicy(ModulePolicy):
    """A stable-baselines3 policy whose actor is a perceptron on a flat box.

    Args:
        module: the policy.
        log_std_min: a floor on the logarithm of the standard deviation, or None.
        front: a frozen features extractor before it, or None.
        whole: the policy with the front's features extractor in it.

    Raises:
        ValueError: the policy is not a perceptron (``perceptron_layers`` returns None).
    """

    layers: list[Layer]

    def __init__(
        self,
        module: ActorCriticPolicy,
        log_std_min: float | None = None,
        *,
        front: Front | None = None,
        whole: ActorCriticPolicy | None = None,
    ) -> None:
        layers = perceptron_layers(module)
        if layers is None:
            raise ValueError("the policy is no perceptron on a flat box; use ModulePolicy")
        self.layers = layers
        super().__init__(module, log_std_min, front=front, whole=whole)

    def output(self, parameters: Parameters, observations: Observations) -> Tensor:
        """Return the last layer's output ``[sample, output]`` for observations ``[sample, *obs]``."""
        assert isinstance(observations, Tensor)
        hidden = observations.to(parameters[self.layers[0].weight].dtype)
        hidden = hidden.reshape(len(hidden), -1)
        for layer in self.layers:
            hidden = nn.functional.linear(hidden, parameters[layer.weight], parameters[layer.bias])
            if layer.activation is not None:
                hidden = torch.tanh(hidden) if layer.activation is nn.Tanh else torch.relu(hidden)
        return hidden

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor with these parameters: a batched matrix product in numpy for each layer; see ``Policy``."""
        actor = PerceptronActor(self, parameters, normalizer or Normalizer())
        return actor.after(self.front, parameters[self.layers[0].weight].device)


def perceptron_layers(module: ActorCriticPolicy) -> list[Layer] | None:
    """Return a policy's layers if it is a plain perceptron on a box of real numbers, else None."""
    if type(module) is not ActorCriticPolicy:  # a subclass may compute something else
        return None
    box = module.observation_space
    if not isinstance(box, spaces.Box) or box.dtype.kind != "f":
        return None
    if type(module.pi_features_extractor) is not FlattenExtractor:
        return None
    layers: list[Layer] = []
    for name, part in module.mlp_extractor.policy_net.named_children():
        prefix = f"mlp_extractor.policy_net.{name}"
        if type(part) is nn.Linear and part.bias is not None:
            layers.append(Layer(f"{prefix}.weight", f"{prefix}.bias", None))
        elif type(part) in _NUMPY_ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, type(part))
        else:
            return None
    if type(module.action_net) is not nn.Linear:
        return None
    return [*layers, Layer("action_net.weight", "action_net.bias", None)]


class PerceptronActor(Actor):
    """Acts with a perceptron in numpy."""

    def __init__(self, policy: PerceptronPolicy, parameters: Parameters, normalizer: Normalizer) -> None:
        shared = parameters[policy.layers[-1].bias].dim() == 1
        host = {name: value.detach().cpu().numpy() for name, value in parameters.items()}
        if shared:
            host = {name: value[None] for name, value in host.items()}
        self._layers = [
            (
                np.ascontiguousarray(host[layer.weight].swapaxes(-1, -2)),
                host[layer.bias][:, None, :],
                _NUMPY_ACTIVATIONS.get(layer.activation) if layer.activation is not None else None,
            )
            for layer in policy.layers
        ]
        self._outputs = [np.empty((0, 0, 0))]  # of the layers, reused at each step
        self._biases: list[NDArray[Any]] = []
        log_std = host["log_std"][:, None, :] if "log_std" in host else None
        if log_std is not None and policy.log_std_min is not None:
            log_std = np.maximum(log_std, policy.log_std_min)
        super().__init__(policy.action_space, log_std, normalizer)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return the output of the last layer; see ``Actor``."""
        hidden = observations.reshape(*observations.shape[:2], -1).astype(self._layers[0][0].dtype, copy=False)
        if self._outputs[0].shape[:2] != hidden.shape[:2]:
            shapes = [(*hidden.shape[:2], weight.shape[-1]) for weight, _, _ in self._layers]
            # Zeros, since a product may read what it writes to, and left-over NaN there is a warning of numpy's.
            self._outputs = [np.zeros(shape, hidden.dtype) for shape in shapes]
            # Copied to the full shape, since broadcasting along a middle axis takes twice as long.
            self._biases = [
                np.ascontiguousarray(np.broadcast_to(bias, shape))
                for (_, bias, _), shape in zip(self._layers, shapes, strict=True)
            ]
        for (weight, _, activation), bias, into in zip(self._layers, self._biases, self._outputs, strict=True):
            hidden = np.matmul(hidden, weight, out=into)
            hidden += bias
            if activation is not None:
                hidden = activation(hidden, out=hidden)
        output: NDArray[Any] = hidden
        return output
