"""The interface of a backend: the derivatives of a policy that inner updates and meta-updates need.

Tasks are computed in task groups, of a single task or several. Vectors are flat, ``[..., parameter]``, in the order of
the policy's parameters. Vectors, samples and results of a single task have no task axis; those of a task group that is
a slice have a leading one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from metarl.agents import Distribution, InnerObjective, Samples

TaskGroups = list[int] | list[slice]  # tasks that are computed at once: single ones by number, or slices
Outputs = list[tuple[Distribution, Samples]]  # by block of rows: a policy's action distributions for these samples
OutputGradients = Sequence[Sequence[Tensor]]  # by block: gradient with respect to each of a distribution's parameters


class InnerLoss(Protocol):
    """The inner loss at given parameters.

    Attributes:
        gradient: with respect to the adapted parameters, zero elsewhere.
        outputs: the policy's action distributions at these parameters.
    """

    gradient: Tensor
    outputs: Outputs

    def push(self, vector: Tensor) -> Tensor:
        """Return the derivative of ``gradient`` along a vector: the adapted rows of the Hessian times it, else zero."""

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
        gain: the likelihood-ratio surrogate, the objective of a trust-region step.
        gradient: of ``gain`` with respect to all parameters.
    """

    gain: Tensor
    gradient: Tensor

    def fisher(self, vector: Tensor) -> Tensor:
        """Return the Fisher matrix, averaged over the samples, times a vector."""

    def compare(self, vector: Tensor) -> Tensor:
        """Return the gain of other parameters on the same samples, and the mean KL from these to them: ``[..., 2]``."""


class Backend(Protocol):
    """Computes derivatives of a policy.

    Attributes:
        name: as logged.
        objective: of the inner update.
    """

    name: str
    objective: InnerObjective

    def groups(self, samples: Samples) -> TaskGroups:
        """Return the task groups: single tasks, or slices of several."""

    def inner_loss(self, vector: Tensor, samples: Samples) -> InnerLoss:
        """Return the inner loss, ready for Hessian-vector products."""

    def inner_gradient(self, vector: Tensor, samples: Samples) -> Tensor:
        """Return the inner loss's gradient with respect to the adapted parameters, zero elsewhere."""

    def gradient(self, vector: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
        """Return the gradient of another objective's loss with respect to all parameters."""

    def outputs(self, vector: Tensor, samples: Samples) -> Outputs:
        """Return the policy's action distributions, in the same blocks as an inner loss's ``outputs``."""

    def adapted(self, vector: Tensor, query: Samples) -> AdaptedPolicy:
        """Return the adapted policy, ready for Fisher-vector products."""


class ObjectiveTerm(Protocol):
    """A term of the meta-objective beside the gain after adaptation, for each task and inner step.

    It is a function of the policies before each inner step. The inner update evaluates these anyway, so the term costs
    little, and its gradient is propagated back together with the meta-gradient in the same pass.

    ``group`` is the index of a task group in ``Backend.groups``.
    """

    def value(self, group: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term for the policies before inner step ``step``, to be maximised: ``[...]``."""

    def output_gradients(self, group: int, step: int, outputs: Outputs) -> OutputGradients:
        """Return the term's gradient with respect to the parameters of the policies' action distributions."""
