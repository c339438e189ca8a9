"""Action distributions as immutable values, with the mathematics that updates need.

Every method is batched over the leading axes of the parameters, sums over action dimensions, and is differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from gymnasium import spaces
from torch import Tensor


class Distribution(Protocol):
    """The interface of a distribution over actions; ``parameters`` are computed by the policy."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors that determine the distribution."""

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of actions, summed over action dimensions: ``[...]``."""

    def entropy(self) -> Tensor:
        """Return the entropy, ``[...]``."""

    def kl(self, other: Any) -> Tensor:
        """Return KL(self, other), ``[...]``."""

    def kl_gradient(self, other: Any) -> tuple[Tensor, ...]:
        """Return the gradient of KL(self, other) with respect to the other one's ``parameters``, sample by sample."""

    def metric(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the Fisher matrix of ``parameters`` times tangents, sample by sample."""

    def score(self, actions: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of ``log_prob(actions)`` with respect to ``parameters``, sample by sample."""

    def detach(self) -> Distribution:
        """Return the same distribution outside of any graph."""


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions: ``mean [..., action]``, ``log_std [..., action]``."""

    mean: Tensor
    log_std: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Mean and logarithm of the standard deviation."""
        return (self.mean, self.log_std)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-density of actions ``[..., action]``, summed over action dimensions."""
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)

    def kl(self, other: Gaussian) -> Tensor:
        """Return KL(self, other)."""
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        distance = ((self.mean - other.mean) * torch.exp(-other.log_std)).square()
        return (other.log_std - self.log_std + 0.5 * (ratio + distance - 1.0)).sum(dim=-1)

    def kl_gradient(self, other: Gaussian) -> tuple[Tensor, ...]:
        """Return z / std' for the mean and 1 - std^2 / std'^2 - z^2 for log_std, with z = (mean' - mean) / std'."""
        z = (other.mean - self.mean) * torch.exp(-other.log_std)
        ratio = torch.exp(2 * (self.log_std - other.log_std))
        return (z * torch.exp(-other.log_std), 1.0 - ratio - z.square())

    def metric(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the Fisher matrix, 1/std^2 for the mean and 2 for log_std, times tangents."""
        mean, log_std = tangents
        return (torch.exp(-2 * self.log_std) * mean, 2.0 * log_std)

    def score(self, actions: Tensor) -> tuple[Tensor, ...]:
        """Return z / std for the mean and z^2 - 1 for log_std, with z = (action - mean) / std."""
        # The mean first: results are laid out as the first operand is, and the fast path's means are transposed.
        inverse = torch.exp(-self.log_std)
        z = (self.mean - actions) * -inverse
        return (z * inverse, z.square() - 1.0)

    def detach(self) -> Gaussian:
        """Return the same distribution outside of any graph."""
        return Gaussian(self.mean.detach(), self.log_std.detach())


@dataclass(frozen=True)
class Categorical:
    """One choice: unnormalised ``logits [..., choice]``; actions are whole numbers ``[...]``."""

    logits: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The logits."""
        return (self.logits,)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of actions ``[...]``."""
        log_probs = torch.log_softmax(self.logits, dim=-1)
        return log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy."""
        log_probs = torch.log_softmax(self.logits, dim=-1)
        return -(log_probs.exp() * log_probs).sum(dim=-1)

    def kl(self, other: Categorical) -> Tensor:
        """Return KL(self, other)."""
        own = torch.log_softmax(self.logits, dim=-1)
        return (own.exp() * (own - torch.log_softmax(other.logits, dim=-1))).sum(dim=-1)

    def kl_gradient(self, other: Categorical) -> tuple[Tensor, ...]:
        """Return the other one's probabilities minus the own."""
        return (torch.softmax(other.logits, dim=-1) - torch.softmax(self.logits, dim=-1),)

    def metric(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the Fisher matrix, diag(p) - p p^T, times tangents."""
        (logits,) = tangents
        probs = torch.softmax(self.logits, dim=-1)
        return (probs * (logits - (probs * logits).sum(dim=-1, keepdim=True)),)

    def score(self, actions: Tensor) -> tuple[Tensor, ...]:
        """Return 1 for the chosen logit and 0 for the others, minus the probabilities."""
        chosen = actions.long().unsqueeze(-1)
        probs = torch.softmax(self.logits, dim=-1)
        return ((-probs).scatter_add(-1, chosen, torch.ones_like(chosen, dtype=probs.dtype)),)

    def detach(self) -> Categorical:
        """Return the same distribution outside of any graph."""
        return Categorical(self.logits.detach())


@dataclass(frozen=True)
class MultiCategorical:
    """Several independent choices: ``logits [..., sum(sizes)]``; actions are whole numbers ``[..., len(sizes)]``."""

    logits: Tensor
    sizes: tuple[int, ...]

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The logits of all choices, one after another."""
        return (self.logits,)

    def _parts(self) -> list[Categorical]:
        return [Categorical(part) for part in torch.split(self.logits, list(self.sizes), dim=-1)]

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of actions ``[..., len(sizes)]``, summed over the choices."""
        parts = [part.log_prob(actions[..., i]) for i, part in enumerate(self._parts())]
        return torch.stack(parts).sum(dim=0)

    def entropy(self) -> Tensor:
        """Return the entropy, summed over the choices."""
        return torch.stack([part.entropy() for part in self._parts()]).sum(dim=0)

    def kl(self, other: MultiCategorical) -> Tensor:
        """Return KL(self, other), summed over the choices."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return torch.stack([own.kl(others) for own, others in pairs]).sum(dim=0)

    def kl_gradient(self, other: MultiCategorical) -> tuple[Tensor, ...]:
        """Return the gradients of all choices, one after another."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return (torch.cat([own.kl_gradient(others)[0] for own, others in pairs], dim=-1),)

    def metric(self, tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the Fisher matrix, block by block, times tangents."""
        (logits,) = tangents
        parts = zip(self._parts(), torch.split(logits, list(self.sizes), dim=-1), strict=True)
        return (torch.cat([part.metric((tangent,))[0] for part, tangent in parts], dim=-1),)

    def score(self, actions: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of all choices, one after another."""
        return (torch.cat([part.score(actions[..., i])[0] for i, part in enumerate(self._parts())], dim=-1),)

    def detach(self) -> MultiCategorical:
        """Return the same distribution outside of any graph."""
        return MultiCategorical(self.logits.detach(), self.sizes)


@dataclass(frozen=True)
class Mixture:
    """A mixture, ``p(a) = sum_c w_c p_c(a)`` with ``w = softmax(logits)``.

    ``logits [..., component]``; ``components`` is one distribution with the leading axes ``[..., component]``. Entropy,
    KL and Fisher matrix of a mixture have no closed form and are not implemented.
    """

    logits: Tensor
    components: Distribution

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The logits of the weights, and the components' parameters."""
        return (self.logits, *self.components.parameters)

    def joint(self, actions: Tensor) -> Tensor:
        """Return ``log w_c + log p_c(action)``, ``[..., component]``."""
        return torch.log_softmax(self.logits, dim=-1) + self.components.log_prob(self._repeated(actions))

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of actions, ``logsumexp_c(log w_c + log p_c(action))``."""
        return torch.logsumexp(self.joint(actions), dim=-1)

    def weight_score(self, actions: Tensor) -> Tensor:
        """Return the gradient of ``log_prob(actions)`` with respect to the logits, ``r - w``, ``[..., component]``.

        ``r_c = w_c p_c(a) / p(a)`` is the responsibility of component c, the posterior probability that it drew the
        action (Jacobs et al. 1991).
        """
        return torch.softmax(self.joint(actions), dim=-1) - torch.softmax(self.logits, dim=-1)

    def score(self, actions: Tensor) -> tuple[Tensor, ...]:
        """Return ``weight_score`` for the logits, and ``r_c`` times component c's own score for its parameters."""
        shares = torch.softmax(self.joint(actions), dim=-1).unsqueeze(-1)
        scores = self.components.score(self._repeated(actions))
        return (self.weight_score(actions), *(shares * score for score in scores))

    def _repeated(self, actions: Tensor) -> Tensor:
        leading = self.logits.shape
        return actions.unsqueeze(len(leading) - 1).expand(*leading, *actions.shape[len(leading) - 1 :])

    def entropy(self) -> NoReturn:
        """Raise an error."""
        raise NotImplementedError("the entropy of a mixture has no closed form")

    def kl(self, other: Any) -> NoReturn:
        """Raise an error."""
        raise NotImplementedError("the KL of mixtures has no closed form")

    def kl_gradient(self, other: Any) -> NoReturn:
        """Raise an error."""
        raise NotImplementedError("the KL of mixtures has no closed form")

    def metric(self, tangents: Sequence[Tensor]) -> NoReturn:
        """Raise an error."""
        raise NotImplementedError("the Fisher matrix of a mixture has no closed form")

    def detach(self) -> Mixture:
        """Return the same distribution outside of any graph."""
        return Mixture(self.logits.detach(), self.components.detach())


def action_distribution(space: spaces.Space[Any], output: Tensor, log_std: Tensor | None) -> Distribution:
    """Return the distribution over an action space that a last layer's output ``[..., output]`` parametrises.

    Args:
        space: ``Box``, ``Discrete`` or ``MultiDiscrete``.
        output: a box's mean, or logits.
        log_std: of a box, ``[..., action]``.
    """
    if isinstance(space, spaces.Box):
        assert log_std is not None
        return Gaussian(output, log_std)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(output, tuple(int(n) for n in space.nvec))
    return Categorical(output)
