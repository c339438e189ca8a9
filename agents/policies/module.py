"""Any stable-baselines3 policy as pure functions of its parameters."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.distributions import Distribution
from metarl.agents.frozen.front import Front, keep_evaluating
from metarl.agents.frozen.merged import changed_layers, merge
from metarl.agents.frozen.trained import is_critic
from metarl.agents.normalization import NormalizedExtractor, Normalizer
from metarl.agents.observations import Observations, map_observations, parts, subspaces
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.policy import Parameters, Policy
from metarl.agents.samples import Samples

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


class ModulePolicy(Policy):
    """A stable-baselines3 policy as pure functions of its actor's parameters.

    Args:
        module: the policy; it is copied, so that later changes to it have no effect here.
        log_std_min: a floor on the logarithm of the standard deviation (exploration noise), or None.
        frozen: names of parameters that are neither adapted nor trained.
        front: a frozen features extractor before the policy, or None.
        whole: the policy with the front's features extractor in it.

    Raises:
        ValueError: the policy explores with state-dependent noise, or its spaces are not supported.
    """

    def __init__(
        self,
        module: ActorCriticPolicy,
        log_std_min: float | None = None,
        *,
        frozen: frozenset[str] = frozenset(),
        front: Front | None = None,
        whole: ActorCriticPolicy | None = None,
    ) -> None:
        if module.use_sde:
            raise ValueError("state-dependent exploration (use_sde=True) is not supported; use use_sde=False")
        self.initial_module = copy.deepcopy(module)
        self.front, self._whole = front, copy.deepcopy(whole)
        self.frozen = frozen.union(() if front is None else front.tensors())
        self._copies = threading.local()
        self._names = [
            name.removeprefix("policy.")
            for name, _ in ActorModule(self.initial_module).named_parameters()
            if not is_critic(name.removeprefix("policy.")) and name.removeprefix("policy.") not in frozen
        ]
        super().__init__(module.observation_space, module.action_space, log_std_min)

    def parameters(self) -> Parameters:
        """Return a copy of the actor's initial parameters."""
        own = dict(self.initial_module.named_parameters())
        return {name: own[name].detach().clone() for name in self._names}

    def critic(self) -> Parameters:
        """Return a copy of the initial parameters that only the value function has."""
        named = self.initial_module.named_parameters()
        return {name: part.detach().clone() for name, part in named if is_critic(name)}

    def buffers(self, *, of_copy: bool = False) -> Parameters:
        """Return a copy of the buffers (such as a random projection) and of what is frozen.

        Args:
            of_copy: return those of the copy that this thread runs.
        """
        module = self._actor().policy if of_copy else self.initial_module
        assert isinstance(module, ActorCriticPolicy)
        return {name: value.detach().clone() for name, value in self._constant(module).items()}

    def _constant(self, module: ActorCriticPolicy) -> Parameters:
        """Return the tensors of a module, and of the front, that are the same for all parameters."""
        frozen = {name: value for name, value in module.named_parameters() if name in self.frozen}
        before = {} if self.front is None else self.front.tensors()
        return {**dict(module.named_buffers()), **frozen, **before}

    def with_buffers(self, buffers: Parameters) -> Self:
        """Return the policy with other buffers.

        Raises:
            ValueError: the buffers have other names or shapes than the policy's.
        """
        other = copy.deepcopy(self)
        own = other._constant(other.initial_module)
        if {name: value.shape for name, value in own.items()} != {k: v.shape for k, v in buffers.items()}:
            raise ValueError(
                f"the policy has the buffers {', '.join(own) or 'none'}, and was given {', '.join(buffers) or 'none'}, "
                "or their shapes differ; expected those of the same architecture"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(buffers[name])
        return other

    def norms(self) -> frozenset[str]:
        """Return the names of the parameters of normalisation layers, such as ``torch.nn.LayerNorm``."""
        layers = [name for name, layer in self.initial_module.named_modules() if isinstance(layer, NORMS)]
        return frozenset(name for name in self._names if name.rpartition(".")[0] in layers)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``, without the copies that threads run."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, without copies."""
        self.__dict__.update(state)
        self._copies = threading.local()

    def distribution(self, parameters: Parameters, samples: Samples) -> Distribution:
        """Return the distribution over actions at each sample; see ``Policy``."""
        output = self.output(parameters, samples.observations)
        log_std = self.log_std(parameters)
        return self.head(output, None if log_std is None else log_std.expand_as(output))

    def log_std(self, parameters: Parameters) -> Tensor | None:
        """Return the logarithm of the exploration noise, trained or frozen, without its floor; None of choices."""
        if "log_std" in self.frozen:
            frozen = self.initial_module.get_parameter("log_std").detach()
            return frozen.to(next(iter(parameters.values())))
        return parameters.get("log_std")

    def output(self, parameters: Parameters, observations: Observations) -> Tensor:
        """Return the last layer's output ``[sample, output]`` for observations ``[sample, *obs]``."""
        named = {f"policy.{name}": parameter for name, parameter in parameters.items()}
        actor = self._actor(_device_of(parameters))
        return torch.func.functional_call(actor, named, (observations,))  # type: ignore[no-any-return]

    def _actor(self, device: torch.device | None = None) -> nn.Module:
        """Return this thread's copy of the module, since ``functional_call`` temporarily swaps its parameters."""
        copies: dict[torch.device, nn.Module] = self._copies.__dict__.setdefault("actors", {})
        chosen = torch.device("cpu") if device is None else device
        if chosen not in copies:
            copies[chosen] = ActorModule(copy.deepcopy(self.initial_module)).to(chosen)
        return copies[chosen]

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor with these shared or stacked parameters, which uses ``vmap``; see ``Policy``."""
        actor = ModuleActor(self, parameters, normalizer or Normalizer())
        return actor.after(self.front, _device_of(parameters))

    def module(
        self,
        parameters: Parameters,
        critic: Parameters | None = None,
        normalizer: Normalizer | None = None,
        device: str | torch.device = "cpu",
    ) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy of its own with parameters in it; see ``Policy``."""
        with torch.inference_mode(False):  # a policy that can be trained, whatever the caller has switched off
            module = copy.deepcopy(self.initial_module if self._whole is None else self._whole)
        own = dict(module.named_parameters())
        with torch.inference_mode(False), torch.no_grad():
            if self.front is not None:
                behind = self.initial_module.state_dict()
                module.load_state_dict({**self.front.tensors(), **behind}, strict=False)
            for name, value in {**parameters, **(critic or {})}.items():
                own[name].copy_(self.floored(value) if name == "log_std" else value)
            updated = tuple(f"{name}." for name in changed_layers(module))
            merge(module)
        if normalizer is not None and normalizer.observations:
            _warn_of_rounding(self.observation_space, normalizer)
            _normalize_inside(module, normalizer)
        for name, part in module.named_parameters():
            part.requires_grad_(name not in self.frozen or name.startswith(updated))
        if self.front is not None:
            keep_evaluating(module.features_extractor)
        module.set_training_mode(False)
        return module.to(device)

    def behind_front(self, module: ActorCriticPolicy) -> ActorCriticPolicy:
        """Return the policy on the observations of rollouts that shares its heads with one that ``module`` returned."""
        if self.front is None:
            return module
        rest = copy.deepcopy(self.initial_module).to(module.device)
        rest.mlp_extractor, rest.value_net = module.mlp_extractor, module.value_net
        return rest


def _device_of(parameters: Parameters) -> torch.device:
    return next(iter(parameters.values())).device


def _warn_of_rounding(space: spaces.Space[Any], normalizer: Normalizer) -> None:
    """Warn where single precision, to which stable-baselines3 rounds observations first, loses what is normalised."""
    for key, part in subspaces(space).items():
        if key in normalizer.observations and part.dtype == np.float64:
            mean, scale = normalizer.numbers(key)
            if bool((mean.abs() > 1e5 * scale).any()):
                warnings.warn(
                    f"observations {key!r} have differences that are small beside their size, and stable-baselines3 "
                    "rounds observations to single precision before a policy sees them: the exported policy acts on "
                    "rounded ones; subtract a constant in the environment",
                    stacklevel=3,
                )


def _normalize_inside(module: ActorCriticPolicy, normalizer: Normalizer) -> None:
    """Put a normaliser before a policy's features extractors, in a form that stable-baselines3 can save and load."""
    arguments: dict[str, Any] = {
        "inner_class": module.features_extractor_class,
        "inner_kwargs": module.features_extractor_kwargs,
    }
    wrapped: dict[int, NormalizedExtractor] = {}
    for name in ("features_extractor", "pi_features_extractor", "vf_features_extractor"):
        inner = getattr(module, name)
        if id(inner) not in wrapped:
            wrapped[id(inner)] = NormalizedExtractor(module.observation_space, **arguments)
            wrapped[id(inner)].inner = inner
            wrapped[id(inner)].take(normalizer)
        setattr(module, name, wrapped[id(inner)])
    module.features_extractor_class = NormalizedExtractor  # type: ignore[assignment]
    module.features_extractor_kwargs = arguments


class ActorModule(nn.Module):
    """The actor of a policy, from observations to the mean of a Gaussian or logits."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Observations) -> Tensor:
        """Return the output of the last layer."""
        features = self.policy.extract_features(observations, self.policy.pi_features_extractor)
        assert isinstance(features, Tensor)
        output: Tensor = self.policy.action_net(self.policy.mlp_extractor.forward_actor(features))
        return output


class ModuleActor(Actor):
    """Acts through the policy's own modules, all tasks in one call."""

    def __init__(self, policy: ModulePolicy, parameters: Parameters, normalizer: Normalizer) -> None:
        self._policy = policy
        self._parameters = {name: value.detach() for name, value in parameters.items()}
        self._shared = all(value.shape == policy.shapes[name] for name, value in parameters.items())
        log_std = policy.log_std(self._parameters)
        if log_std is not None:
            log_std = policy.floored(log_std.reshape(-1, 1, log_std.shape[-1]))
        super().__init__(policy.action_space, None if log_std is None else log_std.cpu().numpy(), normalizer)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return the output of the last layer; see ``Actor``."""
        device = _device_of(self._parameters)
        given = map_observations(lambda part: torch.as_tensor(part, device=device), observations)
        leading = parts(given)[0].shape[:2]
        forward = self._policy.output
        with torch.no_grad():
            if self._shared:
                flat = map_observations(lambda part: part.flatten(0, 1), given)
                output = forward(self._parameters, flat).reshape(*leading, -1)
            else:
                output = torch.func.vmap(forward)(self._parameters, given)
        return output.cpu().numpy()
