"""What a backend must offer: the derivatives that inner updates and meta-updates need of a policy.

Vectors are flat, in the order of the policy's parameters. Vectors ``[..., parameter]``, samples and results are those
of one task, without a task axis; or, where ``groups`` has slices, those of several tasks with a leading task axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from metarl.agents import Distribution, InnerObjective, Samples

TaskGroups = list[int] | list[slice]  # which tasks are taken at once; one by its number has no task axis
Outputs = list[tuple[Distribution, Samples]]  # a policy's distributions and the samples they are of, by blocks of rows
OutputGradients = Sequence[Sequence[Tensor]]  # by block: gradient with respect to each of a distribution's parameters


class InnerLoss(Protocol):
    """The inner loss at some parameters.

    Attributes:
        gradient: with respect to the adapted parameters, zero elsewhere.
        outputs: the policy's distributions at these parameters.
    """

    gradient: Tensor
    outputs: Outputs

    def push(self, vector: Tensor) -> Tensor:
        """Return the directional derivative of ``gradient``: the adapted parameters' rows of the Hessian times it."""

    def pull(self, vector: Tensor, output_gradients: OutputGradients | None = None) -> Tensor:
        """Return the transpose of ``push``: the Hessian times the adapted part of a vector.

        Args:
            vector: ``[..., parameter]``.
            output_gradients: of another function of ``outputs``, whose gradient with respect to all parameters is
                added to the result.
        """


class AdaptedPolicy(Protocol):
    """The adapted policy on the samples collected with it.

    Attributes:
        gain: the likelihood-ratio surrogate.
        gradient: of ``gain`` with respect to all parameters.
    """

    gain: Tensor
    gradient: Tensor

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and their mean KL from these: ``[..., 2]``."""


class Backend(Protocol):
    """How derivatives are computed.

    Attributes:
        name: as metrics show it.
        objective: of the inner update.
    """

    name: str
    objective: InnerObjective

    def groups(self, samples: Samples) -> TaskGroups:
        """Return which tasks are taken at once: one each, or slices of them."""

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss, ready for products."""

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the adapted parameters, zero elsewhere; nothing is kept."""

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters; nothing is kept."""

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's distributions, in the blocks that an inner loss's ``outputs`` have."""

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy, ready for products."""


class ObjectiveTerm(Protocol):
    """A term of the meta-objective beside the gain after adaptation, for each task and inner step.

    It is a function of the policies before each inner step. The inner update evaluates these anyway, so a term's value
    costs little, and its gradient is carried back together with the meta-gradient in the same pass.

    ``group`` is the number of a group of tasks, as ``Backend.groups`` has them.
    """

    def value(self, group: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of the policies before inner step ``step``, to be maximised: ``[...]``."""

    def output_gradients(self, group: int, step: int, outputs: Outputs) -> OutputGradients:
        """Return its gradient with respect to the parameters of the policies' distributions."""
