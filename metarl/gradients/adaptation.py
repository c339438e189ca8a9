"""Inner updates, gradient steps ``theta' = theta - alpha * grad L(theta)`` for each task, and their Jacobian.

For one task, ``theta_K`` are the parameters after K inner steps ``theta_{k+1} = theta_k - alpha_k grad L_k(theta_k)``.
Their Jacobian with respect to the shared parameters is ``J = J_K ... J_1`` with ``J_k = I - diag(alpha_k) H_k``. H_k is
the Hessian of the inner loss L_k; where only some parameters adapt, its rows of the other parameters are zero. J is not
symmetric if several steps are chained, step sizes differ between parameters, or only some parameters adapt.

The meta-update changes a flat vector, the meta-vector. A linear map turns it into shared parameters and step sizes, and
the map's transpose turns gradients with respect to these into the gradient with respect to the meta-vector. Variants of
MAML differ by that map and by whether second derivatives count (``first_order``).

Source: Finn et al. 2017, equations 1 and 4.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from metarl.agents import POLICY_GRADIENT, InnerObjective, Parameters, Policy, Samples
from metarl.gradients.autograd_backend import AutogradBackend
from metarl.gradients.backend import AdaptedPolicy, Backend, InnerLoss, OutputGradients, Outputs, TaskGroups
from metarl.gradients.flat import flatten, flatten_tasks, named
from metarl.gradients.folds import FoldedBackend, how_to_fold
from metarl.gradients.parallel import join_groups, map_groups
from metarl.gradients.perceptron_backend import PerceptronBackend

StepSize = float | Tensor | Parameters  # one for all parameters, or one for each: as a flat vector, or by name
AddedGradients = Callable[[int, Outputs], OutputGradients]  # inner step, outputs before it -> gradients to add
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
    """Return the fast backend for a perceptron, the general one (autograd) for any other policy.

    On the CPU, the fast backend computes as many tasks at once as fill a block of rows; on other devices, all tasks.

    Args:
        policy: whose distribution is differentiated.
        device: where the update runs.
        path: ``fast`` or ``general`` asks for that backend.
        objective: of the inner update.
        adapts: names of the parameters that inner updates change; None for all. Ignored by a policy with a context,
            of which only the context adapts.
        keep: keep intermediate results between products; else compute them again, which takes less memory.

    Raises:
        ValueError: ``fast`` is asked for, and there is none for this policy.
    """
    at_once: Literal["block", "all"] = "block" if device.type == "cpu" else "all"
    if path != "general" and (folding := how_to_fold(policy, adapts, device)) is not None:
        return FoldedBackend(*folding, objective, keep=keep, device=device, at_once=at_once)
    if path == "fast" and policy.layers is None:
        raise ValueError(
            "outer.path is 'fast', but there is no fast path for this policy: it is for perceptrons (MlpPolicy with "
            "tanh or relu on a flat Box, with low-rank updates of up to a million weights); use 'auto' or 'general'"
        )
    if policy.layers is not None and path != "general":
        return PerceptronBackend(policy, objective, adapts=adapts, keep=keep, device=device, at_once=at_once)
    return AutogradBackend(policy, objective, adapts=adapts, keep=keep)


def flat_step_size(step_size: StepSize) -> float | Tensor:
    """Return a step size as a number, or as a flat vector with one for each parameter."""
    return flatten(step_size.values()) if isinstance(step_size, dict) else step_size


def task_vectors(policy: Policy, parameters: Parameters, n_tasks: int) -> Tensor:
    """Return shared or stacked parameters as detached vectors ``[task, parameter]``."""
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
    """Return stacked parameters after one inner step of every task, without keeping anything for derivatives.

    Args:
        policy: whose distribution is differentiated.
        parameters: shared (no task axis), or stacked in the order of the tasks.
        samples: ``[task, sample, ...]``, collected with these parameters.
        step_size: the step size alpha, or one for each parameter: by name, or as a flat vector.
        adapts: names of the parameters that change; None for all.
    """
    # At the parameters that collected the samples, all inner objectives have the same gradient.
    backend = choose_backend(policy, samples.weights.device, objective=POLICY_GRADIENT, adapts=adapts, keep=False)
    vectors = task_vectors(policy, parameters, samples.weights.shape[0])
    gradients = inner_gradients(backend, backend.groups(samples), vectors, samples)
    return named(policy.shapes, vectors - flat_step_size(step_size) * gradients)


def inner_gradients(backend: Backend, groups: TaskGroups, vectors: Tensor, samples: Samples) -> Tensor:
    """Return the inner loss's gradient for each task at its own parameters, ``[task, parameter]``."""
    return join_groups(groups, map_groups(groups, vectors, samples, backend.inner_gradient))


def loss_gradients(backend: Backend, vectors: Tensor, samples: Samples, objective: InnerObjective) -> Tensor:
    """Return the gradient of an objective's loss for each task at its own parameters, ``[task, parameter]``."""
    groups = backend.groups(samples)

    def gradient(vector: Tensor, own: Samples) -> Tensor:
        return backend.gradient(vector, own, objective)

    return join_groups(groups, map_groups(groups, vectors, samples, gradient))


class LinearMap:
    """The linear map from the meta-vector to shared parameters and step sizes; here the identity, without step sizes.

    A subclass may learn step sizes as well, or leave parameters out of the meta-vector. ``apply`` must be linear, and
    ``transpose`` its transpose.

    Attributes:
        learns_step_sizes: whether step sizes are part of the meta-vector.
    """

    learns_step_sizes: ClassVar[bool] = False

    def apply(self, vector: Tensor) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Return shared parameters and each inner step's sizes, all ``[parameter]``; None for sizes not learned."""
        return vector, None

    def transpose(self, parameters: Tensor, step_sizes: Sequence[Tensor]) -> Tensor:
        """Return the gradient with respect to the meta-vector.

        Args:
            parameters: gradient with respect to the shared parameters, ``[..., parameter]``.
            step_sizes: gradients with respect to each inner step's sizes, likewise; empty if they are not learned.
        """
        return parameters


class Adaptation:
    """The inner updates of an iteration, with what the meta-update needs to differentiate them.

    Attributes:
        policy: whose distribution is differentiated.
        backend: computes the derivatives.
        vector: the meta-vector.
        parameters: K + 1 sets: the shared parameters, then the stacked ones after each inner step.
        supports: K batches of samples; batch k was collected with ``parameters[k]`` and led to ``parameters[k + 1]``.
        groups: the task groups.
        first_order: whether the inner updates' second derivatives are left out, as if their Jacobian were the identity.

    Args:
        policy: whose distribution is differentiated.
        backend: computes the derivatives.
        vector: the meta-vector.
        linear_map: from the meta-vector to shared parameters and step sizes; None for the identity.
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
        self._losses: list[list[InnerLoss]] = []  # by step and task group; empty if first_order
        self._gradients: list[Tensor] = []  # by step: [task, parameter]

    def adapt(self, samples: Samples, step_size: StepSize) -> None:
        """Take one inner step of every task, on samples collected with the latest parameters.

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
        """Return the adapted policies of each task group, on samples collected with them."""
        vectors = task_vectors(self.policy, self.parameters[-1], query.weights.shape[0])
        return map_groups(groups, vectors, query, self.backend.adapted)

    def jacobians(self) -> list[Jacobian]:
        """Return the Jacobian of each task group."""
        if self.first_order:
            of_groups = [[gradients[group] for gradients in self._gradients] for group in self.groups]
            return [Jacobian(self._map, self._step_sizes, None, gradients) for gradients in of_groups]
        return [
            Jacobian(self._map, self._step_sizes, losses, [loss.gradient for loss in losses])
            for losses in zip(*self._losses, strict=True)
        ]

    def subsample(self, fraction: float) -> Adaptation:
        """Return the same inner updates, with second derivatives estimated from a share of the samples.

        An inner objective that couples the steps of an episode keeps all samples: it is no sum over single steps, and
        its Hessian from a few whole episodes is so noisy that learning suffers.
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
        """Return a task group's parameters after 0, 1, ... inner steps from another meta-vector.

        They use the samples of this adaptation, although the changed parameters would have collected other ones.
        """
        shared, learned = self._map.apply(vector)
        vectors = [shared]
        for samples, size in zip(self.supports, learned or self._step_sizes, strict=True):
            own = samples.task(group)
            before = vectors[-1].expand(*own.weights.shape[:-1], -1)
            vectors.append(before - size * self.backend.inner_gradient(before, own))
        return vectors

    def at(self, vector: Tensor) -> Adaptation:
        """Return the inner updates from another meta-vector, on the same samples."""
        other = Adaptation(self.policy, self.backend, vector, self._map, first_order=self.first_order)
        learned = self._map.apply(vector)[1]
        for samples, size in zip(self.supports, learned or self._step_sizes, strict=True):
            other.adapt(samples, size)
        return other

    def shared(self, vector: Tensor) -> Parameters:
        """Return the shared parameters that a meta-vector encodes."""
        return self.named(self._map.apply(vector)[0])

    def outputs(self, step: int, group: int) -> Outputs:
        """Return the distributions of a task group's policies before inner step ``step``.

        Raises:
            ValueError: the inner updates are first-order ones, which keep no distributions.
        """
        if self.first_order:
            raise ValueError(NOTHING_KEPT)
        return self._losses[step][group].outputs

    def named(self, vector: Tensor) -> Parameters:
        """Return flat vectors as parameters by name."""
        return named(self.policy.shapes, vector)


class Jacobian:
    """The Jacobian J of a task group's adapted parameters with respect to the meta-vector.

    Args:
        linear_map: from the meta-vector to shared parameters and step sizes.
        step_sizes: of each inner step.
        losses: the inner loss of each step; None if second derivatives are left out.
        gradients: the inner loss's gradient at each step; the derivative with respect to a step size is minus this.
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
        """Return J v: the directional derivative of the adapted parameters along a direction v of the meta-vector."""
        vector, changes = self._map.apply(vector)
        for step, size in enumerate(self._step_sizes):
            before = vector
            if self._losses is not None:
                vector = before - size * self._losses[step].push(before)
            if changes is not None:
                vector = vector - changes[step] * self._gradients[step]
        return vector

    def backward(self, vector: Tensor, added: AddedGradients | None = None) -> Tensor:
        """Return J^T w: the gradient with respect to the meta-vector, from the gradient w at the adapted parameters.

        Args:
            vector: w, ``[..., parameter]``.
            added: returns the gradient of a further function of the outputs before an inner step with respect to these
                outputs. It is propagated back in the same pass.

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
