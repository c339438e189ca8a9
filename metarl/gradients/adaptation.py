"""Inner updates: one gradient step for each task and step, ``theta' = theta - alpha * grad L(theta)``; their Jacobian.

For one task, ``theta_K`` are the parameters after K inner steps ``theta_{k+1} = theta_k - alpha_k grad L_k(theta_k)``.
Their Jacobian with respect to the shared parameters is ``J = J_K ... J_1`` with ``J_k = I - diag(alpha_k) H_k``. H_k is
the Hessian of the inner loss L_k, or only its rows of the adapted parameters, zero elsewhere. J is not symmetric where
several steps are chained, step sizes differ between parameters, or only some parameters adapt.

What the meta-update changes is a flat vector. A linear map turns it into shared parameters and step sizes, and its
transpose turns gradients with respect to these into one with respect to the vector. Variants of MAML differ by that map
and by whether second derivatives count (``first_order``).

Source: Finn et al. 2017, equations 1 and 4.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.agents import POLICY_GRADIENT, InnerObjective, Parameters, Policy, Samples
from metarl.agents.policies import ContextPolicy
from metarl.gradients.autograd_backend import AutogradBackend
from metarl.gradients.backend import AdaptedPolicy, Backend, InnerLoss, OutputGradients, Outputs, TaskGroups
from metarl.gradients.context_backend import ContextBackend
from metarl.gradients.flat import flatten, flatten_tasks, named
from metarl.gradients.parallel import join_groups, map_groups
from metarl.gradients.perceptron_backend import PerceptronBackend

StepSize = float | Tensor | Parameters  # one for all parameters, one for each as a flat vector, or by name
AddedGradients = Callable[[int, Outputs], OutputGradients]  # inner step, outputs before it -> gradients to be added
NOTHING_KEPT = (
    "first-order inner updates keep nothing that a term of the meta-objective could be differentiated through; use "
    "second-order ones with it (first_order=False)"
)


def choose_backend(
    policy: Policy,
    device: torch.device,
    *,
    path: Literal["auto", "fast", "general"] = "auto",
    objective: InnerObjective = POLICY_GRADIENT,
    adapts: frozenset[str] | None = None,
    keep: bool = True,
) -> Backend:
    """Return the fast backend for perceptrons; else the general one, by autograd.

    The fast one takes as many tasks at once as fill a block of rows, or, where the device is not the CPU, all.

    Args:
        policy: whose distribution is differentiated.
        device: where the update runs.
        path: ``fast`` or ``general`` to have that one.
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all. Of a policy with a context it is that.
        keep: keep intermediate results between products; else compute them again, in little memory.

    Raises:
        ValueError: ``fast`` is asked for and there is none.
    """
    at_once: Literal["block", "all"] = "block" if device.type == "cpu" else "all"
    if path != "general" and isinstance(policy, ContextPolicy):
        return ContextBackend(policy, objective, keep=keep, device=device, at_once=at_once)
    if path == "fast" and policy.layers is None:
        raise ValueError(
            "outer.path is 'fast', but there is no fast path for this policy: it is for perceptrons (MlpPolicy with "
            "tanh or relu on a flat Box); use 'auto' or 'general'"
        )
    if policy.layers is not None and path != "general":
        return PerceptronBackend(policy, objective, adapts=adapts, keep=keep, device=device, at_once=at_once)
    return AutogradBackend(policy, objective, adapts=adapts, keep=keep)


def flat_step_size(step_size: StepSize) -> float | Tensor:
    """Return a step size as what a flat vector is multiplied by."""
    return flatten(step_size.values()) if isinstance(step_size, dict) else step_size


def task_vectors(policy: Policy, parameters: Parameters, n_tasks: int) -> Tensor:
    """Return parameters, shared or stacked, as detached vectors ``[task, parameter]``."""
    name, value = next(iter(parameters.items()))
    if value.shape == policy.shapes[name]:
        return flatten(parameters.values()).detach().expand(n_tasks, -1)
    return flatten_tasks(parameters).detach()


def inner_update(
    policy: Policy,
    parameters: Parameters,
    samples: Samples,
    step_size: StepSize,
    adapts: frozenset[str] | None = None,
) -> Parameters:
    """Return stacked parameters after an inner step of every task; nothing is kept for derivatives.

    Args:
        policy: whose distribution is differentiated.
        parameters: shared (no task axis), or stacked in the order of the tasks.
        samples: ``[task, sample, ...]``, collected with these parameters.
        step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
        adapts: names of the parameters that change; None for all.
    """
    # At the policy that acted, every inner objective has the gradient of this one.
    backend = choose_backend(policy, samples.weights.device, objective=POLICY_GRADIENT, adapts=adapts, keep=False)
    vectors = task_vectors(policy, parameters, samples.weights.shape[0])
    gradients = inner_gradients(backend, backend.groups(samples), vectors, samples)
    return named(policy.shapes, vectors - flat_step_size(step_size) * gradients)


def inner_gradients(backend: Backend, groups: TaskGroups, vectors: Tensor, samples: Samples) -> Tensor:
    """Return the inner loss's gradient for each task at its own parameters, ``[task, parameter]``; nothing is kept."""
    return join_groups(groups, map_groups(groups, vectors, samples, backend.inner_gradient))


def loss_gradients(backend: Backend, vectors: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
    """Return the gradient of an objective's loss for each task at its own parameters, ``[task, parameter]``."""
    groups = backend.groups(samples)

    def gradient(vector: Tensor, own: Samples) -> Tensor:
        return backend.gradient(vector, own, objective)

    return join_groups(groups, map_groups(groups, vectors, samples, gradient))


class LinearMap:
    """From what the meta-update changes, a flat vector, to shared parameters and step sizes: here the identity.

    A subclass may learn step sizes as well, or leave parameters out. ``apply`` must be linear, ``transpose`` its
    transpose.

    Attributes:
        learns_step_sizes: whether step sizes are part of the vector.
    """

    learns_step_sizes: ClassVar[bool] = False

    def apply(self, vector: Tensor) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Return shared parameters ``[parameter]`` and each inner step's sizes ``[parameter]``; None: not learned."""
        return vector, None

    def transpose(self, parameters: Tensor, step_sizes: Sequence[Tensor]) -> Tensor:
        """Return the gradient with respect to the vector.

        Args:
            parameters: gradient with respect to the shared parameters, ``[..., parameter]``.
            step_sizes: with respect to each inner step's sizes, likewise; empty where they are not learned.
        """
        return parameters


class Adaptation:
    """The inner updates of an iteration, and what the meta-update needs of them.

    Attributes:
        policy: whose distribution is differentiated.
        backend: how derivatives are computed.
        vector: what the meta-update changes, flat.
        parameters: K + 1 sets; the first shared, the others stacked, after each inner step.
        supports: K batches of samples; entry k was collected with ``parameters[k]`` and made ``parameters[k + 1]``.
        groups: which tasks are taken at once.
        first_order: whether the derivative of the inner updates is taken for the identity.

    Args:
        policy: whose distribution is differentiated.
        backend: how derivatives are computed.
        vector: what the meta-update changes, flat.
        linear_map: from ``vector`` to shared parameters and step sizes.
        first_order: see above.
    """

    def __init__(
        self,
        policy: Policy,
        backend: Backend,
        vector: Tensor,
        linear_map: LinearMap | None = None,
        *,
        first_order: bool = False,
    ) -> None:
        self.policy = policy
        self.backend = backend
        self.vector = vector.detach()
        self.first_order = first_order
        self.supports: list[Samples] = []
        self.groups: TaskGroups = []
        self._map = linear_map or LinearMap()
        self.parameters = [self.shared(self.vector)]
        self._step_sizes: list[float | Tensor] = []
        self._losses: list[list[InnerLoss]] = []  # by step and group; empty where first_order
        self._gradients: list[Tensor] = []  # by step, [task, parameter]

    def adapt(self, samples: Samples, step_size: StepSize) -> None:
        """Take an inner step of every task, on samples collected with the latest parameters.

        Args:
            samples: ``[task, sample, ...]``.
            step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
        """
        size = flat_step_size(step_size)
        vectors = task_vectors(self.policy, self.parameters[-1], samples.weights.shape[0])
        if not self.supports or self.first_order:
            self.groups = self.backend.groups(samples)
        if self.first_order:
            gradients = inner_gradients(self.backend, self.groups, vectors, samples)
        else:
            self._losses.append(map_groups(self.groups, vectors, samples, self.backend.inner_loss))
            gradients = join_groups(self.groups, [loss.gradient for loss in self._losses[-1]])
        self._gradients.append(gradients)
        self._step_sizes.append(size)
        self.supports.append(samples)
        self.parameters.append(self.named(vectors - size * gradients))

    def adapted(self, groups: TaskGroups, query: Samples) -> list[AdaptedPolicy]:
        """Return the adapted policies of each group of tasks, on samples collected with them."""
        vectors = task_vectors(self.policy, self.parameters[-1], query.weights.shape[0])
        return map_groups(groups, vectors, query, self.backend.adapted)

    def jacobians(self) -> list[Jacobian]:
        """Return the Jacobian of each group of tasks."""
        if self.first_order:
            of_groups = [[gradients[group] for gradients in self._gradients] for group in self.groups]
            return [Jacobian(self._map, self._step_sizes, None, gradients) for gradients in of_groups]
        return [
            Jacobian(self._map, self._step_sizes, losses, [loss.gradient for loss in losses])
            for losses in zip(*self._losses, strict=True)
        ]

    def subsample(self, fraction: float) -> Adaptation:
        """Return the same inner updates, with second derivatives from a share of the samples.

        Those of an inner objective that couples the steps of an episode stay as they are: it has no terms for single
        steps, and from a few whole episodes its Hessian is so noisy that learning suffers.
        """
        other = copy.copy(self)
        if self.first_order:
            other.groups = self.backend.groups(self.supports[0].subsample(fraction))
            return other
        if self.backend.objective.coupled:
            return self
        other.supports = [samples.subsample(fraction) for samples in self.supports]
        other.groups = self.backend.groups(other.supports[0])
        other._losses = [
            map_groups(
                other.groups, task_vectors(self.policy, before, len(samples.weights)), samples, self.backend.inner_loss
            )
            for before, samples in zip(self.parameters, other.supports, strict=False)
        ]
        return other

    def retrace(self, vector: Tensor, group: int | slice) -> list[Tensor]:
        """Return the parameters of a group of tasks after 0, 1, ... inner steps from another ``vector``.

        The samples are the same, where in earnest the changed parameters would have collected others.
        """
        shared, learned = self._map.apply(vector)
        vectors = [shared]
        for samples, size in zip(self.supports, learned or self._step_sizes, strict=True):
            own = samples.task(group)
            before = vectors[-1].expand(*own.weights.shape[:-1], -1)
            vectors.append(before - size * self.backend.inner_gradient(before, own))
        return vectors

    def at(self, vector: Tensor) -> Adaptation:
        """Return the same inner updates from another ``vector``, on the same samples."""
        other = Adaptation(self.policy, self.backend, vector, self._map, first_order=self.first_order)
        learned = self._map.apply(vector)[1]
        for samples, size in zip(self.supports, learned or self._step_sizes, strict=True):
            other.adapt(samples, size)
        return other

    def shared(self, vector: Tensor) -> Parameters:
        """Return the shared parameters that a ``vector`` stands for."""
        return self.named(self._map.apply(vector)[0])

    def outputs(self, step: int, group: int) -> Outputs:
        """Return the distributions of the policies before inner step ``step``, of a group of tasks.

        Raises:
            ValueError: first-order inner updates keep none.
        """
        if self.first_order:
            raise ValueError(NOTHING_KEPT)
        return self._losses[step][group].outputs

    def named(self, vector: Tensor) -> Parameters:
        """Return flat vectors of parameters by name."""
        return named(self.policy.shapes, vector)


class Jacobian:
    """The Jacobian J of the adapted parameters of a group of tasks with respect to what the meta-update changes.

    Args:
        linear_map: from that to shared parameters and step sizes.
        step_sizes: of each inner step.
        losses: the inner loss of each step; None where its second derivatives are left out.
        gradients: of the inner loss, of each step: the derivative by a step size is minus the gradient.
    """

    def __init__(
        self,
        linear_map: LinearMap,
        step_sizes: Sequence[float | Tensor],
        losses: Sequence[InnerLoss] | None,
        gradients: Sequence[Tensor],
    ) -> None:
        self._map = linear_map
        self._step_sizes = step_sizes
        self._losses = losses
        self._gradients = gradients

    def forward(self, vector: Tensor) -> Tensor:
        """Return J v: the change of the adapted parameters along a change v of what the meta-update changes."""
        vector, changes = self._map.apply(vector)
        for step, size in enumerate(self._step_sizes):
            before = vector
            if self._losses is not None:
                vector = before - size * self._losses[step].push(before)
            if changes is not None:
                vector = vector - changes[step] * self._gradients[step]
        return vector

    def backward(self, vector: Tensor, added: AddedGradients | None = None) -> Tensor:
        """Return J^T w: the gradient with respect to what the meta-update changes, from that at the adapted parameters.

        Args:
            vector: ``[..., parameter]``.
            added: gives the gradients, with respect to the outputs before an inner step, of a further function of
                these, whose gradient is carried back with the other.

        Raises:
            ValueError: ``added`` is given to first-order inner updates, which keep no outputs.
        """
        if added is not None and self._losses is None:
            raise ValueError(NOTHING_KEPT)
        by_size: list[Tensor] = []
        for step, size in reversed(list(enumerate(self._step_sizes))):
            if self._map.learns_step_sizes:
                by_size.insert(0, -self._gradients[step] * vector)
            if self._losses is not None:
                vector = vector - self._pull(step, self._losses[step], size * vector, added)
        return self._map.transpose(vector, by_size)

    def _pull(self, step: int, loss: InnerLoss, vector: Tensor, added: AddedGradients | None) -> Tensor:
        if added is None:
            return loss.pull(vector)
        return loss.pull(vector, [[-part for part in parts] for parts in added(step, loss.outputs)])
