"""Policies: stable-baselines3's, run as functions of their parameters, one set of parameters per task.

Parameters are ``dict[str, Tensor]`` with stable-baselines3's names, of the actor only; stacked parameters have a
leading task axis.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn

from metarl.agents.distributions import Distribution, action_distribution
from metarl.agents.normalization import NormalizedExtractor, Normalizer
from metarl.agents.observations import Observations, channels_first, map_observations, parts, subspaces

Parameters = dict[str, Tensor]
Policies = {
    "MlpPolicy": ActorCriticPolicy,
    "CnnPolicy": ActorCriticCnnPolicy,
    "MultiInputPolicy": MultiInputActorCriticPolicy,
}
Activations: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
_NUMPY_ACTIVATIONS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Tanh: np.tanh,
    nn.ReLU: lambda x, out: np.maximum(x, 0.0, out=out),
}
_CRITIC = ("value_net.", "mlp_extractor.value_net.", "vf_features_extractor.")
_AS_GIVEN = Normalizer()


def is_critic(name: str) -> bool:
    """Whether a parameter of a stable-baselines3 policy, by its name, serves its value function only."""
    return name.startswith(_CRITIC)


@dataclass(frozen=True)
class Layer:
    """A linear layer of a perceptron by the names of its parameters, and what follows it."""

    weight: str
    bias: str
    activation: type[nn.Module] | None


class Policy:
    """A stable-baselines3 policy as pure functions of its actor's parameters.

    Args:
        module: the policy; it is copied, so that later changes to it have no effect here.
        log_std_min: a floor on the logarithm of the standard deviation (exploration noise), or None.

    Raises:
        ValueError: the policy explores with state-dependent noise, or its spaces are not supported.
    """

    def __init__(self, module: ActorCriticPolicy, log_std_min: float | None = None) -> None:
        if module.use_sde:
            raise ValueError("state-dependent exploration (use_sde=True) is not supported; use use_sde=False")
        self.observation_space = module.observation_space
        self.action_space = module.action_space
        self.log_std_min = log_std_min
        self._module = copy.deepcopy(module)
        self._copies = threading.local()
        self.layers = _perceptron(self._module)
        actor = _Actor(self._module)
        self._names = [
            name.removeprefix("policy.")
            for name, _ in actor.named_parameters()
            if not is_critic(name.removeprefix("policy."))
        ]
        self.shapes = {name: value.shape for name, value in self.parameters().items()}

    def parameters(self) -> Parameters:
        """Return a copy of the actor's parameters as the policy was made with."""
        own = dict(self._module.named_parameters())
        return {name: own[name].detach().clone() for name in self._names}

    def critic(self) -> Parameters:
        """Return a copy of the value function's own parameters."""
        return {name: part.detach().clone() for name, part in self._module.named_parameters() if is_critic(name)}

    def set_critic(self, parameters: Parameters) -> None:
        """Take over the value function's own parameters.

        Raises:
            KeyError: one is missing.
            RuntimeError: one has another shape.
        """
        own = dict(self._module.named_parameters())
        with torch.no_grad():
            for name in self.critic():
                own[name].copy_(parameters[name])

    def distribution(self, parameters: Parameters, observations: Observations) -> Distribution:
        """Return the distribution over actions: a differentiable, pure function of parameters and observations.

        Args:
            parameters: of one task, without a task axis.
            observations: ``[sample, *obs]``, in the observation space's own type.
        """
        output = self._forward(parameters, observations)
        log_std = parameters.get("log_std")
        return self.head(output, None if log_std is None else log_std.expand_as(output))

    def head(self, output: Tensor, log_std: Tensor | None) -> Distribution:
        """Return the distribution that the last layer's output ``[..., output]`` stands for; the floor is applied."""
        return action_distribution(self.action_space, output, None if log_std is None else self.floored(log_std))

    def need_perceptron(self, purpose: str, instead: str) -> None:
        """Raise an error where the policy is no perceptron.

        Args:
            purpose: what needs one, the subject of the message.
            instead: what to do where there is none, its end.

        Raises:
            ValueError: the policy has no ``layers``.
        """
        if self.layers is None:
            raise ValueError(
                f"{purpose} needs a perceptron (MlpPolicy with tanh or relu on a flat Box), and this policy is none, "
                f"on {self.observation_space}; {instead}"
            )

    def floored(self, log_std: Tensor) -> Tensor:
        """Return a logarithm of the standard deviation with the floor applied."""
        return log_std if self.log_std_min is None else log_std.clamp(min=self.log_std_min)

    def features(self, observations: Observations) -> Tensor:
        """Return observations ``[task, episode, time, *obs]`` as vectors ``[task, episode, time, feature]``.

        What the return baseline reads: one-hot for a discrete space, flat for a box, nothing of an image (whose
        baseline depends on time alone), and all of that side by side for a Dict.
        """
        given = observations if isinstance(observations, dict) else {"": observations}
        leading = next(iter(given.values())).shape[:3]
        vectors = []
        for key, space in subspaces(self.observation_space).items():
            if is_image_space(space):
                vectors.append(given[key].new_zeros((*leading, 0), dtype=torch.float32))
                continue
            encoded = preprocess_obs(given[key].flatten(0, 2), space, normalize_images=True)
            assert isinstance(encoded, Tensor)
            vectors.append(encoded.reshape(*leading, -1))
        return torch.cat(vectors, dim=-1)

    def _forward(self, parameters: Parameters, observations: Observations) -> Tensor:
        if self.layers is not None:
            assert isinstance(observations, Tensor)
            hidden = observations.to(parameters[self.layers[0].weight].dtype).flatten(1)
            for layer in self.layers:
                hidden = nn.functional.linear(hidden, parameters[layer.weight], parameters[layer.bias])
                if layer.activation is not None:
                    hidden = torch.tanh(hidden) if layer.activation is nn.Tanh else torch.relu(hidden)
            return hidden
        named = {f"policy.{name}": parameter for name, parameter in parameters.items()}
        return torch.func.functional_call(self._actor(), named, (observations,))  # type: ignore[no-any-return]

    def _actor(self) -> nn.Module:
        """Return this thread's copy of the module: ``functional_call`` swaps parameters in and out of it."""
        if not hasattr(self._copies, "actor"):
            self._copies.actor = _Actor(copy.deepcopy(self._module))
        actor: nn.Module = self._copies.actor
        return actor

    def actor(self, parameters: Parameters, normalizer: Normalizer = _AS_GIVEN) -> Actor:
        """Return what acts in the environments with parameters, shared (no task axis) or stacked.

        It takes observations as the environments give them and normalises them itself.

        Perceptrons act in numpy, one batched matrix product a layer; other policies act through ``vmap``.
        """
        kind = PerceptronActor if self.layers is not None else ModuleActor
        return kind(self, parameters, normalizer)

    def module(
        self, parameters: Parameters, normalizer: Normalizer = _AS_GIVEN, device: str | torch.device = "cpu"
    ) -> ActorCriticPolicy:
        """Return a stable-baselines3 policy of its own with parameters (no task axis) in its actor.

        It takes observations as the environment gives them: a normaliser's statistics become part of its features
        extractor. The floor on the noise is folded into ``log_std``.
        """
        module = copy.deepcopy(self._module)
        own = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in parameters.items():
                own[name].copy_(self.floored(value) if name == "log_std" else value)
        if normalizer.observations:
            _normalize_inside(module, normalizer)
        module.set_training_mode(False)
        return module.to(device)


def _normalize_inside(module: ActorCriticPolicy, normalizer: Normalizer) -> None:
    """Put a normaliser before a policy's features extractors, so that stable-baselines3 can make it again."""
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


class _Actor(nn.Module):
    """The part of a policy that decides on actions: the mean of a Gaussian, or logits."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Observations) -> Tensor:
        features = self.policy.extract_features(observations, self.policy.pi_features_extractor)
        assert isinstance(features, Tensor)
        output: Tensor = self.policy.action_net(self.policy.mlp_extractor.forward_actor(features))
        return output


def _perceptron(module: ActorCriticPolicy) -> list[Layer] | None:
    """Return a policy's layers where it is a plain perceptron on a flat box, else None."""
    box = module.observation_space
    if not isinstance(box, spaces.Box) or box.dtype.kind != "f":
        return None
    if type(module.pi_features_extractor) is not FlattenExtractor:
        return None
    layers: list[Layer] = []
    for name, part in module.mlp_extractor.policy_net.named_children():
        prefix = f"mlp_extractor.policy_net.{name}"
        if isinstance(part, nn.Linear) and part.bias is not None:
            layers.append(Layer(f"{prefix}.weight", f"{prefix}.bias", None))
        elif type(part) in _NUMPY_ACTIVATIONS and layers and layers[-1].activation is None:
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, type(part))
        else:
            return None
    if not isinstance(module.action_net, nn.Linear):
        return None
    return [*layers, Layer("action_net.weight", "action_net.bias", None)]


class Noise:
    """A task's action noise for all its episodes and steps: drawn in order, so grouping changes nothing.

    Args:
        rngs: a generator for each task.
        episodes: of each task.
        action_space: of the family.
        choices: how many numbers a step has beside those of the action, last.
    """

    CHUNK = 50

    def __init__(
        self, rngs: Sequence[np.random.Generator], episodes: int, action_space: spaces.Space[Any], choices: int = 0
    ) -> None:
        self._rngs = rngs
        self._episodes = episodes
        self._box = isinstance(action_space, spaces.Box)
        if isinstance(action_space, spaces.Box | spaces.MultiDiscrete):
            self._width = int(np.prod(action_space.shape))
        else:
            self._width = 1
        self._width += choices
        self._chunk: NDArray[np.float32] = np.empty((0, 0, 0, 0), dtype=np.float32)

    def at(self, step: int) -> NDArray[np.float32]:
        """Return the noise of a step, ``[task, episode, action]``: normal for a box, else uniform in [0, 1)."""
        position = step % self.CHUNK
        if position == 0:
            shape = (self.CHUNK, self._episodes, self._width)
            draws = [
                rng.standard_normal(shape, dtype=np.float32) if self._box else rng.random(shape, dtype=np.float32)
                for rng in self._rngs
            ]
            self._chunk = np.stack(draws, axis=1)
        noise: NDArray[np.float32] = self._chunk[position]
        return noise


class Actor:
    """Draws actions for ``[task, episode]`` sub-environments, each task with its own parameters."""

    choices: ClassVar[int] = 0  # numbers of a step's noise beside those of the action

    def __init__(self, policy: Policy, log_std: NDArray[Any] | None, normalizer: Normalizer) -> None:
        self._space = policy.action_space
        self._normalizer = normalizer
        self._spread = None if log_std is None else spread(log_std)  # [task or 1, 1, action], the floor applied

    def noise(self, rngs: Sequence[np.random.Generator], episodes: int) -> Noise:
        """Return the noise of ``act`` for episodes of tasks, each with a generator of its own."""
        return Noise(rngs, episodes, self._space, self.choices)

    def act(self, observations: Any, noise: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return actions ``[task, episode, *action]`` and their log-probabilities ``[task, episode]``.

        Args:
            observations: ``[task, episode, *obs]``, arrays.
            noise: ``[task, episode, action]``, from ``noise``.
        """
        return draw(self._space, self.output(self._normalizer.observe(observations)), self._spread, noise)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return what the last layer says, ``[task, episode, output]``."""
        raise NotImplementedError


Spread = tuple[NDArray[Any], NDArray[Any]]


def spread(log_std: NDArray[Any]) -> Spread:
    """Return the standard deviation of a box's policy and the logarithm of the volume that normalises its density."""
    return np.exp(log_std), (log_std + np.float32(0.5 * np.log(2 * np.pi))).sum(axis=-1)


def draw(
    space: spaces.Space[Any], output: NDArray[Any], spread: Spread | None, noise: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return actions ``[task, episode, *action]`` and their log-probabilities, made of a last layer's output and noise.

    Args:
        space: of the actions.
        output: ``[task, episode, output]``, a box's mean or logits.
        spread: of a box's policy.
        noise: ``[task, episode, action]``, from ``Noise``.
    """
    if isinstance(space, spaces.Box):
        assert spread is not None
        std, log_volume = spread
        actions = std * noise
        actions += output
        log_probs = np.float32(-0.5) * np.einsum("...a,...a->...", noise, noise)
        log_probs -= log_volume
        return actions.reshape(*actions.shape[:2], *space.shape), log_probs
    if isinstance(space, spaces.MultiDiscrete):
        ends = np.cumsum(space.nvec)
        chosen = [
            choose(output[..., end - n : end], noise[..., i])
            for i, (n, end) in enumerate(zip(space.nvec, ends, strict=True))
        ]
        actions = np.stack([choice for choice, _ in chosen], axis=-1)
        return actions, np.sum([log_prob for _, log_prob in chosen], axis=0)
    return choose(output, noise[..., 0])


def choose(logits: NDArray[Any], uniform: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return choices ``[...]`` by logits ``[..., choice]`` and uniform numbers, and their log-probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    cumulative = np.exp(log_probs).cumsum(axis=-1)
    choice = (uniform[..., None] * cumulative[..., -1:] >= cumulative).sum(axis=-1)
    choice = np.minimum(choice, logits.shape[-1] - 1)
    return choice, np.take_along_axis(log_probs, choice[..., None], axis=-1)[..., 0]


class PerceptronActor(Actor):
    """Acts in numpy."""

    def __init__(self, policy: Policy, parameters: Parameters, normalizer: Normalizer) -> None:
        assert policy.layers is not None
        shared = parameters[policy.layers[-1].bias].dim() == 1
        host = {name: value.detach().cpu().numpy() for name, value in parameters.items()}
        if shared:
            host = {name: value[None] for name, value in host.items()}
        self._layers = [
            (
                np.ascontiguousarray(host[layer.weight].swapaxes(-1, -2)),
                host[layer.bias][:, None, :],
                _NUMPY_ACTIVATIONS.get(layer.activation) if layer.activation is not None else None,
            )
            for layer in policy.layers
        ]
        self._outputs = [np.empty((0, 0, 0))]  # of the layers, used again at each step
        self._biases: list[NDArray[Any]] = []
        log_std = host["log_std"][:, None, :] if "log_std" in host else None
        if log_std is not None and policy.log_std_min is not None:
            log_std = np.maximum(log_std, policy.log_std_min)
        super().__init__(policy, log_std, normalizer)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return what the last layer says; see ``Actor``."""
        hidden = observations.reshape(*observations.shape[:2], -1).astype(self._layers[0][0].dtype, copy=False)
        if self._outputs[0].shape[:2] != hidden.shape[:2]:
            shapes = [(*hidden.shape[:2], weight.shape[-1]) for weight, _, _ in self._layers]
            self._outputs = [np.empty(shape, hidden.dtype) for shape in shapes]
            # Laid out whole: adding along a middle axis takes twice as long.
            self._biases = [
                np.ascontiguousarray(np.broadcast_to(bias, shape))
                for (_, bias, _), shape in zip(self._layers, shapes, strict=True)
            ]
        for (weight, _, activation), bias, into in zip(self._layers, self._biases, self._outputs, strict=True):
            hidden = np.matmul(hidden, weight, out=into)
            hidden += bias
            if activation is not None:
                hidden = activation(hidden, out=hidden)
        output: NDArray[Any] = hidden
        return output


class ModuleActor(Actor):
    """Acts through the policy's own modules, all tasks in one call."""

    def __init__(self, policy: Policy, parameters: Parameters, normalizer: Normalizer) -> None:
        self._policy = policy
        self._parameters = {name: value.detach() for name, value in parameters.items()}
        self._shared = parameters["action_net.bias"].dim() == 1
        log_std = self._parameters.get("log_std")
        if log_std is not None:
            log_std = policy.floored(log_std[None] if self._shared else log_std)[:, None, :]
        super().__init__(policy, None if log_std is None else log_std.cpu().numpy(), normalizer)

    def output(self, observations: Any) -> NDArray[Any]:
        """Return what the last layer says; see ``Actor``."""
        device = next(iter(self._parameters.values())).device
        given = map_observations(lambda part: torch.as_tensor(part, device=device), observations)
        leading = parts(given)[0].shape[:2]
        forward = self._policy._forward
        with torch.no_grad():
            if self._shared:
                flat = map_observations(lambda part: part.flatten(0, 1), given)
                output = forward(self._parameters, flat).reshape(*leading, -1)
            else:
                output = torch.func.vmap(forward)(self._parameters, given)
        return output.cpu().numpy()


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
    **policy_kwargs: Any,
) -> Policy:
    """Make a new policy: stable-baselines3's by name, with Xavier-uniform weights in the actor's linear layers.

    The actor's last layer is scaled by ``output_gain``; biases are 0. The global random state is left alone.

    Args:
        observation_space: of the family.
        action_space: of the family.
        name: ``MlpPolicy``, ``CnnPolicy`` or ``MultiInputPolicy``.
        seed: of the initial weights.
        hidden_sizes: widths of the actor's hidden layers.
        activation: ``tanh`` or ``relu``.
        output_gain: what the last layer's initial weights are multiplied by.
        log_std_init: initial logarithm of the standard deviation.
        log_std_min: its floor, or None.
        policy_kwargs: further arguments of stable-baselines3's policy, which win over the settings.

    Raises:
        ValueError: unknown policy, spaces it does not take, or arguments it refuses.
    """
    if name not in Policies:
        raise ValueError(f"unknown policy {name!r}; expected one of {', '.join(Policies)}")
    for space in subspaces(observation_space).values():
        if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(
                f"observations of type {type(space).__name__} are not supported; expected Box, Discrete, "
                "MultiDiscrete, MultiBinary or a Dict of them (gymnasium.wrappers.FlattenObservation flattens others)"
            )
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and np.any(space.start != 0):
            raise ValueError(f"observations of {space} are not supported; use a space whose values start at 0")
    if isinstance(observation_space, spaces.Dict) != (name == "MultiInputPolicy"):
        raise ValueError(
            f"policy {name!r} does not take observations of type {type(observation_space).__name__}; use "
            f"{'MultiInputPolicy' if isinstance(observation_space, spaces.Dict) else 'MlpPolicy'!r}"
        )
    if isinstance(action_space, spaces.Box) and action_space.dtype.kind != "f":
        raise ValueError(f"actions of {action_space} are not supported; use MultiDiscrete for whole numbers")
    if not isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete):
        raise ValueError(
            f"actions of type {type(action_space).__name__} are not supported; expected Box, Discrete or MultiDiscrete"
        )
    arguments: dict[str, Any] = {
        "net_arch": {"pi": list(hidden_sizes), "vf": list(hidden_sizes)},
        "activation_fn": Activations[activation],
        "log_std_init": log_std_init,
        "ortho_init": False,
        **policy_kwargs,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            seen = channels_first(observation_space)
            module = Policies[name](seen, action_space, lambda _: 3e-4, **arguments)  # type: ignore[arg-type]
        except (TypeError, AssertionError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be made with {arguments}: {error}") from error
        for part in (module.mlp_extractor.policy_net, module.action_net):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight, gain=output_gain if part is module.action_net else 1.0)
                    nn.init.zeros_(layer.bias)
    return Policy(module, log_std_min)
