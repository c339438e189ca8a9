"""A perceptron of which parts are frozen, masked or have low-rank updates, as a plain one.

The weights of a layer are ``f_W = M W``, with a mask M of zeros and ones, entry by entry, or ``f_W = W + B A``, with W
frozen. Let G be the gradient of a function with respect to f_W, and R x the derivative of x along a direction::

    grad_W = M G        grad_A = B^T G        grad_B = G A^T        R f_W = M (R W) + (R B) A + B (R A)

For a fixed G, those of A and B change along a direction by ``(R B)^T G`` and ``G (R A)^T``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from metarl.agents import Parameters
from metarl.agents.frozen.lora import A, B
from metarl.agents.frozen.masked import MASK
from metarl.agents.policies.changed_perceptron import ChangedPerceptronPolicy, low_rank
from metarl.gradients.alignment import product
from metarl.gradients.flat import named


class ChangedParts:
    """What the folds of a policy have in common.

    Attributes:
        plain_adapts: names of the perceptron's parameters that change when the policy adapts; None for all.

    Args:
        policy: the policy.
        adapts: names of its parameters that adapt; None for all.
        device: where the vectors are.
    """

    def __init__(self, policy: ChangedPerceptronPolicy, adapts: frozenset[str] | None, device: torch.device) -> None:
        self.policy = policy
        self.constants = policy.constants(device)
        moving = frozenset(policy.shapes) if adapts is None else adapts
        updated = {f"{layer}.weight" for layer, _, kind in map(_split, moving) if kind in (A, B)}
        in_plain = updated | (moving & policy.plain.shapes.keys())
        self.plain_adapts = None if in_plain == policy.plain.shapes.keys() else frozenset(in_plain)
        self.adapting: Tensor | None = None
        if adapts is not None:
            counts = torch.tensor([shape.numel() for shape in policy.shapes.values()])
            marks = torch.tensor([float(name in adapts) for name in policy.shapes])
            self.adapting = marks.repeat_interleave(counts).to(device)

    def adapted(self, vector: Tensor) -> Tensor:
        """Return a vector ``[..., parameter]`` with zero where nothing adapts."""
        return vector if self.adapting is None else vector * self.adapting


class ChangedFold:
    """The map from the trained parameters to those of the equivalent perceptron; see ``Fold``.

    Attributes:
        vector: the perceptron's parameters.

    Args:
        parts: of all folds of the policy.
        vector: the policy's parameters, ``[..., parameter]``.
    """

    def __init__(self, parts: ChangedParts, vector: Tensor) -> None:
        self._parts = parts
        self._shapes, self._plain_shapes = parts.policy.shapes, parts.policy.plain.shapes
        own = named(self._shapes, vector)
        self._named = {**parts.constants, **own}
        folded = parts.policy.folded(own, parts.constants)
        self.vector = torch.cat([folded[name].flatten(-len(shape)) for name, shape in self._plain_shapes.items()], -1)

    def push(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along a direction of all parameters."""
        moving = named(self._shapes, vector)
        leading = vector.shape[:-1]
        found = []
        for name, shape in self._plain_shapes.items():
            layer, _, kind = _split(name)
            a, b = f"{layer}.{A}", f"{layer}.{B}"
            moved = self._masked(name, moving[name]) if name in moving else vector.new_zeros(*leading, *shape)
            if kind == "weight" and b in moving:
                moved = moved + low_rank(moving[b], self._named[a])
            if kind == "weight" and a in moving:
                moved = moved + low_rank(self._named[b], moving[a])
            found.append(moved.flatten(-len(shape)))
        return torch.cat(found, dim=-1)

    def pull(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push``: turn a gradient for the perceptron's parameters into one for all."""
        plain = named(self._plain_shapes, vector)
        own = {name: self._masked(name, plain[name]) for name in self._shapes if name in plain}
        return self._flat({**own, **self._of_factors(self._named, plain)}, vector)

    def push_adapting(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of the perceptron's parameters along the adapted part of a direction."""
        return self.push(self._parts.adapted(vector))

    def pull_adapting(self, vector: Tensor) -> Tensor:
        """Return the transpose of ``push_adapting``: the adapted part of the gradient, zero elsewhere."""
        return self._parts.adapted(self.pull(vector))

    def bend_push(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the derivative of ``pull_adapting`` of a fixed gradient along a direction of all parameters."""
        return self._parts.adapted(self._bent(vector, gradient))

    def bend_pull(self, vector: Tensor, gradient: Tensor) -> Tensor:
        """Return the transpose of ``bend_push``, for the same fixed gradient."""
        return self._bent(self._parts.adapted(vector), gradient)

    def _bent(self, vector: Tensor, gradient: Tensor) -> Tensor:
        moving = named(self._shapes, vector)
        return self._flat(self._of_factors(moving, named(self._plain_shapes, gradient)), vector)

    def _of_factors(self, factors: Mapping[str, Tensor], plain: Parameters) -> Parameters:
        """Return ``B^T G`` for each A that is trained and ``G A^T`` for each B, of those factors that are given."""
        found = {}
        for name in self._shapes:
            layer, _, kind = _split(name)
            if kind == A and f"{layer}.{B}" in factors:
                found[name] = product(factors[f"{layer}.{B}"].mT, plain[f"{layer}.weight"])
            elif kind == B and f"{layer}.{A}" in factors:
                found[name] = product(plain[f"{layer}.weight"], factors[f"{layer}.{A}"].mT)
        return found

    def _masked(self, name: str, value: Tensor) -> Tensor:
        layer, _, kind = _split(name)
        mask = self._parts.constants.get(f"{layer}.{MASK}") if kind == "weight" else None
        return value if mask is None else value * mask

    def _flat(self, found: Parameters, like: Tensor) -> Tensor:
        """Return parameters as a vector with the leading axes of another, zero where there are none."""
        leading = like.shape[:-1]
        parts = []
        for name, shape in self._shapes.items():
            value = found[name] if name in found else like.new_zeros(*leading, *shape)
            parts.append(value.expand(*leading, *shape).flatten(-len(shape)))
        return torch.cat(parts, dim=-1)


def _split(name: str) -> tuple[str, str, str]:
    return name.rpartition(".")
