"""Second-order quantities of the meta-objective: its gradient, and Fisher-vector products.

Let J_i be the Jacobian of task i's inner updates (``adaptation``) and S_i the surrogate at its adapted parameters. The
gradient of the meta-objective is ``mean_i J_i^T grad S_i(theta_K,i)``. At the current parameters, the Hessian of the
adapted policies' mean KL is exactly ``mean_i J_i^T F_i J_i`` with F_i the Fisher matrix of the adapted policy, since
the KL's gradient is zero there. So a Fisher-vector product takes two Hessian-vector products for each inner step and
one Gauss-Newton product; the KL need not be differentiated twice.

Source: Finn et al. 2017, equation 4 (the meta-gradient of one step); Schulman et al. 2015, appendix C (the Fisher
matrix as a Gauss-Newton product).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metarl.agents import InnerObjective, Samples, mean_kl
from metarl.gradients import task_axis
from metarl.gradients.adaptation import Adaptation, task_vectors
from metarl.gradients.backend import ObjectiveTerm, Outputs
from metarl.gradients.parallel import join_groups, map_groups, map_tasks


def objective_gradients(
    adaptation: Adaptation, gradients: Sequence[Tensor], term: ObjectiveTerm | None = None
) -> Tensor:
    """Return each task's gradient of the meta-objective with respect to the meta-vector, ``[task, parameter]``.

    Args:
        adaptation: the inner updates.
        gradients: for each task group, the gradient of the objective after adaptation at the adapted parameters.
        term: a further term of the meta-objective.
    """
    jacobians = adaptation.jacobians()

    def work(group: int) -> Tensor:
        added = None if term is None else functools.partial(term.output_gradients, group)
        return jacobians[group].backward(gradients[group], added)

    return over_groups(adaptation, work)


def meta_gradients(
    adaptation: Adaptation, query: Samples, objective: InnerObjective, term: ObjectiveTerm | None = None
) -> Tensor:
    """Return each task's gradient of minus the loss after adaptation, ``[task, parameter]``.

    It is with respect to the meta-vector.

    Args:
        adaptation: the inner updates.
        query: the samples collected with the adapted parameters.
        objective: whose loss it is.
        term: a further term of the meta-objective.
    """
    vectors = task_vectors(adaptation.policy, adaptation.parameters[-1], query.weights.shape[0])

    def ascent(vector: Tensor, samples: Samples) -> Tensor:
        return -adaptation.backend.gradient(vector, samples, objective)

    return objective_gradients(adaptation, map_groups(adaptation.groups, vectors, query, ascent), term)


def over_groups(adaptation: Adaptation, work: Callable[[int], Tensor]) -> Tensor:
    """Return the results of ``work(index)`` for each task group as one tensor with a leading task axis."""
    groups = adaptation.groups
    return join_groups(groups, map_tasks(work, len(groups), adaptation.supports[0].weights.device))


def adapted_kl(adaptation: Adaptation, vector: Tensor, query: Samples) -> Tensor:
    """Return the mean KL from the adapted policies to those adapted from another meta-vector, on their samples.

    Args:
        adaptation: the inner updates.
        vector: the other meta-vector.
        query: the samples collected with the adapted parameters.
    """
    vectors = task_vectors(adaptation.policy, adaptation.parameters[-1], query.weights.shape[0])
    backend = adaptation.backend

    def work(number: int) -> Tensor:
        group = adaptation.groups[number]
        own = query.task(group)
        old = backend.outputs(vectors[group].clone(), own)
        new = backend.outputs(adaptation.retrace(vector, group)[-1], own)
        pairs = zip(old, new, strict=True)
        return torch.stack([mean_kl(before, after, rows) for (before, rows), (after, _) in pairs]).sum(dim=0)

    return task_axis.tree_mean(over_groups(adaptation, work))


class Curvature:
    """The meta-objective around the current meta-vector, for the rollouts of one iteration.

    Attributes:
        vector: the current meta-vector.
        gain: the meta-objective (surrogate and ``term``) there.
        gradients: its gradient for each task, ``[task, parameter]``.
        gradient: their mean.

    Args:
        adaptation: the inner updates.
        query: the samples collected with the adapted parameters.
        fisher_fraction: the share of all samples that the Fisher-vector products use.
        term: a further term of the meta-objective.
    """

    def __init__(
        self, adaptation: Adaptation, query: Samples, fisher_fraction: float = 1.0, term: ObjectiveTerm | None = None
    ) -> None:
        self._adaptation = adaptation
        self._term = term
        self.vector = adaptation.vector
        self._of_fisher = adaptation
        self._adapted = self._fisher = adaptation.adapted(adaptation.groups, query)
        self._jacobians = adaptation.jacobians()
        self.gain = task_axis.tree_mean(join_groups(adaptation.groups, [policy.gain for policy in self._adapted]))
        if term is not None:
            added = over_groups(adaptation, lambda group: self._added(group, adaptation.outputs))
            self.gain = self.gain + task_axis.mean(added)
        self.gradients = objective_gradients(adaptation, [policy.gradient for policy in self._adapted], term)
        self.gradient = task_axis.mean(self.gradients)
        if fisher_fraction < 1.0:
            self._of_fisher = adaptation.subsample(fisher_fraction)
            self._fisher = adaptation.adapted(self._of_fisher.groups, query.subsample(fisher_fraction))
            self._jacobians = self._of_fisher.jacobians()

    def product(self, vector: Tensor) -> Tensor:
        """Return the Fisher-vector product ``mean_i J_i^T F_i J_i v``."""

        def work(group: int) -> Tensor:
            jacobian = self._jacobians[group]
            return jacobian.backward(self._fisher[group].fisher(jacobian.forward(vector)))

        return task_axis.mean(over_groups(self._of_fisher, work))

    def evaluate(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gain and the mean KL (old to new) of another meta-vector, adapted on the same rollouts."""
        adaptation = self._adaptation

        def work(number: int) -> Tensor:
            group = adaptation.groups[number]
            vectors = adaptation.retrace(vector, group)

            def outputs(step: int, number: int) -> Outputs:
                own = adaptation.supports[step].task(group)
                return adaptation.backend.outputs(vectors[step].expand(*own.weights.shape[:-1], -1), own)

            gain, kl = self._adapted[number].compare(vectors[-1]).unbind(dim=-1)
            if self._term is not None:
                gain = gain + self._added(number, outputs)
            return torch.stack([gain, kl], dim=-1)

        gain, kl = task_axis.mean(over_groups(adaptation, work)).unbind()
        return gain, kl

    def _added(self, group: int, outputs: Callable[[int, int], Outputs]) -> Tensor:
        assert self._term is not None
        steps = range(len(self._adaptation.supports))
        return torch.stack([self._term.value(group, step, outputs(step, group)) for step in steps]).sum(dim=0)
