"""Policies of stable-baselines3 between an environment's own actions and those that metarl's policies see.

Those are [-1, 1] in place of another bounded box, and numbers from 0 in place of those from another start
(``metarl.envs.actions``).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, MultiCategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.policies.trial_policy import own_units
from metarl.envs.actions import standard_actions


def fold_actions(module: ActorCriticPolicy, own: spaces.Box) -> None:
    """Turn a policy for the box ``own`` into the one for the mapped box that does the same, in place.

    Entries with two finite ends are mapped to [-1, 1]; the others are as they were.

    With ``a = middle + half * u``, a Gaussian of mean ``W h + b`` and deviation ``s`` in a is one of mean
    ``(W h + b - middle) / half`` and deviation ``s / half`` in u: exact up to rounding.
    """
    middle, half = own_units(own)
    with torch.no_grad():
        layer = _last_layer(module)
        layer.weight.copy_(layer.weight.double() / half[:, None])
        layer.bias.copy_((layer.bias.double() - middle) / half)
        module.log_std.copy_(module.log_std.double() - half.log())


def unfold_actions(module: ActorCriticPolicy, own: spaces.Space[Any]) -> ActorCriticPolicy:
    """Turn a policy for mapped actions into the one that does the same with an environment's own, in place.

    It is the inverse of ``fold_actions`` for a box. For discrete actions that do not start at 0, the policy gets a
    class of its own, which adds the start to what it samples.

    Args:
        module: a policy for the actions that metarl's policies see.
        own: the environment's action space.
    """
    if module.action_space == own or standard_actions(own) is None:
        return module
    if isinstance(own, spaces.Box):
        middle, half = (part.to(module.device) for part in own_units(own))
        with torch.no_grad():
            layer = _last_layer(module)
            layer.weight.copy_(layer.weight.double() * half[:, None])
            layer.bias.copy_(layer.bias.double() * half + middle)
            module.log_std.copy_(module.log_std.double() + half.log())
        module.action_space = own
        return module
    module.action_space = own
    module.__class__ = _shifted_class(type(module))
    module.action_dist = _shifted_distribution(own)
    return module


def which_actions(seen: spaces.Space[Any], own: spaces.Space[Any], counted: str = "steps") -> str:
    """Return a sentence about a policy for mapped actions, where the environment's own are others.

    Args:
        seen: the mapped actions.
        own: the environment's.
        counted: the argument of ``adapt`` that is 0 for no adaptation.
    """
    return (
        f"this policy acts in {seen}, as environments of metarl.make take it, and the family's own action space is "
        f"{own}: use it in environments of metarl.make, or get one for another environment with adapt(env), where "
        f"{counted}=0 gives the policy before adaptation"
    )


def _last_layer(module: ActorCriticPolicy) -> nn.Linear:
    layer = module.action_net
    assert isinstance(layer, nn.Linear)
    return layer


class ShiftedCategorical(CategoricalDistribution):
    """The distribution of a discrete action that starts at ``start``."""

    start: Any

    def sample(self) -> Tensor:
        """Return actions."""
        return torch.add(super().sample(), self.start)

    def mode(self) -> Tensor:
        """Return the most probable actions."""
        return torch.add(super().mode(), self.start)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities of actions."""
        return super().log_prob(actions - self.start)


class ShiftedMultiCategorical(MultiCategoricalDistribution):
    """The distribution of several discrete actions that start at ``start``."""

    start: Any

    def _starts(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.start, device=like.device).flatten()

    def sample(self) -> Tensor:
        """Return actions."""
        found = super().sample()
        return found + self._starts(found)

    def mode(self) -> Tensor:
        """Return the most probable actions."""
        found = super().mode()
        return found + self._starts(found)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probabilities of actions."""
        return super().log_prob(actions - self._starts(actions))


def _shifted_distribution(space: spaces.Space[Any]) -> ShiftedCategorical | ShiftedMultiCategorical:
    found: ShiftedCategorical | ShiftedMultiCategorical
    if isinstance(space, spaces.Discrete):
        found = ShiftedCategorical(int(space.n))
        found.start = int(space.start)
    else:
        assert isinstance(space, spaces.MultiDiscrete)
        found = ShiftedMultiCategorical([int(count) for count in space.nvec.flatten()])
        found.start = space.start
    return found


class ShiftedPolicy:
    """What is added to the class of a policy, so that it samples discrete actions from their own start on."""

    action_space: spaces.Space[Any]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.action_dist = _shifted_distribution(self.action_space)


@functools.cache
def _shifted_class(kind: type[Any]) -> type[Any]:
    if issubclass(kind, ShiftedPolicy):
        return kind
    return type(f"Shifted{kind.__name__}", (ShiftedPolicy, kind), {"__module__": __name__, "__doc__": kind.__doc__})
