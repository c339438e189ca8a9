"""Structured pruning of perceptrons: which neurons matter least, and the perceptron without them.

A neuron of a hidden layer matters as much as what it can pass on: the Euclidean norm of its incoming weights times that
of its outgoing ones (after the magnitude of filters in Li et al. 2017), divided by the mean over its layer, so that
layers can be compared. What a neuron always adds, its activation where its inputs are 0, is moved to the biases of the
next layer. So neurons without incoming or without outgoing weights leave no trace.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from metarl.agents import Parameters
from metarl.agents.policies import Layer

Scope = Literal["global", "layer"]


def importance(layers: Sequence[Layer], parameters: Parameters) -> list[Tensor]:
    """Return how much each neuron of each hidden layer matters, ``[neuron]``, 1 on average in a layer."""
    found = []
    for layer, following in itertools.pairwise(layers):
        incoming = parameters[layer.weight].norm(dim=1)
        outgoing = parameters[following.weight].norm(dim=0)
        product = incoming * outgoing
        found.append(product / product.mean().clamp(min=torch.finfo(product.dtype).tiny))
    return found


def kept_neurons(scores: Sequence[Tensor], amount: float, scope: Scope) -> list[Tensor]:
    """Return the numbers of the neurons that stay, in order, for each hidden layer; at least one of each.

    Args:
        scores: of the neurons, from ``importance``.
        amount: the share of neurons that go.
        scope: the least important of all layers together, or the same share of each layer.
    """
    if scope == "layer":
        counts = [max(1, len(part) - round(amount * len(part))) for part in scores]
        return [
            part.argsort(descending=True, stable=True)[:count].sort().values
            for part, count in zip(scores, counts, strict=True)
        ]
    together = torch.cat(list(scores))
    going = torch.zeros(len(together), dtype=torch.bool)
    going[together.argsort(stable=True)[: round(amount * len(together))]] = True
    kept = []
    for part, gone in zip(scores, torch.split(going, [len(part) for part in scores]), strict=True):
        stays = ~gone
        stays[part.argmax()] = True
        kept.append(stays.nonzero()[:, 0])
    return kept


def without_neurons(layers: Sequence[Layer], parameters: Parameters, kept: Sequence[Tensor]) -> Parameters:
    """Return a perceptron's parameters without the other neurons of its hidden layers.

    Args:
        layers: of the perceptron.
        parameters: no task axis; those that belong to no layer stay.
        kept: from ``kept_neurons``.
    """
    found = dict(parameters)
    for layer, following, stays in zip(layers[:-1], layers[1:], kept, strict=True):
        bias = found[layer.bias]
        always = bias if layer.activation is None else layer.activation()(bias)
        gone = torch.ones(len(bias), dtype=torch.bool)
        gone[stays] = False
        after = found[following.weight]
        found[following.bias] = found[following.bias] + after[:, gone] @ always[gone]
        found[following.weight] = after[:, stays]
        found[layer.weight], found[layer.bias] = found[layer.weight][stays], bias[stays]
    return found
