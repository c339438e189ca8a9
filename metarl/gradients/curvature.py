"""Second-order quantities of the meta-objective: its gradient, and Fisher-vector products.

For one task, ``theta_K`` are the parameters after K inner steps ``theta_{k+1} = theta_k - alpha_k grad L_k(theta_k)``.
Their Jacobian with respect to the shared parameters is ``J = J_K ... J_1`` with ``J_k = I - diag(alpha_k) H_k`` and H_k
the Hessian of the inner loss L_k, or its rows of what adapts with 0 for the rest. J is not symmetric where several
steps are chained, step sizes differ between parameters, or only some adapt. The gradient of the meta-objective is
``mean_i J_i^T grad S_i(theta_K,i)``. The Hessian of the mean KL of the adapted policies is, at the current parameters,
exactly ``mean_i J_i^T F_i J_i`` with F_i the Fisher matrix of the adapted policy, since the KL's gradient is zero
there. So a product needs two Hessian-vector products for each inner step and one Gauss-Newton product, and no
derivative of a derivative of the KL.

Source: Finn et al. 2017, equation 4 (the meta-gradient of one step); Schulman et al. 2015, appendix C (the Fisher
matrix as a Gauss-Newton product).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metarl.agents import Parameters, Policy, Samples, mean_kl
from metarl.gradients.inner import AdaptedPolicy, InnerLoss, Parts, Path, StepSize, for_parts, join, scale, task_vectors
from metarl.gradients.parallel import map_tasks
from metarl.gradients.terms import Outputs, Slopes, Term
from metarl.gradients.flat import flatten, named

Added = Callable[[int, Outputs], Slopes]


class Chain:
    """The inner updates of an iteration, and what the meta-update needs of them.

    Attributes:
        policy: whose distribution is differentiated.
        path: how derivatives are computed.
        parameters: K + 1 sets; the first shared, the others stacked, after each inner step.
        supports: K batches of samples; entry k was collected with ``parameters[k]`` and made ``parameters[k + 1]``.
        vector: what the meta-update changes, flat: the shared parameters (a learner may have more, or fewer).
        parts: which tasks are taken at once.
    """

    def __init__(self, policy: Policy, path: Path, parameters: Parameters) -> None:
        self.path = path
        self.parameters = [parameters]
        self.supports: list[Samples] = []
        self.vector = flatten(parameters.values()).detach()
        self.policy = policy
        self.parts: Parts = []
        self._scales: list[float | Tensor] = []
        self._losses: list[list[InnerLoss]] = []

    def adapt(self, samples: Samples, step_size: StepSize) -> None:
        """Take an inner step of every task, on samples collected with the latest parameters.

        Args:
            samples: ``[task, sample, ...]``.
            step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
        """
        size = scale(step_size)
        vectors = task_vectors(self.policy, self.parameters[-1], samples.weights.shape[0])
        if not self.supports:
            self.parts = self.path.parts(samples)
        self._losses.append(for_parts(self.parts, vectors, samples, self.path.inner_loss))
        self._append(samples, size, vectors, join(self.parts, [loss.gradient for loss in self._losses[-1]]))

    def _append(self, samples: Samples, size: float | Tensor, vectors: Tensor, slopes: Tensor) -> None:
        self._scales.append(size)
        self.supports.append(samples)
        self.parameters.append(self.named(vectors - size * slopes))

    def adapted(self, parts: Parts, query: Samples) -> list[AdaptedPolicy]:
        """Return the adapted policies of each part of the tasks, on samples collected with them."""
        vectors = task_vectors(self.policy, self.parameters[-1], query.weights.shape[0])
        return for_parts(parts, vectors, query, self.path.adapted)

    def jacobians(self) -> list[Jacobian]:
        """Return the Jacobian of each part of the tasks."""
        return [Jacobian(steps, self._scales) for steps in zip(*self._losses, strict=True)]

    def thin(self, fraction: float) -> Chain:
        """Return the same inner updates, with second derivatives from a share of the samples.

        Those of an inner objective that couples the steps of an episode stay as they are: it has no terms for single
        steps, and from a few whole episodes its Hessian is so noisy that learning suffers.
        """
        if self.path.objective.coupled:
            return self
        other = copy.copy(self)
        other.supports = [samples.thin(fraction) for samples in self.supports]
        other.parts = self.path.parts(other.supports[0])
        other._losses = [
            for_parts(
                other.parts, task_vectors(self.policy, before, len(samples.weights)), samples, self.path.inner_loss
            )
            for before, samples in zip(self.parameters, other.supports, strict=False)
        ]
        return other

    def retrace(self, vector: Tensor, part: int | slice) -> list[Tensor]:
        """Return the parameters of a part of the tasks after 0, 1, ... inner steps from other shared ones.

        The samples are the same, where in earnest the changed parameters would have collected others.
        """
        shared, scales = self._read(vector)
        vectors = [shared]
        for samples, size in zip(self.supports, scales, strict=True):
            own = samples.task(part)
            before = vectors[-1].expand(*own.weights.shape[:-1], -1)
            vectors.append(before - size * self.path.inner_gradient(before, own))
        return vectors

    def at(self, vector: Tensor) -> Chain:
        """Return the same inner updates from other shared parameters, on the same samples."""
        other = self._from(vector)
        for samples, size in zip(self.supports, self._read(vector)[1], strict=True):
            other.adapt(samples, size)
        return other

    def shared(self, vector: Tensor) -> Parameters:
        """Return the shared parameters that ``vector`` stands for."""
        return self.named(self._read(vector)[0])

    def outputs(self, step: int, number: int) -> Outputs:
        """Return what the policies before inner step ``step`` say of the samples, of a part of the tasks."""
        return self._losses[step][number].outputs

    def _read(self, vector: Tensor) -> tuple[Tensor, Sequence[float | Tensor]]:
        """Return the shared parameters, flat, and each inner step's size that ``vector`` stands for."""
        return vector, self._scales

    def _from(self, vector: Tensor) -> Chain:
        """Return a chain of this kind before its first inner update."""
        return type(self)(self.policy, self.path, self.shared(vector))

    def named(self, vector: Tensor) -> Parameters:
        """Return flat vectors as parameters by name."""
        return named(self.policy.shapes, vector)


class Jacobian:
    """The Jacobian J of one task's adapted parameters with respect to the shared ones."""

    def __init__(self, losses: Sequence[InnerLoss], scales: Sequence[float | Tensor]) -> None:
        self._steps = list(zip(losses, scales, strict=True))

    def forward(self, vector: Tensor) -> Tensor:
        """Return J v: what a change of the shared parameters does to the adapted ones."""
        for loss, size in self._steps:
            vector = vector - size * loss.push(vector)
        return vector

    def backward(self, vector: Tensor, added: Added | None = None) -> Tensor:
        """Return J^T w: what a gradient at the adapted parameters is at the shared ones.

        Args:
            vector: ``[..., parameter]``.
            added: inner step, what the policy before it says -> slopes of a function of that, whose gradient is carried
                back with the other.
        """
        for step, (loss, size) in reversed(list(enumerate(self._steps))):
            vector = vector - self._pull(step, loss, size * vector, added)
        return vector

    def _pull(self, step: int, loss: InnerLoss, vector: Tensor, added: Added | None) -> Tensor:
        if added is None:
            return loss.pull(vector)
        return loss.pull(vector, [[-part for part in parts] for parts in added(step, loss.outputs)])


def objective_gradients(chain: Chain, gradients: Sequence[Tensor], term: Term | None = None) -> Tensor:
    """Return the gradient of the meta-objective by ``chain.vector``, for each task, ``[task, parameter]``.

    Args:
        chain: the inner updates.
        gradients: for each part of the tasks, the gradient of the objective after adaptation at its adapted parameters.
        term: what is added to it.
    """
    jacobians = chain.jacobians()

    def work(number: int) -> Tensor:
        added = None if term is None else functools.partial(term.slopes, number)
        return jacobians[number].backward(gradients[number], added)

    return over_parts(chain, work)


def over_parts(chain: Chain, work: Callable[[int], Tensor]) -> Tensor:
    """Return the results of work on each part of the tasks, by its number, with a leading task axis."""
    return join(chain.parts, map_tasks(work, len(chain.parts), chain.supports[0].weights.device))


def adapted_kl(chain: Chain, vector: Tensor, query: Samples) -> Tensor:
    """Return the mean KL, old to new, of the adapted policies on what they met, adapted from other shared parameters.

    Args:
        chain: the inner updates.
        vector: ``chain.vector`` changed.
        query: the samples collected with the adapted parameters.
    """
    vectors = task_vectors(chain.policy, chain.parameters[-1], query.weights.shape[0])

    def work(number: int) -> Tensor:
        part = chain.parts[number]
        own = query.task(part)
        old = chain.path.outputs(vectors[part].clone(), own)
        new = chain.path.outputs(chain.retrace(vector, part)[-1], own)
        pairs = zip(old, new, strict=True)
        return torch.stack([mean_kl(before, after, rows) for (before, rows), (after, _) in pairs]).sum(dim=0)

    return over_parts(chain, work).mean()


class Curvature:
    """The meta-objective around the current shared parameters, for one iteration's rollouts.

    Vectors are flat: the shared parameters one after another, in the order of the dict.

    ``gain`` is the surrogate at these parameters, ``gradients`` its gradient by task, ``gradient`` their mean.

    Args:
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        fisher_fraction: the share of all samples that the Fisher-vector products use.
        term: what is added to the surrogate.
    """

    def __init__(self, chain: Chain, query: Samples, fisher_fraction: float = 1.0, term: Term | None = None) -> None:
        self._chain = chain
        self._term = term
        self.parameters = chain.vector
        self._thin = chain
        self._adapted = self._fisher = chain.adapted(chain.parts, query)
        self._jacobians = chain.jacobians()
        self.gain = join(chain.parts, [part.gain for part in self._adapted]).mean()
        if term is not None:
            self.gain = self.gain + mean_over_tasks(over_parts(chain, lambda part: self._added(part, chain.outputs)))
        self.gradients = objective_gradients(chain, [part.gradient for part in self._adapted], term)
        self.gradient = mean_over_tasks(self.gradients)
        if fisher_fraction < 1.0:
            self._thin = chain.thin(fisher_fraction)
            self._fisher = chain.adapted(self._thin.parts, query.thin(fisher_fraction))
            self._jacobians = self._thin.jacobians()

    def product(self, vector: Tensor) -> Tensor:
        """Return the Fisher-vector product ``mean_i J_i^T F_i J_i v``."""

        def work(part: int) -> Tensor:
            jacobian = self._jacobians[part]
            return jacobian.backward(self._fisher[part].fisher(jacobian.forward(vector)))

        return mean_over_tasks(over_parts(self._thin, work))

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gain and the mean KL (old to new) of other shared parameters, adapted on the same rollouts."""
        chain = self._chain

        def work(number: int) -> Tensor:
            part = chain.parts[number]
            vectors = chain.retrace(parameters, part)

            def outputs(step: int, number: int) -> Outputs:
                own = chain.supports[step].task(part)
                return chain.path.outputs(vectors[step].expand(*own.weights.shape[:-1], -1), own)

            gain, kl = self._adapted[number].compare(vectors[-1]).unbind(dim=-1)
            if self._term is not None:
                gain = gain + self._added(number, outputs)
            return torch.stack([gain, kl], dim=-1)

        gain, kl = mean_over_tasks(over_parts(chain, work)).unbind()
        return gain, kl

    def _added(self, number: int, outputs: Callable[[int, int], Outputs]) -> Tensor:
        assert self._term is not None
        steps = range(len(self._chain.supports))
        return torch.stack([self._term.value(number, step, outputs(step, number)) for step in steps]).sum(dim=0)

    def named(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters by name."""
        return self._chain.named(vector)


def mean_over_tasks(parts: Tensor) -> Tensor:
    """Return the mean over the first axis; on the CPU added up in order, whatever torch's threads."""
    if parts.device.type != "cpu":
        return parts.mean(dim=0)
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total / len(parts)
