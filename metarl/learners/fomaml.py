"""First-order MAML: the derivative of the inner update is left out."""

from __future__ import annotations

import copy

from torch import Tensor

from metarl.agents import Samples
from metarl.gradients.curvature import Added, Chain, Jacobian
from metarl.gradients.inner import StepSize, for_parts, join, scale, task_vectors
from metarl.learners.maml import MAML
from metarl.gradients.terms import Outputs

NOTHING_KEPT = (
    "first-order inner updates keep nothing that a term of the meta-objective could be differentiated through; use "
    "metarl.gradients.curvature.Chain with it"
)


class FOMAML(MAML):
    """First-order MAML: as MAML, with the Jacobian of the inner update replaced by the identity.

    It increases ``mean_i J_i(theta_i')`` along ``mean_i grad J_i(theta_i')`` (Finn et al. 2017, section 5.2; Nichol et
    al. 2018, section 3): no second derivatives, at the price of a gradient that is not that of the objective.
    """

    name = "fomaml"
    source = "Finn et al. 2017"

    def _chain(self) -> Chain:
        return FirstOrderChain(self._policy, self.path, self.parameters)


class FirstOrderChain(Chain):
    """Inner updates whose Jacobian is the identity."""

    def adapt(self, samples: Samples, step_size: StepSize) -> None:
        """Take an inner step of every task, on samples collected with the latest parameters; nothing is kept."""
        size = scale(step_size)
        n_tasks = samples.weights.shape[0]
        vectors = task_vectors(self.policy, self.parameters[-1], n_tasks)
        self.parts = self.path.parts(samples)
        slopes = for_parts(self.parts, vectors, samples, self.path.inner_gradient)
        self._append(samples, size, vectors, join(self.parts, slopes))

    def thin(self, fraction: float) -> Chain:
        """Return the same inner updates; there are no second derivatives."""
        other = copy.copy(self)
        other.parts = self.path.parts(self.supports[0].thin(fraction))
        return other

    def outputs(self, step: int, number: int) -> Outputs:
        """Raise an error: nothing was kept.

        Raises:
            ValueError: always.
        """
        raise ValueError(NOTHING_KEPT)

    def jacobians(self) -> list[Jacobian]:
        """Return the identity for each part of the tasks."""
        return [FirstOrderJacobian() for _ in self.parts]


class FirstOrderJacobian(Jacobian):
    """The identity, where the Jacobian of the inner updates would stand."""

    def __init__(self) -> None:
        super().__init__((), ())

    def backward(self, vector: Tensor, added: Added | None = None) -> Tensor:
        """Return the gradient after adaptation as it is.

        Raises:
            ValueError: there is something to be added, for which nothing was kept.
        """
        if added is not None:
            raise ValueError(NOTHING_KEPT)
        return vector
