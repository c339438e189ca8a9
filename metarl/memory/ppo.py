"""Proximal policy optimisation over whole trials: the loss of some trials, and its gradient through their steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import Parameters
from metarl.agents.observations import map_observations
from metarl.agents.policies import GruPolicy
from metarl.agents.trials import Packing, TrialSteps, pack
from metarl.memory.value_head import standard_values


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What an update learns from.

    Attributes:
        steps: of all trials.
        tasks: ``[trial, number]``, what the value function is told of each trial's task; may have no numbers.
        advantages: ``[row]``, of mean 0 and deviation 1.
        targets: ``[row]``, of the value function, in its units.
    """

    steps: TrialSteps
    tasks: Tensor
    advantages: Tensor
    targets: Tensor

    @functools.cached_property
    def trial_of_row(self) -> Tensor:
        """The number of the trial that each row belongs to."""
        device = self.advantages.device
        return torch.repeat_interleave(torch.arange(len(self.steps.lengths)), self.steps.lengths).to(device)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The loss's settings: the clip of the ratio, and the weights of the entropy and of the value function's error."""

    clip: float
    entropy: float
    value: float


Parts = dict[str, Tensor]  # of the loss: sums over steps by name, outside of any graph


def memories(
    policy: GruPolicy, parameters: Parameters, steps: TrialSteps, packing: Packing, chunk: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of each chunk of some trials, and the memory after each of these steps ``[row, memory]``.

    Gradients flow through the steps of a chunk; between chunks the memory is handed on without them.

    Args:
        policy: of the memory.
        parameters: of the policy.
        steps: of the trials, on the device.
        packing: of some of them.
        chunk: the number of steps, or None for whole trials.
    """
    device, kind = steps.told.device, next(iter(parameters.values())).dtype
    hidden = torch.zeros(int(packing.sizes[0]), policy.memory_size, dtype=kind, device=device)
    for part in packing.chunks(chunk or len(packing.sizes)):
        rows = part.rows.to(device)
        found = policy.remember(
            parameters,
            map_observations(lambda given, rows=rows: given[rows], steps.observations),
            steps.told[rows],
            part.sizes,
            hidden[: int(part.sizes[0])],
        )
        yield rows, found
        hidden = found[-int(part.sizes[-1]) :].detach()


def loss_parts(
    policy: GruPolicy,
    parameters: Parameters,
    head: Parameters,
    batch: Batch,
    rows: Tensor,
    memory: Tensor,
    weights: Weights,
) -> tuple[Tensor, Parts]:
    """Return the loss, summed over steps, and its parts.

    ``-min(r A, clip(r, 1 - c, 1 + c) A) - e H + v (V - target)^2 / 2`` with the ratio r of the probabilities of the
    action after and before (Schulman et al. 2017, equation 9).

    Args:
        policy: whose distribution it is.
        parameters: of the policy.
        head: of the value function.
        batch: what is learned from.
        rows: ``[n]``, of the steps.
        memory: ``[n, memory]``, after these steps.
        weights: of the loss.
    """
    steps = batch.steps
    distribution = policy.act_on(parameters, memory)
    log_ratio = distribution.log_prob(steps.actions[rows]) - steps.log_probs[rows]
    ratio, advantages = log_ratio.exp(), batch.advantages[rows]
    clipped = ratio.clamp(1.0 - weights.clip, 1.0 + weights.clip)
    gain = torch.minimum(ratio * advantages, clipped * advantages).sum()
    entropy = distribution.entropy().sum()
    error = (standard_values(head, memory, batch.tasks[batch.trial_of_row[rows]]) - batch.targets[rows]).square().sum()
    loss = -gain - weights.entropy * entropy + 0.5 * weights.value * error
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).sum()  # Schulman's unbiased estimate without negative values
    return loss, {"entropy": entropy.detach(), "kl": kl, "value_error": error.detach()}


def loss_gradient(
    policy: GruPolicy,
    shared: Parameters,
    batch: Batch,
    trials: Tensor,
    weights: Weights,
    chunk: int | None,
) -> tuple[Parameters, Parts, int]:
    """Return the gradient of the mean loss of some trials' steps, the sums of its parts, and the number of steps.

    Args:
        policy: whose distribution it is.
        shared: the parameters of the policy and of the value function together.
        batch: what is learned from.
        trials: their numbers, ``[n]``.
        weights: of the loss.
        chunk: the number of steps through which gradients flow, or None for whole trials.
    """
    packing = pack(batch.steps, trials)
    count = len(packing.rows)
    total = {name: torch.zeros_like(value) for name, value in shared.items()}
    sums: Parts = {}
    with torch.inference_mode(False), torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in shared.items()}
        own = {name: leaves[name] for name in policy.shapes}
        head = {name: value for name, value in leaves.items() if name not in policy.shapes}
        for rows, memory in memories(policy, own, batch.steps, packing, chunk):
            loss, parts = loss_parts(policy, own, head, batch, rows, memory, weights)
            found = torch.autograd.grad(loss / count, list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, found, strict=True):
                if part is not None:
                    total[name] += part
            sums = {name: sums.get(name, torch.zeros_like(value)) + value for name, value in parts.items()}
    return total, sums, count


def gradient_bytes(policy: GruPolicy, rows: int) -> int:
    """Return about how many bytes the gradient through so many steps needs, without those of a features extractor."""
    memory = policy.memory_size
    widths = sum(shape[0] for name, shape in policy.shapes.items() if name.startswith("embedding.") and len(shape) == 2)
    # Of the GRU: three times its gates, the states before and after a step, and what the backward pass multiplies by.
    numbers = 2 * (policy.told_size + widths) + 4 * 3 * memory + 8 * memory
    return 4 * rows * numbers


@torch.no_grad()
def remembered(policy: GruPolicy, parameters: Parameters, steps: TrialSteps, at_once: int, chunk: int | None) -> Tensor:
    """Return the memory after each step of all trials, ``[row, memory]``.

    Args:
        policy: of the memory.
        parameters: of the policy.
        steps: of the trials, on the device.
        at_once: the number of trials that are computed side by side.
        chunk: as for ``memories``.
    """
    kind = next(iter(parameters.values())).dtype
    found = torch.zeros(len(steps.told), policy.memory_size, dtype=kind, device=steps.told.device)
    for trials in torch.split(torch.arange(len(steps.lengths)), at_once):
        for rows, memory in memories(policy, parameters, steps, pack(steps, trials), chunk):
            found[rows] = memory
    return found


@torch.no_grad()
def after_cut(policy: GruPolicy, parameters: Parameters, steps: TrialSteps, memory: Tensor) -> Tensor:
    """Return the memory after the last observation of each truncated episode, ``[cut, memory]``.

    Args:
        policy: of the memory.
        parameters: of the policy.
        steps: of the trials, on the device.
        memory: ``[row, memory]``, after each step.
    """
    cut = steps.cut
    if len(cut.rows) == 0:
        return memory[:0]
    return policy.remember(parameters, cut.observations, cut.told, torch.tensor([len(cut.rows)]), memory[cut.rows])
