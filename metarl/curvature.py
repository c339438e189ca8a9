"""Second-order quantities of the meta-objective: its gradient, and Fisher-vector products.

For one task, ``theta_K`` are the parameters after K inner steps ``theta_{k+1} = theta_k - alpha_k grad L_k(theta_k)``.
Their Jacobian with respect to the shared parameters is ``J = J_K ... J_1`` with ``J_k = I - diag(alpha_k) H_k`` and H_k
the Hessian of the inner loss L_k; it is not symmetric where several steps are chained or step sizes differ between
parameters. The gradient of the meta-objective is ``mean_i J_i^T grad S_i(theta_K,i)``. The Hessian of the mean KL of
the adapted policies is, at the current parameters, exactly ``mean_i J_i^T F_i J_i`` with F_i the Fisher matrix of the
adapted policy, since the KL's gradient is zero there. So a product needs two Hessian-vector products for each inner
step and one Gauss-Newton product, and no derivative of a derivative of the KL.

Source: Finn et al. 2017, equation 4 (the meta-gradient of one step); Schulman et al. 2015, appendix C (the Fisher
matrix as a Gauss-Newton product).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from metarl.agents import Parameters, Policy, Samples
from metarl.inner import AdaptedPolicy, InnerLoss, Path, StepSize, for_tasks, join, scale, task_vectors
from metarl.parallel import map_tasks
from metarl.vectors import flatten, named


class Chain:
    """The inner updates of an iteration, and what the meta-update needs of them.

    Attributes:
        path: how derivatives are computed.
        parameters: K + 1 sets; the first shared, the others stacked, after each inner step.
        supports: K batches of samples; entry k was collected with ``parameters[k]`` and made ``parameters[k + 1]``.
    """

    def __init__(self, policy: Policy, path: Path, parameters: Parameters) -> None:
        self.path = path
        self.parameters = [parameters]
        self.supports: list[Samples] = []
        self.vector = flatten(parameters.values()).detach()
        self._policy = policy
        self._scales: list[float | Tensor] = []
        self._losses: list[list[InnerLoss]] = []

    def adapt(self, samples: Samples, step_size: StepSize) -> None:
        """Take an inner step of every task, on samples collected with the latest parameters.

        Args:
            samples: ``[task, sample, ...]``.
            step_size: the step size alpha, or one for each parameter.
        """
        size = scale(step_size)
        vectors = task_vectors(self._policy, self.parameters[-1], samples.weights.shape[0])
        self._losses.append(self._open(vectors, samples))
        slopes = join(self.path, [loss.gradient for loss in self._losses[-1]])
        self._scales.append(size)
        self.supports.append(samples)
        self.parameters.append(self.named(vectors - size * slopes))

    def _open(self, vectors: Tensor, samples: Samples) -> list[InnerLoss]:
        return for_tasks(self.path, vectors, samples, self.path.inner_loss)

    def adapted(self, query: Samples) -> list[AdaptedPolicy]:
        """Return the adapted policies, on samples collected with them; one in all where the tasks go together."""
        vectors = task_vectors(self._policy, self.parameters[-1], query.weights.shape[0])
        return for_tasks(self.path, vectors, query, self.path.adapted)

    def jacobians(self, fraction: float = 1.0) -> list[Jacobian]:
        """Return each task's Jacobian, with Hessians from a share of its samples; one where the tasks go together."""
        losses = self._losses
        if fraction < 1.0:
            pairs = zip(self.parameters, self.supports, strict=False)
            losses = [
                self._open(task_vectors(self._policy, parameters, samples.weights.shape[0]), samples.thin(fraction))
                for parameters, samples in pairs
            ]
        return [Jacobian(steps, self._scales) for steps in zip(*losses, strict=True)]

    def retrace(self, vector: Tensor, task: int) -> Tensor:
        """Return one task's (or all tasks') adapted parameters from other shared ones, on the same samples."""
        for samples, size in zip(self.supports, self._scales, strict=True):
            own = samples if self.path.together else samples.task(task)
            vector = vector.expand(*own.weights.shape[:-1], -1)
            vector = vector - size * self.path.inner_gradient(vector, own)
        return vector

    def named(self, vector: Tensor) -> Parameters:
        """Return flat vectors as parameters by name."""
        return named(self._policy.shapes, vector)


class Jacobian:
    """The Jacobian J of one task's adapted parameters with respect to the shared ones."""

    def __init__(self, losses: Sequence[InnerLoss], scales: Sequence[float | Tensor]) -> None:
        self._steps = list(zip(losses, scales, strict=True))

    def forward(self, vector: Tensor) -> Tensor:
        """Return J v: what a change of the shared parameters does to the adapted ones."""
        for loss, size in self._steps:
            vector = vector - size * loss.hessian(vector)
        return vector

    def backward(self, vector: Tensor) -> Tensor:
        """Return J^T w: what a gradient at the adapted parameters is at the shared ones."""
        for loss, size in reversed(self._steps):
            vector = vector - loss.hessian(size * vector)
        return vector


class Curvature:
    """The meta-objective around the current shared parameters, for one iteration's rollouts.

    Vectors are flat: the shared parameters one after another, in the order of the dict.

    ``gain`` is the surrogate at these parameters, ``gradients`` its gradient by task, ``gradient`` their mean.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        fisher_fraction: the share of all samples that the Fisher-vector products use.
    """

    def __init__(self, chain: Chain, query: Samples, fisher_fraction: float = 1.0) -> None:
        self._chain = chain
        self._device = query.weights.device
        self.parameters = chain.vector
        self._adapted = self._fisher = chain.adapted(query)
        self._jacobians = chain.jacobians()
        self.gain = join(chain.path, [part.gain for part in self._adapted]).mean()
        self.gradients = self._map(lambda part: self._jacobians[part].backward(self._adapted[part].gradient))
        self.gradient = _mean(self.gradients)
        if fisher_fraction < 1.0:
            self._fisher = chain.adapted(query.thin(fisher_fraction))
            self._jacobians = chain.jacobians(fisher_fraction)

    def product(self, vector: Tensor) -> Tensor:
        """Return the Fisher-vector product ``mean_i J_i^T F_i J_i v``."""

        def work(part: int) -> Tensor:
            jacobian = self._jacobians[part]
            return jacobian.backward(self._fisher[part].fisher(jacobian.forward(vector)))

        return _mean(self._map(work))

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gain and the mean KL (old to new) of other shared parameters, adapted on the same rollouts."""
        gain, kl = _mean(
            self._map(lambda part: self._adapted[part].compare(self._chain.retrace(parameters, part)))
        ).unbind()
        return gain, kl

    def named(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters by name."""
        return self._chain.named(vector)

    def _map(self, work: Callable[[int], Tensor]) -> Tensor:
        """Return the results of work on each task's parts (or on the one of all tasks) with a leading task axis."""
        return join(self._chain.path, map_tasks(work, len(self._jacobians), self._device))


def _mean(parts: Tensor) -> Tensor:
    """Return the mean over the first axis; on the CPU added up in order, whatever torch's threads."""
    if parts.device.type != "cpu":
        return parts.mean(dim=0)
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total / len(parts)
