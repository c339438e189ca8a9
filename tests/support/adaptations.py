"""Small problems in float64 for the derivatives: policies, backends, inner updates, and finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from samples import double, make_policy, make_samples
from torch import Tensor

from metarl.agents import DICE, LIKELIHOOD_RATIO, POLICY_GRADIENT, InnerObjective, Policy
from metarl.agents.frozen.lora import B
from metarl.agents.frozen.trained import Trained
from metarl.agents.policies import ContextPolicy, PerceptronPolicy
from metarl.agents.policies.build import wrap_module
from metarl.agents.policies.changed_perceptron import ChangedPerceptronPolicy
from metarl.agents.policies.context import CONTEXT
from metarl.agents.policies.selection import selected
from metarl.gradients.adaptation import Adaptation, StepSize, choose_backend
from metarl.gradients.autograd_backend import AutogradBackend
from metarl.gradients.backend import Backend
from metarl.gradients.flat import flatten
from metarl.gradients.folds import FoldedBackend, how_to_fold
from metarl.gradients.perceptron_backend import PerceptronBackend, Plan
from metarl.learners.cavia import WithoutLast
from metarl.learners.e_maml import SamplingCredit
from metarl.learners.meta_sgd import StepSizeMap

CPU = torch.device("cpu")
STEP_SIZE = 0.3
HEADS = ["gaussian", "categorical", "multi-categorical"]
OBJECTIVES = {"policy-gradient": POLICY_GRADIENT, "likelihood-ratio": LIKELIHOOD_RATIO, "dice": DICE}
AT_ONCE: dict[str, Any] = {
    "several at once": "block",
    "one by one": "one",
    "all at once": "all",
}  # the last as on a GPU
WAYS = [*AT_ONCE, "general"]


# Policies that equal a perceptron whose parameters are a function of theirs: of which a context alone adapts, with
# low-rank updates of which all or only these adapt, with a frozen layer, and with masked weights.
FOLDED = {
    "context": Trained(),
    "low-rank": Trained(lora_rank=2, seed=4),
    "updates": Trained(lora_rank=2, seed=4),
    "frozen": Trained(freeze=["action_net.weight"]),
    "masked": Trained(prune=0.4),
}


def make_policy_for(
    which: str, head: str = "gaussian", activation: str = "tanh", sizes: tuple[int, ...] = (5, 4), numbers: int = 3
) -> Policy:
    """Return a small policy of which that can adapt; all numbers that updates begin with are random."""
    plain = make_policy(head, activation, sizes, numbers)
    if which not in FOLDED:
        return plain
    if which == "context":
        return ContextPolicy(plain, 3, seed=1)
    assert isinstance(plain, PerceptronPolicy)
    policy = wrap_module(plain.initial_module, plain.log_std_min, FOLDED[which])
    assert isinstance(policy, ChangedPerceptronPolicy)
    policy.initial_module.double()
    generator = torch.Generator().manual_seed(5)
    for name, value in policy.initial_module.named_parameters():
        if name.endswith(B):
            value.data.copy_(0.5 * torch.randn(value.shape, generator=generator))
    return policy


def adapting(policy: Policy, which: str) -> frozenset[str] | None:
    """Return what adapts: all, the last layers with the noise, it alone, some of here and there, or see ``FOLDED``."""
    if which in ("all", "low-rank", "frozen", "masked"):
        return None
    if which == "context":
        return frozenset({CONTEXT})
    if which == "updates":
        return selected(policy, "lora")
    if which == "noise":
        return frozenset({"log_std"})
    names = [name for name in policy.shapes if name != "log_std"]
    if which == "some":
        return frozenset({names[0], names[-1], *names[2:4]})
    last = names[-2 * int(which) :]
    return frozenset({*last, "log_std"} & set(policy.shapes))


def make_backend(
    policy: Policy,
    way: str = "several at once",
    objective: InnerObjective = POLICY_GRADIENT,
    *,
    adapts: frozenset[str] | None = None,
    keep: bool = True,
    plan: Plan | None = None,
) -> Backend:
    """Return the general path, or the fast one with so many tasks at once."""
    if way == "general":
        return AutogradBackend(policy, objective, adapts=adapts, keep=keep)
    at_once = AT_ONCE[way]
    if (folding := how_to_fold(policy, adapts, CPU)) is not None:
        return FoldedBackend(*folding, objective, keep=keep, device=CPU, at_once=at_once, plan=plan)
    return PerceptronBackend(policy, objective, adapts=adapts, keep=keep, at_once=at_once, plan=plan)


def start(policy: Policy) -> Tensor:
    """Return a policy's initial parameters in double precision, flat."""
    return flatten(double(policy.parameters()).values())


def adapt(
    backend: Backend,
    policy: Policy,
    steps: int = 1,
    *,
    vector: Tensor | None = None,
    sizes: Sequence[StepSize] | None = None,
    rows: int = 7,
) -> Adaptation:
    """Return inner updates of three tasks on random samples."""
    adaptation = Adaptation(policy, backend, start(policy) if vector is None else vector)
    for step in range(steps):
        adaptation.adapt(make_samples(policy, rows=rows, seed=step), STEP_SIZE if sizes is None else sizes[step])
    return adaptation


def adapt_all(steps: int = 2, objective: InnerObjective = POLICY_GRADIENT, *, first_order: bool = False) -> Adaptation:
    """Return inner updates of all parameters."""
    policy = make_policy()
    backend = choose_backend(policy, CPU, objective=objective)
    adaptation = Adaptation(policy, backend, start(policy), first_order=first_order)
    for step in range(steps):
        adaptation.adapt(make_samples(policy, seed=step), STEP_SIZE)
    return adaptation


def adapt_with_learned_sizes(
    steps: int = 2, sets: int = 1, *, by_layer: bool = False, equal: bool = False
) -> Adaptation:
    """Return inner updates whose step sizes are part of the vector, different from each other unless ``equal``."""
    policy = make_policy()
    counts = torch.tensor([shape.numel() for shape in policy.shapes.values()])
    owner = torch.repeat_interleave(counts) if by_layer else torch.arange(int(counts.sum()))
    linear_map = StepSizeMap(owner, sets=sets, steps=steps, device=CPU)
    sizes = torch.full(linear_map.shape, STEP_SIZE, dtype=torch.float64)
    if not equal:
        sizes += 0.1 * torch.rand(sizes.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vector = torch.cat([start(policy), sizes.flatten()])
    adaptation = Adaptation(policy, choose_backend(policy, CPU), vector, linear_map)
    for step in range(steps):
        adaptation.adapt(make_samples(policy, seed=step), linear_map.of_step(sizes, step))
    return adaptation


def adapt_context(steps: int = 2) -> Adaptation:
    """Return inner updates of a context, which is no part of the vector."""
    policy = make_policy_for("context")
    backend = choose_backend(policy, CPU, adapts=frozenset({CONTEXT}))
    adaptation = Adaptation(policy, backend, start(policy)[:-3], WithoutLast(3))
    for step in range(steps):
        adaptation.adapt(make_samples(policy, seed=step), STEP_SIZE)
    return adaptation


def credit(adaptation: Adaptation) -> SamplingCredit:
    """Return the term of the meta-objective that E-MAML adds, with some credits."""
    credits = torch.tensor([0.7, -1.2, 0.5], dtype=torch.float64)
    return SamplingCredit([credits[group] for group in adaptation.groups])


def directions(length: int, count: int = 3, seed: int = 2) -> list[Tensor]:
    """Return random directions of length 1."""
    drawn = torch.randn(count, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return list(drawn / drawn.norm(dim=1, keepdim=True))


def derivative(value: Callable[[Tensor], Any], vector: Tensor, direction: Tensor, h: float = 1e-5) -> float:
    """Return a directional derivative by a central difference."""
    return float(value(vector + h * direction) - value(vector - h * direction)) / (2 * h)
