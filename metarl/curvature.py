"""Second-order quantities of the meta-objective: its gradient, and Fisher-vector products.

For one task, ``theta_K`` are the parameters after K inner steps ``theta_{k+1} = theta_k - alpha * grad L_k(theta_k)``.
Their Jacobian with respect to the shared parameters is ``J = J_K ... J_1`` with ``J_k = I - alpha * H_k`` and H_k the
Hessian of the inner loss L_k. The gradient of the meta-objective is ``mean_i J_i^T grad S_i(theta_K,i)``. The Hessian
of the mean KL of the adapted policies is, at the current parameters, exactly ``mean_i J_i^T F_i J_i`` with F_i the
Fisher matrix of the adapted policy, since the KL's gradient is zero there. So a product needs two Hessian-vector
products for each inner step and one Gauss-Newton product, and no derivative of a derivative of the KL.

Source: Finn et al. 2017, equation 4 (the meta-gradient of one step); Schulman et al. 2015, appendix C (the Fisher
matrix as a Gauss-Newton product).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import Parameters, Policy, Samples, likelihood_ratio_gain, mean_kl
from metarl.agents.distributions import Distribution
from metarl.inner import inner_gradient, inner_step, leaves, task_parameters
from metarl.parallel import map_tasks

Vector = tuple[Tensor, ...]


@dataclass(frozen=True)
class Chain:
    """The inner updates of an iteration: what the meta-update differentiates through.

    Attributes:
        parameters: K + 1 sets; the first shared, the others stacked, after each inner step.
        supports: K batches of samples; entry k was collected with ``parameters[k]`` and made ``parameters[k + 1]``.
        step_size: of every inner step.
    """

    parameters: list[Parameters]
    supports: list[Samples]
    step_size: float

    def at(self, step: int, task: int) -> Parameters:
        """Return one task's parameters after ``step`` inner steps."""
        return self.parameters[0] if step == 0 else task_parameters(self.parameters[step], task)


class InnerJacobian:
    """The Jacobian J of one task's adapted parameters; its Hessians are kept as graphs."""

    def __init__(self, policy: Policy, chain: Chain, supports: Sequence[Samples], task: int) -> None:
        self._step_size = chain.step_size
        self._steps: list[tuple[list[Tensor], Vector]] = []
        for step, support in enumerate(supports):
            own = leaves(chain.at(step, task))
            gradient = inner_gradient(policy, own, support.task(task), create_graph=True)
            self._steps.append((list(own.values()), gradient))

    def _hessian(self, step: int, vector: Vector) -> Vector:
        own, gradient = self._steps[step]
        return torch.autograd.grad(gradient, own, vector, retain_graph=True, allow_unused=True, materialize_grads=True)

    def forward(self, vector: Vector) -> Vector:
        """Return J v: what a change of the shared parameters does to the adapted ones."""
        for step in range(len(self._steps)):
            bent = self._hessian(step, vector)
            vector = tuple(v - self._step_size * h for v, h in zip(vector, bent, strict=True))
        return vector

    def backward(self, vector: Vector) -> Vector:
        """Return J^T w: what a gradient at the adapted parameters is at the shared ones."""
        for step in reversed(range(len(self._steps))):
            bent = self._hessian(step, tuple(self._step_size * v for v in vector))
            vector = tuple(v - h for v, h in zip(vector, bent, strict=True))
        return vector


class GaussNewton:
    """The Fisher matrix F of one task's adapted policy, averaged over samples."""

    def __init__(self, policy: Policy, parameters: Parameters, query: Samples) -> None:
        own = leaves(parameters)
        distribution = policy.distribution(own, query.observations)
        self._own = list(own.values())
        self._outputs = distribution.parameters
        self._distribution = distribution.detach()
        self._weights = query.weights
        # Reverse over reverse: the backward pass is linear in its direction, so differentiating it by that
        # direction gives the forward derivative.
        self._directions = [torch.zeros_like(output, requires_grad=True) for output in self._outputs]
        self._backward = self._pull(self._directions, create_graph=True)

    def _pull(self, directions: Sequence[Tensor], create_graph: bool = False) -> Vector:
        return torch.autograd.grad(
            self._outputs,
            self._own,
            directions,
            create_graph=create_graph,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )

    def product(self, vector: Vector) -> Vector:
        """Return F u."""
        tangents = torch.autograd.grad(
            self._backward,
            self._directions,
            vector,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        scaled = [part * self._weights.unsqueeze(-1) for part in self._distribution.metric(tangents)]
        return self._pull(scaled)


class Curvature:
    """The meta-objective around the current shared parameters, for one iteration's rollouts.

    Vectors are flat: the shared parameters one after another, in the order of the dict.

    ``gain`` is the surrogate at these parameters, ``gradients`` its gradient by task, ``gradient`` their mean.

    Args:
        policy: whose distribution is differentiated.
        chain: the inner updates.
        query: the samples collected with the adapted parameters.
        fisher_fraction: the share of all samples that the Fisher-vector products use.
    """

    def __init__(self, policy: Policy, chain: Chain, query: Samples, fisher_fraction: float = 1.0) -> None:
        self._policy = policy
        self._chain = chain
        self._query = query
        self._n_tasks = query.weights.shape[0]
        self._device = query.weights.device
        self._shapes = [value.shape for value in chain.parameters[0].values()]
        self.parameters = flatten(tuple(chain.parameters[0].values()))

        thin_supports = [support.thin(fisher_fraction) for support in chain.supports]
        thin_query = query.thin(fisher_fraction)

        def prepare(task: int) -> tuple[Distribution, Tensor, Tensor, InnerJacobian, GaussNewton]:
            adapted = chain.at(len(chain.supports), task)
            own = leaves(adapted)
            distribution = policy.distribution(own, query.task(task).observations)
            gain = likelihood_ratio_gain(distribution, query.task(task))
            slope = torch.autograd.grad(gain, list(own.values()), allow_unused=True, materialize_grads=True)
            jacobian = InnerJacobian(policy, chain, chain.supports, task)
            gradient = flatten(jacobian.backward(slope))
            if fisher_fraction < 1.0:
                jacobian = InnerJacobian(policy, chain, thin_supports, task)
            fisher = GaussNewton(policy, adapted, thin_query.task(task))
            return distribution.detach(), gain.detach(), gradient, jacobian, fisher

        prepared = map_tasks(prepare, self._n_tasks, self._device)
        self._old = [part[0] for part in prepared]
        self._factors = [(part[3], part[4]) for part in prepared]
        self.gain = torch.stack([part[1] for part in prepared]).mean()
        self.gradients = torch.stack([part[2] for part in prepared])
        self.gradient = self.gradients.mean(dim=0)

    def product(self, vector: Tensor) -> Tensor:
        """Return the Fisher-vector product ``mean_i J_i^T F_i J_i v``."""
        split = self._split(vector)

        def work(task: int) -> Tensor:
            jacobian, fisher = self._factors[task]
            return flatten(jacobian.backward(fisher.product(jacobian.forward(split))))

        return torch.stack(map_tasks(work, self._n_tasks, self._device)).mean(dim=0)

    def evaluate(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gain and the mean KL (old to new) of other shared parameters, adapted on the same rollouts."""
        shared = self.named(parameters)

        def work(task: int) -> Tensor:
            own = shared
            for support in self._chain.supports:
                own = inner_step(self._policy, own, support.task(task), self._chain.step_size)
            query = self._query.task(task)
            with torch.no_grad():
                new = self._policy.distribution(own, query.observations)
                return torch.stack([likelihood_ratio_gain(new, query), mean_kl(self._old[task], new, query)])

        gain, kl = torch.stack(map_tasks(work, self._n_tasks, self._device)).mean(dim=0).unbind()
        return gain, kl

    def named(self, vector: Tensor) -> Parameters:
        """Return a flat vector as parameters by name."""
        return dict(zip(self._chain.parameters[0], self._split(vector), strict=True))

    def _split(self, vector: Tensor) -> Vector:
        parts = torch.split(vector, [shape.numel() for shape in self._shapes])
        return tuple(part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True))


def flatten(vector: Vector) -> Tensor:
    """Return the parts of a vector one after another."""
    return torch.cat([part.reshape(-1) for part in vector])
