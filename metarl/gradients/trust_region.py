"""The trust-region step: conjugate gradient, step length and backtracking line search.

Source: Schulman et al. 2015 (TRPO), appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Step:
    """The result of a line search.

    Attributes:
        parameters: flat; the old ones if no candidate was accepted.
        accepted: the index of the accepted candidate, from 0 (the full step), or None.
        improvement: of the gain, by the accepted candidate; None without one.
        kls: the mean KLs, old to new, of the accepted candidate; empty without one.
    """

    parameters: Tensor
    accepted: int | None
    improvement: float | None
    kls: tuple[float, ...]


def conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Solve ``A x = target`` approximately; return x and the residual ``target - A x``.

    Nothing is read back from a GPU, so there is no early stop: once the residual is zero, iterations change nothing.

    Args:
        product: v -> A v, with A symmetric and positive definite.
        target: ``[parameter]``.
        iterations: the number of products.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction = target.clone()
    norm = residual.dot(residual)
    for _ in range(iterations):
        image = product(direction)
        bend = direction.dot(image)
        length = torch.where(bend > 0, norm / bend, 0.0)
        solution = solution + length * direction
        residual = residual - length * image
        following = residual.dot(residual)
        direction = residual + torch.where(norm > 0, following / norm, 0.0) * direction
        norm = following
    return solution, residual


def full_step(solution: Tensor, residual: Tensor, gradient: Tensor, max_kl: float) -> Tensor:
    """Return the step along a conjugate-gradient solution whose quadratic KL is ``max_kl``.

    ``x^T A x`` is computed from the residual, ``x . (gradient - residual)``, which saves a product.
    """
    bend = solution.dot(gradient - residual)
    return torch.where(bend > 0, (2.0 * max_kl / bend).sqrt(), 0.0) * solution


def line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, ...]],
    parameters: Tensor,
    step: Tensor,
    *,
    gain: Tensor,
    max_kls: Sequence[float],
    steps: int,
    ratio: float,
) -> Step:
    """Return the first of ``parameters + ratio^k * step`` with a larger gain and KLs within their bounds.

    Args:
        evaluate: parameters -> gain and mean KLs.
        parameters: flat, where the search starts.
        step: the full step.
        gain: at the old parameters.
        max_kls: the bounds of the KLs.
        steps: the number of candidates.
        ratio: of each candidate's length to the one before.
    """
    for attempt in range(steps):
        candidate = parameters + ratio**attempt * step
        new_gain, *new_kls = evaluate(candidate)
        improvement, *kls = torch.stack([new_gain - gain, *new_kls]).tolist()
        if improvement > 0.0 and all(kl <= bound for kl, bound in zip(kls, max_kls, strict=True)):
            return Step(parameters=candidate, accepted=attempt, improvement=improvement, kls=tuple(kls))
    return Step(parameters=parameters, accepted=None, improvement=None, kls=())
