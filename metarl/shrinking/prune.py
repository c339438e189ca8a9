"""Pruning of learners and of stable-baselines3's models: fewer neurons or channels, or weights that are 0 for good."""

from __future__ import annotations

import copy
import math
import numbers
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.agents import Parameters, wrap_module
from metarl.agents.frozen.extractors import ARGUMENTS, CLASS
from metarl.agents.frozen.narrow import NarrowExtractor
from metarl.agents.frozen.packed import architecture_of
from metarl.agents.frozen.trained import Trained
from metarl.agents.policies import Layer, ModulePolicy
from metarl.agents.policies.perceptron import perceptron_layers
from metarl.learner import BaseLearner
from metarl.shrinking.channels import NARROW, without_channels
from metarl.shrinking.neurons import Scope, importance, kept_neurons, without_neurons

Model = TypeVar("Model")


def Prune(  # noqa: N802
    model: Model,
    amount: float = 0.5,
    *,
    by: Literal["neurons", "channels", "weights"] = "neurons",
    scope: Scope = "global",
) -> Model:
    """Return a copy of a model whose actor has fewer hidden neurons or channels, or fewer weights that are not 0.

    Without the neurons that matter least, the network is smaller and runs faster, and everything takes it as any other:
    ``MetaLearner(Prune(model), family)``, ``learn``, ``save``. How importance is measured stands in
    ``metarl.shrinking.neurons``. So it is without the channels of convolutions, and features, of a features extractor,
    which the value function shares (``metarl.shrinking.channels``). Without the weights of least magnitude the network
    has its size, and they stay 0 in all inner and meta-updates; it is what ``policy.prune`` does to a new policy.

    The value function stays as it is. What a learner has besides its parameters (the moments of an optimizer, learned
    step sizes) begins anew.

    Args:
        model: a PPO or A2C model of stable-baselines3, or a learner, with a perceptron as actor (``MlpPolicy``, or
            what is behind a frozen features extractor).
            With ``by="channels"``, one with a convolutional features extractor that is a plain row of layers, as those
            of ``CnnPolicy`` and ``SmallCnnPolicy``, or such a policy; with ``by="weights"``, a learner with any of
            stable-baselines3's policies.
        amount: the share of hidden neurons, channels or weights that go, in [0, 1).
        by: ``neurons``, ``channels`` or ``weights``.
        scope: ``global`` takes the least important of all layers together, ``layer`` the same share of each.

    Raises:
        ValueError: the actor has no hidden layers of this kind, or an argument is wrong.
    """
    _check(amount, scope, by)
    if by == "weights":
        return _with_masks(model, amount, scope)  # type: ignore[no-any-return]
    if by == "channels":
        return _without_channels(model, amount, scope)  # type: ignore[no-any-return]
    if isinstance(model, BaseLearner):
        return _pruned_learner(model, amount, scope)  # type: ignore[return-value]
    if isinstance(model, OnPolicyAlgorithm):
        return _pruned_model(model, amount, scope)  # type: ignore[return-value]
    raise ValueError(_no_model(model))


def _no_model(model: Any) -> str:
    return (
        f"{type(model).__name__} cannot be pruned; expected a learner, or a PPO or A2C model of stable-baselines3, as "
        "PPO.load(path) returns"
    )


def _check(amount: Any, scope: Any, by: Any) -> None:
    number = not isinstance(amount, bool) and isinstance(amount, numbers.Real) and math.isfinite(amount)
    if not number or not 0 <= amount < 1:
        raise ValueError(f"amount is {amount!r}; expected a share from 0 to below 1, as 0.5; 1 would prune everything")
    if by not in ("neurons", "channels", "weights"):
        raise ValueError(f"by is {by!r}; expected 'neurons', 'channels' or 'weights'")
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
    parameters, widths = _smaller(learner.functional_policy.layers, learner.parameters, amount, scope)
    critic = [value.shape[0] for name, value in learner.state.critic.items() if _is_hidden(name)]
    arguments = {**learner.policy_kwargs, "net_arch": {"pi": widths, "vf": critic}}
    pruned = type(learner).from_settings(learner.given_settings, arguments, learner.functional_policy.buffers())
    return _taking_over(pruned, parameters, learner)


def _taking_over(
    pruned: BaseLearner, parameters: Parameters, before: BaseLearner, critic: Parameters | None = None
) -> BaseLearner:
    """Return a new learner with other parameters, and with the statistics and value function of the one before."""
    kept = before.state.critic if critic is None else critic
    pruned.state = replace(
        pruned.state,
        parameters={name: value.to(pruned.device) for name, value in parameters.items()},
        critic={name: value.clone() for name, value in kept.items()},
        normalizer=before.state.normalizer,
    )
    pruned.tasks_trained_on = before.tasks_trained_on
    return pruned


def _without_channels(model: Any, amount: float, scope: Scope) -> Any:
    if isinstance(model, BaseLearner):
        return _learner_without_channels(model, amount, scope)
    policy = model.policy if isinstance(model, OnPolicyAlgorithm) else model
    if not isinstance(policy, ActorCriticPolicy):
        raise ValueError(_no_model(model))
    pruned, _ = without_channels(policy, amount, scope)
    if model is policy:
        return pruned
    found = copy.copy(model)
    found.policy, found.policy_kwargs = pruned, architecture_of(pruned)
    return found


def _learner_without_channels(learner: BaseLearner, amount: float, scope: Scope) -> BaseLearner:
    policy = learner.functional_policy
    if not isinstance(policy, ModulePolicy):
        raise ValueError(f"a {type(policy).__name__} has no channels to prune; expected CnnPolicy or the like")
    settings = learner.given_settings
    chosen = {**settings.policy.arguments(), **learner.policy_kwargs}
    given = {name: chosen[key] for name, key in (("inner", CLASS), ("inner_kwargs", ARGUMENTS)) if chosen.get(key)}
    module, arguments = without_channels(policy.module(learner.parameters, learner.state.critic), amount, scope, given)
    kwargs = {key: value for key, value in learner.policy_kwargs.items() if key not in (CLASS, ARGUMENTS)}
    if isinstance(arguments["inner"], str):  # settings hold what a file can
        network = replace(settings.policy, features_extractor_class=NARROW, features_extractor_kwargs=arguments)
        settings = replace(settings, policy=network)
    else:
        kwargs |= {CLASS: NarrowExtractor, ARGUMENTS: arguments}
    tensors = module.state_dict()
    pruned = type(learner).from_settings(settings, kwargs)
    buffers = {name: tensors.get(name, value) for name, value in pruned.functional_policy.buffers().items()}
    pruned = type(learner).from_settings(settings, kwargs, buffers)
    # The module has the floor applied to the exploration noise; the learner's own value is kept.
    own = {name: tensors[name] for name in pruned.functional_policy.shapes}
    noise = {name: part for name, part in learner.parameters.items() if name == "log_std"}
    return _taking_over(pruned, {**own, **noise}, learner, _named_as(pruned.state.critic, tensors))


def _named_as(names: Parameters, tensors: Parameters) -> Parameters:
    return {name: tensors[name] for name in names}


def _with_masks(model: Any, amount: float, scope: Scope) -> Any:
    """Return a learner of which a share of the weights is 0 for good."""
    if not isinstance(model, BaseLearner):
        raise ValueError(
            f"{type(model).__name__} cannot keep weights at 0 while it learns; expected a learner, as "
            f"MAML.from_pretrained(model, family, policy_kwargs={{'prune': {amount}}})"
        )
    policy = model.functional_policy
    if not isinstance(policy, ModulePolicy) or policy.front is not None or policy.frozen:
        raise ValueError(
            f"the weights of a {type(policy).__name__} with frozen parts, low-rank updates or a memory are not pruned; "
            "prune a learner with MlpPolicy, CnnPolicy or MultiInputPolicy"
        )
    module = policy.module(model.parameters, model.state.critic)
    masked = wrap_module(module, policy.log_std_min, Trained(prune=amount, prune_scope=scope))
    chosen = replace(model.given_settings.policy, prune=float(amount), prune_scope=scope)
    settings = replace(model.given_settings, policy=chosen)
    pruned = type(model).from_settings(settings, model.policy_kwargs, masked.buffers())
    # The module has the floor applied to the exploration noise; the learner's own value is kept.
    noise = {name: part for name, part in model.parameters.items() if name == "log_std"}
    return _taking_over(pruned, {**masked.parameters(), **noise}, model)


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
