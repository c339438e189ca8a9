"""Meta-SGD: MAML that learns its step sizes too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.agents import Parameters, Policy, Samples
from metarl.gradients.curvature import Added, Chain, Jacobian
from metarl.gradients.inner import Path, StepSize
from metarl.learners.maml import MAML, Update
from metarl.settings import FORBID, Clipped, PlainGradient, Switch, TrustRegion
from metarl.gradients.terms import Term

_SIZES = "step_sizes"


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """Which step sizes are learned; each starts at ``inner.step_size``."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    step_sizes: Literal["parameter", "layer", "one"] = "parameter"  # one for each number, for each tensor, for all
    per_step: Switch = False  # others for each inner step


@dataclass(frozen=True, kw_only=True)
class SizedTrustRegion(StepSizes, TrustRegion):
    """Meta-SGD with TRPO."""


@dataclass(frozen=True, kw_only=True)
class SizedClipped(StepSizes, Clipped):
    """Meta-SGD with PPO."""


@dataclass(frozen=True, kw_only=True)
class SizedPlainGradient(StepSizes, PlainGradient):
    """Meta-SGD with a plain gradient step."""


class MetaSGD(MAML):
    """Meta-SGD: as MAML, with step sizes that are learned along with the shared parameters.

    The inner step is ``theta' = theta - alpha * grad L(theta)``, with one alpha for each parameter (or layer, or one in
    all; ``outer.step_sizes``), and the meta-update changes theta and alpha: ``d theta' / d alpha = -diag(grad L)`` (Li
    et al. 2017, algorithm 2). Step sizes of each inner step (``outer.per_step``) are those of MAML++ (Antoniou et al.
    2019, section 4). An alpha may become negative.
    """

    name = "meta-sgd"
    outer_settings: ClassVar[tuple[type[Any], ...]] = (SizedTrustRegion, SizedClipped, SizedPlainGradient)
    source = "Li et al. 2017"

    def _take_policy(self, policy: Policy) -> None:
        outer = self.settings.outer
        shapes = policy.shapes.values()
        owner = torch.arange(sum(shape.numel() for shape in shapes))
        if outer.step_sizes == "layer":
            owner = torch.repeat_interleave(torch.tensor([shape.numel() for shape in shapes]))
        elif outer.step_sizes == "one":
            owner = torch.zeros_like(owner)
        self._owner = owner.to(self.device)
        super()._take_policy(policy)

    def _first_extra(self) -> dict[str, Tensor]:
        shape = (self.settings.inner.steps if self.settings.outer.per_step else 1, int(self._owner.max()) + 1)
        self.extra = {_SIZES: torch.full(shape, self.settings.inner.step_size, device=self.device)}
        return {**super()._first_extra(), **self.extra}

    def _chain(self) -> Chain:
        return SizedChain(self._policy, self.path, self.parameters, self.extra[_SIZES], self._owner)

    def training_step_size(self, step: int) -> StepSize:
        """Return the learned sizes of inner step ``step``, one for each parameter, flat."""
        sizes = self.extra[_SIZES]
        return sizes[min(step, len(sizes) - 1)][self._owner]

    def step_size(self, step: int) -> StepSize:
        """Return the learned sizes of adaptation step ``step``; those of steps not trained for are scaled."""
        learned = self.training_step_size(step)
        assert isinstance(learned, Tensor)
        return learned if step < len(self.extra[_SIZES]) else learned * self.settings.inner.later_step_scale

    def _meta_update(self, chain: Chain, query: Samples, term: Term | None) -> Update:
        sizes = self.extra[_SIZES]
        update = super()._meta_update(chain, query, term)
        learned = {_SIZES: update.vector[-sizes.numel() :].reshape(sizes.shape)}
        figures = {**update.figures, "policy/step_size": sizes.mean()}
        return replace(update, extra={**update.extra, **learned}, figures=figures)


class SizedChain(Chain):
    """Inner updates with step sizes that belong to what the meta-update changes: ``vector`` is ``[theta, alpha]``.

    Args:
        policy: whose distribution is differentiated.
        path: how derivatives are computed.
        parameters: shared.
        sizes: ``[set, size]``; set k is that of inner step k, the last one that of all further steps.
        owner: ``[parameter]``, which size is a parameter's.
    """

    def __init__(self, policy: Policy, path: Path, parameters: Parameters, sizes: Tensor, owner: Tensor) -> None:
        super().__init__(policy, path, parameters)
        self._sizes = sizes.to(self.vector.dtype)
        self._owner = owner
        self.vector = torch.cat([self.vector, self._sizes.flatten()])

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector[: len(self._owner)], vector[len(self._owner) :].reshape(self._sizes.shape)

    def _of_step(self, sizes: Tensor, step: int) -> Tensor:
        return sizes[min(step, len(sizes) - 1)][self._owner]

    def _read(self, vector: Tensor) -> tuple[Tensor, list[Tensor]]:
        own, sizes = self._split(vector)
        return own, [self._of_step(sizes, step) for step in range(len(self.supports))]

    def _from(self, vector: Tensor) -> Chain:
        return SizedChain(self.policy, self.path, self.shared(vector), self._split(vector)[1], self._owner)

    def jacobians(self) -> list[Jacobian]:
        """Return each part's Jacobian by ``[theta, alpha]``."""
        return [SizedJacobian(part, self._sizes.shape, self._owner) for part in super().jacobians()]


class SizedJacobian(Jacobian):
    """The Jacobian of one task's adapted parameters by the shared ones and the step sizes."""

    def __init__(self, plain: Jacobian, shape: torch.Size, owner: Tensor) -> None:
        self._steps = plain._steps
        self._shape = shape
        self._owner = owner

    def forward(self, vector: Tensor) -> Tensor:
        """Return J v for a change of ``[theta, alpha]``."""
        sizes = vector[len(self._owner) :].reshape(self._shape)
        vector = vector[: len(self._owner)]
        for step, (loss, size) in enumerate(self._steps):
            change = sizes[min(step, len(sizes) - 1)][self._owner]
            vector = vector - size * loss.push(vector) - change * loss.gradient
        return vector

    def backward(self, vector: Tensor, added: Added | None = None) -> Tensor:
        """Return J^T w, ``[theta, alpha]``."""
        slopes = vector.new_zeros(*vector.shape[:-1], *self._shape)
        for step, (loss, size) in reversed(list(enumerate(self._steps))):
            own = slopes[..., min(step, self._shape[0] - 1), :]
            own.index_add_(-1, self._owner, -loss.gradient * vector)
            vector = vector - self._pull(step, loss, size * vector, added)
        return torch.cat([vector, slopes.flatten(-2)], dim=-1)
