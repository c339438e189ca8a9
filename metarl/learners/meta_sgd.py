"""Meta-SGD: MAML that learns its step sizes too."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from metarl.fields import FORBID, Switch, setting
from metarl.gradients.adaptation import Adaptation, LinearMap, StepSize
from metarl.gradients.meta_update import MetaStep
from metarl.learners.maml import MAML
from metarl.state import State
from metarl.training.schedules import scheduled

SIZES = "step_sizes"


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """Which step sizes are learned; each starts at ``inner.step_size``."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    step_sizes: Literal["parameter", "layer", "one"] = setting(
        "parameter", "learned step sizes: one for each number, for each tensor (layer), or for all"
    )
    per_step: Switch = setting(False, "learn separate step sizes for each inner step")


class MetaSGD(MAML):
    """Meta-SGD: as MAML, with step sizes that are learned along with the shared parameters.

    The inner step is ``theta' = theta - alpha * grad L(theta)``, with one alpha for each parameter, one for each layer
    or a single one (``outer.step_sizes``). The meta-update changes theta and alpha, with
    ``d theta' / d alpha = -diag(grad L)`` (Li et al. 2017, algorithm 2). Separate step sizes for each inner step
    (``outer.per_step``) are those of MAML++ (Antoniou et al. 2019, section 4). An alpha may become negative.
    """

    name = "meta-sgd"
    options = StepSizes
    source = "Li et al. 2017"

    def validate(self) -> None:
        """Check that the first step sizes are numbers.

        Raises:
            ValueError: ``inner.step_size`` has a schedule; or see ``MAML``.
        """
        if "inner.step_size" in scheduled(self.given_settings):
            raise ValueError(
                f"learner {self.name} learns its step sizes, which begin at inner.step_size; give a number in place "
                "of a schedule"
            )
        super().validate()

    def initial_tensors(self) -> dict[str, Tensor]:
        """Return the step sizes before training."""
        size = self.settings.inner.step_size
        return {SIZES: torch.full(self.step_size_map.shape, size, dtype=torch.float32, device=self.device)}

    def meta_vector(self, state: State) -> Tensor:
        """Return the meta-vector: shared parameters and step sizes, ``[theta, alpha]``."""
        shared = super().meta_vector(state)
        return torch.cat([shared, state.own_tensors[SIZES].to(shared.dtype).flatten()])

    @functools.cached_property
    def step_size_map(self) -> StepSizeMap:
        """The linear map, with the assignment of step sizes to parameters."""
        outer, steps = self.settings.outer, self.settings.inner.steps
        counts = torch.tensor([shape.numel() for shape in self.functional_policy.shapes.values()])
        owner = torch.arange(int(counts.sum()))
        if outer.step_sizes == "layer":
            owner = torch.repeat_interleave(counts)
        elif outer.step_sizes == "one":
            owner = torch.zeros_like(owner)
        return StepSizeMap(owner, sets=steps if outer.per_step else 1, steps=steps, device=self.device)

    def linear_map(self) -> StepSizeMap:
        """Return the linear map from ``[theta, alpha]`` to shared parameters and each inner step's sizes."""
        return self.step_size_map

    def inner_step_size(self, state: State, step: int) -> Tensor:
        """Return the learned sizes of inner step ``step``, one for each parameter, flat."""
        return self.step_size_map.of_step(state.own_tensors[SIZES], step)

    def step_size(self, state: State, step: int) -> StepSize:
        """Return the learned sizes of adaptation step ``step``; steps beyond the trained ones use scaled sizes."""
        learned = self.inner_step_size(state, step)
        trained = len(state.own_tensors[SIZES])
        return learned if step < trained else learned * self.settings.inner.later_step_scale

    def next_state(self, state: State, adaptation: Adaptation, step: MetaStep) -> State:
        """Return the next state, with the step sizes after the meta-update."""
        sizes = state.own_tensors[SIZES]
        following = super().next_state(state, adaptation, step)
        learned = step.vector[-sizes.numel() :].reshape(sizes.shape)
        return replace(following, own_tensors={**following.own_tensors, SIZES: learned})

    def metrics(self, state: State, step: MetaStep) -> dict[str, Tensor | float]:
        """Return the mean of the step sizes."""
        return {"policy/step_size": state.own_tensors[SIZES].mean()}


class StepSizeMap(LinearMap):
    """The linear map of the meta-vector ``[theta, alpha]``, shared parameters and step sizes.

    Attributes:
        shape: of the step sizes, ``[set, size]``; set k is for inner step k, the last set also for all later steps.

    Args:
        owner: ``[parameter]``, the index of each parameter's step size.
        sets: the number of sets.
        steps: the number of inner steps.
        device: of the vectors.
    """

    learns_step_sizes = True

    def __init__(self, owner: Tensor, sets: int, steps: int, device: torch.device) -> None:
        self.shape = (sets, int(owner.max()) + 1)
        self._owner = owner.to(device)
        self._steps = steps

    def of_step(self, sizes: Tensor, step: int) -> Tensor:
        """Return the sizes of an inner step, one for each parameter, from all sizes ``[set, size]``."""
        return sizes[min(step, len(sizes) - 1)][self._owner]

    def apply(self, vector: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the shared parameters and each inner step's sizes."""
        sizes = vector[len(self._owner) :].reshape(self.shape)
        return vector[: len(self._owner)], [self.of_step(sizes, step) for step in range(self._steps)]

    def transpose(self, parameters: Tensor, step_sizes: Sequence[Tensor]) -> Tensor:
        """Return the gradient with respect to ``[theta, alpha]``."""
        gradients = parameters.new_zeros(*parameters.shape[:-1], *self.shape)
        for step, gradient in reversed(list(enumerate(step_sizes))):
            gradients[..., min(step, self.shape[0] - 1), :].index_add_(-1, self._owner, gradient)
        return torch.cat([parameters, gradients.flatten(-2)], dim=-1)
