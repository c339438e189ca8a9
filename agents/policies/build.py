"""Making new policies: by name, or of your own class."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.frozen.extractors import with_extractor
from metarl.agents.frozen.front import Front, behind
from metarl.agents.frozen.lora import add_lora, lora_layers
from metarl.agents.frozen.masked import add_masks
from metarl.agents.frozen.trained import ALL_TRAINED, EXTRACTOR, Trained, is_critic
from metarl.agents.observations import channels_first, subspaces
from metarl.agents.policies.changed_perceptron import ChangedPerceptronPolicy, is_changed_perceptron
from metarl.agents.policies.module import ActorModule, ModulePolicy
from metarl.agents.policies.perceptron import PerceptronPolicy, perceptron_layers
from metarl.agents.policies.policy import Policy
from metarl.agents.policies.recurrent import ACTIVATIONS, GruPolicy
from metarl.agents.policies.soundness import refuse_unsound_modules, refuse_unsound_policy
from metarl.agents.seeded import Seeded
from metarl.agents.small_images import SmallCnnPolicy

MODULES: dict[str, type[ActorCriticPolicy]] = {
    "MlpPolicy": ActorCriticPolicy,
    "CnnPolicy": ActorCriticCnnPolicy,
    "SmallCnnPolicy": SmallCnnPolicy,
    "MultiInputPolicy": MultiInputActorCriticPolicy,
}
POLICIES: dict[str, type[ActorCriticPolicy] | type[Policy]] = {**MODULES, "GruPolicy": GruPolicy}
# What stable-baselines3 calls to act, where metarl puts the actor's parts together itself; the last one it does not
# call either in ``predict``, so that an adapted policy would act otherwise than it learned.
_NOT_RUN = ("forward", "get_distribution", "_get_action_dist_from_latent", "_predict", "extract_features")


def wrap_module(
    module: ActorCriticPolicy, log_std_min: float | None = None, trained: Trained = ALL_TRAINED
) -> ModulePolicy:
    """Return a stable-baselines3 policy as pure functions of the parameters that are trained.

    Args:
        module: the policy; it is copied.
        log_std_min: a floor on the logarithm of the standard deviation, or None.
        trained: what of it is trained.

    Raises:
        ValueError: the policy explores with state-dependent noise, or has modules that updates do not support; or it
            lacks what ``trained`` names.
    """
    if trained.prune and trained.lora_rank:
        raise ValueError(
            f"policy.prune is {trained.prune} and policy.lora_rank {trained.lora_rank}; low-rank updates would fill in "
            "the weights that are pruned, so leave one of them out"
        )
    trained.refuse_idle()
    if trained.prune:
        module = add_masks(module, trained.prune, trained.prune_scope)
    if trained.lora_rank:
        module = add_lora(module, trained.lora_rank, trained.lora_layers, trained.seed)
    names = [name.removeprefix("policy.") for name, _ in ActorModule(module).named_parameters()]
    names = [name for name in names if not is_critic(name)]
    frozen, updated = trained.frozen(names), lora_layers(module)
    frozen |= {name for name in names for layer in updated if name in (f"{layer}.weight", f"{layer}.bias")}
    extracting = {name for name in names if name.startswith(EXTRACTOR)}
    if trained.freeze == "extractor" or (extracting and extracting <= frozen):
        return _behind_front(module, log_std_min, frozen - extracting, trained)
    trained.refuse_half()
    return _wrapped(module, log_std_min, frozen)


def _wrapped(
    module: ActorCriticPolicy,
    log_std_min: float | None,
    frozen: frozenset[str],
    front: Front | None = None,
    whole: ActorCriticPolicy | None = None,
) -> ModulePolicy:
    """Return a perceptron for the fast path where nothing of it is frozen, else any policy that updates support."""
    if perceptron_layers(module) is not None and not frozen:
        return PerceptronPolicy(module, log_std_min, front=front, whole=whole)
    if is_changed_perceptron(module):
        return ChangedPerceptronPolicy(module, log_std_min, frozen=frozen, front=front, whole=whole)
    refuse_unsound_modules(module)
    policy = ModulePolicy(module, log_std_min, frozen=frozen, front=front, whole=whole)
    refuse_unsound_policy(policy)
    return policy


def _behind_front(
    module: ActorCriticPolicy, log_std_min: float | None, frozen: frozenset[str], trained: Trained
) -> ModulePolicy:
    """Return the policy behind a policy's features extractor, which is frozen."""
    within = [name for name in lora_layers(module) if name.startswith(EXTRACTOR)]
    if within:
        raise ValueError(
            f"policy.freeze freezes the features extractor, and policy.lora_rank updates its layer {within[0]!r}, so "
            "that what is frozen would depend on what adapts; leave freeze out, since the layers with updates are "
            "frozen, or choose layers behind it, as policy.lora_layers = ['mlp_extractor.*', 'action_net']"
        )
    front = Front(module.observation_space, module.pi_features_extractor, half=trained.half)
    return _wrapped(behind(module, front), log_std_min, frozen, front, module)


def find_policy_class(name: str) -> type[ActorCriticPolicy] | type[Policy]:
    """Return a policy's class: stable-baselines3's by its short name, or your own by ``module:Class``.

    Raises:
        ValueError: there is no class with that name, or it is not a policy.
    """
    module, separator, attribute = name.partition(":")
    if not separator:
        if name in POLICIES:
            return POLICIES[name]
        is_family = "/" in name or re.search(r"-v\d+$", name)
        hint = f"; the family is the second argument: ('MlpPolicy', {name!r})" if is_family else ""
        raise ValueError(
            f"unknown policy {name!r}; expected one of {', '.join(POLICIES)}, or 'module:Class' for one of your own"
            f"{hint}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"policy {name!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, ActorCriticPolicy | Policy):
        raise ValueError(
            f"policy {name!r} is no policy; expected a subclass of stable-baselines3's ActorCriticPolicy or of "
            "metarl.agents.Policy"
        )
    if issubclass(found, Policy) and found.build.__func__ is Policy.build.__func__:  # type: ignore[attr-defined]
        raise ValueError(f"policy {name!r} has no class method build, which makes it; give it one")
    overridden = [
        method for method in _NOT_RUN if getattr(found, method, None) is not getattr(ActorCriticPolicy, method)
    ]
    if issubclass(found, ActorCriticPolicy) and overridden:
        raise ValueError(
            f"policy {name!r} overrides {overridden[0]}, which would not be run everywhere: an actor is its features "
            "extractor, mlp_extractor and action_net here; change those, or write a subclass of metarl.agents.Policy"
        )
    return found


def build_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    name: str,
    seed: int,
    hidden_sizes: Sequence[int],
    activation: str,
    output_gain: float,
    log_std_init: float,
    log_std_min: float | None,
    trained: Trained = ALL_TRAINED,
    **policy_kwargs: Any,
) -> Policy:
    """Make a new policy by name, with Xavier-uniform weights in the actor's linear layers.

    The actor's last layer is scaled by ``output_gain``; biases are 0. The global random state is not changed. For a
    subclass of ``Policy``, its own ``build`` makes the policy.

    Args:
        observation_space: of the family.
        action_space: of the family.
        name: ``MlpPolicy``, ``CnnPolicy``, ``SmallCnnPolicy``, ``MultiInputPolicy``, ``GruPolicy``, or
            ``module:Class``, a subclass of stable-baselines3's ``ActorCriticPolicy`` or of ``metarl.agents.Policy``.
        seed: of the initial weights.
        hidden_sizes: widths of the actor's hidden layers.
        activation: ``tanh`` or ``relu``.
        output_gain: the factor on the last layer's initial weights.
        log_std_init: initial logarithm of the standard deviation.
        log_std_min: its floor, or None.
        trained: what of it is trained; a subclass of ``Policy`` gets it as an argument only if it is not all.
        policy_kwargs: further arguments of stable-baselines3's policy, which override those above.

    Raises:
        ValueError: the policy is unknown, or does not support the spaces or arguments.
    """
    kind = find_policy_class(name)
    policy_kwargs = with_extractor(policy_kwargs)
    if kind is GruPolicy:
        _refuse_spaces(observation_space, action_space)
    if issubclass(kind, Policy):
        _refuse_trained(name, kind, trained)
        if trained != replace(ALL_TRAINED, seed=trained.seed):
            policy_kwargs["trained"] = trained
        return kind.build(
            observation_space,
            action_space,
            seed=seed,
            hidden_sizes=hidden_sizes,
            activation=activation,
            output_gain=output_gain,
            log_std_init=log_std_init,
            log_std_min=log_std_min,
            **policy_kwargs,
        )
    _refuse_spaces(observation_space, action_space)
    if name in MODULES and isinstance(observation_space, spaces.Dict) != (name == "MultiInputPolicy"):
        raise ValueError(
            f"policy {name!r} does not take observations of type {type(observation_space).__name__}; use "
            f"{'MultiInputPolicy' if isinstance(observation_space, spaces.Dict) else 'MlpPolicy'!r}"
        )
    arguments: dict[str, Any] = {
        "net_arch": {"pi": list(hidden_sizes), "vf": list(hidden_sizes)},
        "activation_fn": ACTIVATIONS[activation],
        "log_std_init": log_std_init,
        "ortho_init": False,
        **policy_kwargs,
    }
    _refuse_arguments(name, kind, policy_kwargs)
    with Seeded(seed):
        try:
            seen = channels_first(observation_space)
            # The single precision of stable-baselines3's observations, whatever torch's default type is.
            module = kind(seen, action_space, lambda _: 3e-4, **arguments).float()
        except (TypeError, KeyError, AssertionError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = "; SmallCnnPolicy takes small images, also of real numbers" if name == "CnnPolicy" else ""
            raise ValueError(f"{name} cannot be made with {arguments}: {reason}{hint}") from error
        if isinstance(observation_space, spaces.Box) and not observation_space.shape:
            module.features_extractor.flatten = Rows()
        for part in (module.mlp_extractor.policy_net, module.action_net):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, gain=output_gain if part is module.action_net else 1.0)
                    nn.init.zeros_(layer.bias)
    return wrap_module(module, log_std_min, trained)


class Rows(nn.Module):
    """Numbers without a dimension as rows of one, which torch's ``Flatten`` does not make of them."""

    def forward(self, numbers: Tensor) -> Tensor:
        """Return ``[row]`` as ``[row, 1]``."""
        return numbers.reshape(len(numbers), -1)


def _refuse_trained(name: str, kind: type[Policy], trained: Trained) -> None:
    """Refuse settings of what is trained that a policy of one's own class does not take."""
    trained.refuse_idle()
    takes = "trained" in inspect.signature(kind.build).parameters
    if trained.lora_rank and (kind is GruPolicy or not takes):
        raise ValueError(
            f"policy.lora_rank is {trained.lora_rank}, and policy {name!r} has no low-rank updates; use one of "
            f"{', '.join(MODULES)}"
        )
    if trained.prune and (kind is GruPolicy or not takes):
        raise ValueError(
            f"policy.prune is {trained.prune}, and the weights of policy {name!r} are not pruned; use one of "
            f"{', '.join(MODULES)}"
        )
    if trained.freeze != "none" and not takes:
        raise ValueError(
            f"policy.freeze is {trained.freeze!r}, and policy {name!r} does not take it; give its class method build "
            "the argument trained"
        )


def _refuse_spaces(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Refuse spaces that metarl's policies do not support.

    Raises:
        ValueError: there is such a space.
    """
    for key, space in subspaces(observation_space).items():
        if isinstance(observation_space, spaces.Dict) and ("." in key or not key or hasattr(nn.ModuleDict(), key)):
            raise ValueError(
                f"observations have the key {key!r}, which torch takes for no name of a module; rename it, without dots"
            )
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(
                f"observations of type {type(space).__name__} are not supported; expected Box, Discrete, "
                "MultiDiscrete, MultiBinary or a Dict of them (gymnasium.wrappers.FlattenObservation flattens others)"
            )
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start != 0):
            raise ValueError(f"observations of {space} are not supported; use a space whose values start at 0")
        if isinstance(space, spaces.Box) and not space.shape and isinstance(observation_space, spaces.Dict):
            raise ValueError(
                f"observations have the key {key!r}, of {space}, which stable-baselines3's policies cannot put beside "
                "others; give it a dimension, as in the shape (1,)"
            )
        _refuse_shape("observations", space)
    _refuse_shape("actions", action_space)
    if isinstance(action_space, spaces.Box) and action_space.dtype.kind != "f":
        raise ValueError(f"actions of {action_space} are not supported; use MultiDiscrete for whole numbers")
    if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise ValueError(
            f"actions of type {type(action_space).__name__} are not supported; expected Box, Discrete or MultiDiscrete"
        )


def _refuse_shape(what: str, space: spaces.Space[Any]) -> None:
    """Refuse spaces without numbers, and tables of whole numbers, which stable-baselines3's policies do not take."""
    if 0 in (space.shape or ()):
        raise ValueError(f"{what} of {space} have no numbers; expected at least one, as in the shape (1,)")
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise ValueError(
            f"{what} of {' '.join(str(space).split())} are not supported; put the whole numbers in one row, as in "
            f"MultiDiscrete({space.nvec.ravel().tolist()})"
        )


def _refuse_arguments(name: str, kind: type[ActorCriticPolicy], arguments: dict[str, Any]) -> None:
    """Refuse arguments that a policy does not take, and the usual mistakes in those that it takes."""
    known = inspect.signature(kind).parameters
    settings = ("hidden_sizes", "activation", "output_gain", "log_std_init", "log_std_min")
    spaces_and_schedule = ("observation_space", "action_space", "lr_schedule")
    names = [*settings, *(key for key in known if key not in (*settings, *spaces_and_schedule))]
    open_ended = any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in known.values())
    for key, value in arguments.items():
        if key not in known and not open_ended:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
            hint = f"the nearest is {near[0]!r}" if near else f"expected one of {', '.join(names)}"
            raise ValueError(f"policy_kwargs has {key!r}, which {name} does not take; {hint}")
        if key == "net_arch" and not isinstance(value, list | dict):
            raise ValueError(f"net_arch is {value!r}; expected a list or a dict, as in [64, 64], or give hidden_sizes")
        if key == "activation_fn" and not callable(value):
            raise ValueError(f"activation_fn is {value!r}; expected a class such as torch.nn.Tanh, or give activation")
