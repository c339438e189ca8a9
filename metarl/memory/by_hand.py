"""The gradient of ``ppo.loss_gradient`` by hand, for policies without trained features, on the CPU.

Between the observations, which are flattened, and the loss lie a perceptron, the recurrent unit, and on its memory the
linear layer of the actions' distribution and the value function with one hidden layer. The gradient goes the same way
back; automatic differentiation would take as long for its graph as for these few products. Layers of matrix products
are torch's, which keeps to its number of threads; all else is numpy's, whose operations start faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from metarl.agents import Parameters
from metarl.agents.policies import GruPolicy
from metarl.agents.policies.gru import Scratch, backwards, forwards
from metarl.agents.policies.gru import Weights as GruWeights
from metarl.agents.trials import pack
from metarl.memory.ppo import Batch, Parts, Weights
from metarl.memory.value_head import HIDDEN, LAST

Array = NDArray[Any]
# Log-probabilities and entropies of rows; and the way back, from the gradients with respect to both (the second is the
# same for all rows) to those with respect to the output and to the logarithm of the standard deviation.
Head = tuple[Array, Array, Callable[[Array, float], tuple[Array, Array | None]]]
GRU = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def applies(policy: GruPolicy, device: torch.device) -> bool:
    """Return whether ``loss_gradient`` knows the policy's parts: flattened observations, all trained, and the CPU."""
    plain = type(policy) is GruPolicy and type(policy.network.features_extractor) is FlattenExtractor
    return plain and not policy.frozen and device.type == "cpu"


def loss_gradient(
    policy: GruPolicy,
    shared: Parameters,
    batch: Batch,
    trials: Tensor,
    weights: Weights,
    chunk: int | None,
    scratch: Scratch | None = None,
) -> tuple[Parameters, Parts, int]:
    """Return what ``ppo.loss_gradient`` returns for the same arguments, up to rounding; ``scratch`` is for the unit."""
    packing = pack(batch.steps, trials)
    count = len(packing.rows)
    hidden = torch.zeros(int(packing.sizes[0]), policy.memory_size, dtype=shared["weight_hh"].dtype)
    unit: GruWeights = tuple(shared[name] for name in GRU)  # type: ignore[assignment]
    total: Parameters = {}
    sums: Parts = {}
    with torch.no_grad():
        for piece in packing.chunks(chunk or len(packing.sizes)):
            sizes = piece.sizes.tolist()
            levels = _embedded(policy, shared, _inputs(policy, batch, piece.rows, hidden))
            memory, passed = forwards(levels[-1], sizes, hidden[: sizes[0]], unit, scratch)
            following = hidden[:0]
            for where, part in reversed(passed.parts()):
                towards, found, parts = _head_gradient(
                    policy, shared, batch, piece.rows[where], memory[where], weights, count
                )
                of_inputs, following, of_unit = backwards(
                    part, towards, following, unit, scratch, of_inputs=len(levels) > 1
                )
                found.update(zip(GRU, of_unit, strict=True))
                if of_inputs is not None:
                    found.update(_embedding_gradient(policy, shared, [level[where] for level in levels], of_inputs))
                total = {name: total[name] + value for name, value in found.items()} if total else found
                sums = {name: sums[name] + value for name, value in parts.items()} if sums else parts
            hidden = memory[len(memory) - sizes[-1] :].clone()
    return {name: total[name] for name in shared}, sums, count


def _inputs(policy: GruPolicy, batch: Batch, rows: Tensor, like: Tensor) -> Tensor:
    observations = batch.steps.observations
    assert isinstance(observations, Tensor)
    seen = preprocess_obs(observations[rows], policy.observation_space, normalize_images=True)
    assert isinstance(seen, Tensor)
    return torch.cat([seen.reshape(len(rows), -1).to(like), batch.steps.told[rows].to(like)], dim=1)


def _head_gradient(
    policy: GruPolicy, shared: Parameters, batch: Batch, rows: Tensor, memory: Tensor, weights: Weights, count: int
) -> tuple[Tensor, Parameters, Parts]:
    """Return the gradient of some rows' summed loss by ``count``, from their memory to the loss, and the loss's parts.

    The first is with respect to the memory, the second to the parameters of what lies behind it.
    """
    steps, size = batch.steps, memory.shape[1]
    weight, bias = shared["action_net.weight"], shared["action_net.bias"]
    output = torch.addmm(bias, memory, weight.t()).numpy()
    actions = steps.actions[rows].numpy()
    if policy.choices:
        log_probs, entropies, back = _choices(output, policy.choices, actions.reshape(len(rows), -1))
    else:
        log_probs, entropies, back = _gaussian(output, shared["log_std"].numpy(), policy.log_std_min, actions)
    log_ratio = log_probs - steps.log_probs[rows].numpy()
    ratio, advantages = np.exp(log_ratio), batch.advantages[rows].numpy()
    gains = ratio * advantages
    counted = gains <= np.clip(ratio, 1.0 - weights.clip, 1.0 + weights.clip) * advantages
    found, of_log_std = back(np.where(counted, gains, 0.0) * (-1.0 / count), -weights.entropy / count)
    of_output = torch.from_numpy(found).to(memory)
    gradient = {"action_net.weight": of_output.t() @ memory, "action_net.bias": of_output.sum(dim=0)}
    if of_log_std is not None:
        gradient["log_std"] = torch.from_numpy(of_log_std)

    given = torch.cat([memory, batch.tasks[batch.trial_of_row[rows]].to(memory)], dim=1)
    within = torch.addmm(shared[f"{HIDDEN}.bias"], given, shared[f"{HIDDEN}.weight"].t()).tanh_()
    last = shared[f"{LAST}.weight"][0]
    errors = torch.mv(within, last) + (shared[f"{LAST}.bias"] - batch.targets[rows])
    of_values = errors * (weights.value / count)
    gradient[f"{LAST}.weight"], gradient[f"{LAST}.bias"] = (of_values @ within)[None], of_values.sum()[None]
    slopes = within.numpy()
    np.multiply(slopes, slopes, out=slopes)
    np.subtract(1.0, slopes, out=slopes)
    slopes *= last.numpy()
    slopes *= of_values.numpy()[:, None]
    of_hidden = within  # whose numbers the slopes have replaced
    gradient[f"{HIDDEN}.weight"], gradient[f"{HIDDEN}.bias"] = of_hidden.t() @ given, of_hidden.sum(dim=0)
    parts = {
        "entropy": torch.tensor(entropies.sum()),
        "kl": torch.tensor((ratio - 1.0 - log_ratio).sum()),
        "value_error": errors.square().sum(),
    }
    return torch.mm(of_hidden, shared[f"{HIDDEN}.weight"][:, :size]).addmm_(of_output, weight), gradient, parts


def _embedded(policy: GruPolicy, shared: Parameters, inputs: Tensor) -> list[Tensor]:
    """Return the inputs of all layers of the perceptron, and its output last."""
    found = [inputs]
    for name, activation in _layers(policy):
        inner = torch.addmm(shared[f"{name}.bias"], found[-1], shared[f"{name}.weight"].t())
        found.append(inner.tanh_() if activation is nn.Tanh else inner.relu_())
    return found


def _embedding_gradient(policy: GruPolicy, shared: Parameters, levels: list[Tensor], towards: Tensor) -> Parameters:
    """Return the gradient of the perceptron, from that with respect to its output."""
    found: Parameters = {}
    for (name, activation), before, after in reversed(list(zip(_layers(policy), levels[:-1], levels[1:], strict=True))):
        inner = towards * (1.0 - after * after if activation is nn.Tanh else after > 0.0)
        found[f"{name}.weight"], found[f"{name}.bias"] = inner.t() @ before, inner.sum(dim=0)
        towards = inner @ shared[f"{name}.weight"]
    return found


def _layers(policy: GruPolicy) -> list[tuple[str, type[nn.Module]]]:
    """Return the names of the perceptron's layers, and the activation after each."""
    parts = list(policy.network.embedding)
    return [(f"embedding.{i}", type(parts[i + 1])) for i in range(0, len(parts), 2)]


def _gaussian(mean: Array, log_std: Array, least: float | None, actions: Array) -> Head:
    floored = log_std if least is None else np.maximum(log_std, least)
    inverse = np.exp(-floored)
    z = (actions - mean) * inverse
    volume = (floored + 0.5 * math.log(2 * math.pi)).sum()
    entropies = np.full(len(z), volume + 0.5 * floored.size, z.dtype)

    def back(of_log_probs: Array, of_entropy: float) -> tuple[Array, Array]:
        weighted = z * of_log_probs[:, None]
        of_log_std = np.einsum("ra,ra->a", weighted, z) - of_log_probs.sum() + of_entropy * len(z)
        weighted *= inverse
        return weighted, of_log_std if least is None else np.where(log_std < least, 0.0, of_log_std).astype(z.dtype)

    return -0.5 * np.einsum("ra,ra->r", z, z) - volume, entropies, back


def _choices(logits: Array, counts: list[int], actions: Array) -> Head:
    # Choices first, so that what is reduced over them are whole rows of steps.
    every = np.arange(len(actions))
    ends = np.cumsum(counts)
    found, log_prob, entropy = [], np.zeros(len(actions), logits.dtype), np.zeros(len(actions), logits.dtype)
    for i, part in enumerate(np.split(np.ascontiguousarray(logits.T), ends[:-1])):
        part -= part.max(axis=0)
        probs = np.exp(part)
        norm = probs.sum(axis=0)
        part -= np.log(norm)
        probs /= norm
        own = -np.einsum("cr,cr->r", probs, part)
        log_prob += part[actions[:, i], every]
        entropy += own
        found.append((part, probs, own, actions[:, i]))

    def back(of_log_probs: Array, of_entropy: float) -> tuple[Array, None]:
        gradients = []
        for part, probs, own, chosen in found:
            part += own
            part *= -of_entropy
            part -= of_log_probs
            part *= probs
            part[chosen, every] += of_log_probs
            gradients.append(part)
        return np.concatenate(gradients).T, None

    return log_prob, entropy, back
