"""Smaller networks by structured pruning, of learners and of stable-baselines3's models."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agents import Parameters
from metarl.agents.policies import Layer
from metarl.agents.policies.perceptron import perceptron_layers
from metarl.learner import BaseLearner
from metarl.shrinking.neurons import Scope, importance, kept_neurons, without_neurons

Model = TypeVar("Model")


def Prune(model: Model, amount: float = 0.5, *, scope: Scope = "global") -> Model:  # noqa: N802
    """Return a copy of a model whose actor has fewer hidden neurons, those that matter least being gone.

    The network is smaller and runs faster, and everything takes it as any other: ``MetaLearner(Prune(model), family)``,
    ``learn``, ``save``. The value function keeps its size. What a learner has besides its parameters (the moments of an
    optimizer, learned step sizes) begins anew. How importance is measured stands in ``metarl.shrinking.neurons``.

    Args:
        model: a PPO or A2C model of stable-baselines3, or a learner, with a perceptron as actor (``MlpPolicy``, or what
            is behind a frozen features extractor).
        amount: the share of hidden neurons that go, in [0, 1).
        scope: ``global`` takes the least important of all layers together, ``layer`` the same share of each.

    Raises:
        ValueError: the actor has no hidden layers of this kind, or an argument is wrong.
    """
    _check(amount, scope)
    if isinstance(model, BaseLearner):
        return _pruned_learner(model, amount, scope)  # type: ignore[return-value]
    if isinstance(model, OnPolicyAlgorithm):
        return _pruned_model(model, amount, scope)  # type: ignore[return-value]
    raise ValueError(
        f"{type(model).__name__} cannot be pruned; expected a learner, or a PPO or A2C model of stable-baselines3, as "
        "PPO.load(path) returns"
    )


def _check(amount: Any, scope: Any) -> None:
    number = isinstance(amount, int | float) and not isinstance(amount, bool) and math.isfinite(amount)
    if not number or not 0 <= amount < 1:
        raise ValueError(f"amount is {amount!r}; expected a share from 0 to below 1, as 0.5; 1 would prune everything")
    if scope not in ("global", "layer"):
        raise ValueError(f"scope is {scope!r}; expected 'global' or 'layer'")


def _smaller(
    layers: list[Layer] | None, parameters: Parameters, amount: float, scope: Scope
) -> tuple[Parameters, list[int]]:
    """Return the parameters without the least important neurons, and the widths of the hidden layers."""
    if layers is None or len(layers) < 2:
        raise ValueError(
            "the actor has no hidden layers that can be pruned; expected a perceptron (MlpPolicy with tanh or relu "
            "on a flat Box, without low-rank updates), or one behind a frozen features extractor"
        )
    host = {name: value.detach().cpu() for name, value in parameters.items()}
    kept = kept_neurons(importance(layers, host), amount, scope)
    return without_neurons(layers, host, kept), [len(stays) for stays in kept]


def _pruned_learner(learner: BaseLearner, amount: float, scope: Scope) -> BaseLearner:
    state = learner.state
    parameters, widths = _smaller(learner.functional_policy.layers, state.parameters, amount, scope)
    critic = [value.shape[0] for name, value in state.critic.items() if _is_hidden(name)]
    arguments = {**learner.policy_kwargs, "net_arch": {"pi": widths, "vf": critic}}
    pruned = type(learner).from_settings(learner.given_settings, arguments, learner.functional_policy.buffers())
    pruned.state = replace(
        pruned.state,
        parameters={name: value.to(learner.device) for name, value in parameters.items()},
        critic={name: value.clone() for name, value in state.critic.items()},
        normalizer=state.normalizer,
    )
    return pruned


def _is_hidden(name: str) -> bool:
    return name.startswith("mlp_extractor.value_net.") and name.endswith(".weight")


def _pruned_model(model: OnPolicyAlgorithm, amount: float, scope: Scope) -> OnPolicyAlgorithm:
    policy = model.policy
    layers = perceptron_layers(policy) if isinstance(policy, ActorCriticPolicy) else None
    parameters, widths = _smaller(layers, dict(policy.state_dict()), amount, scope)
    assert isinstance(policy, ActorCriticPolicy)
    critic = [value.shape[0] for name, value in policy.named_parameters() if _is_hidden(name)]
    pruned = copy.copy(model)
    pruned.policy_kwargs = {**model.policy_kwargs, "net_arch": {"pi": widths, "vf": critic}}
    with torch.random.fork_rng():
        pruned.policy = type(policy)(
            policy.observation_space,
            policy.action_space,
            model.lr_schedule,
            use_sde=policy.use_sde,
            **pruned.policy_kwargs,
        ).to(model.device)
    pruned.policy.load_state_dict(parameters)
    return pruned
