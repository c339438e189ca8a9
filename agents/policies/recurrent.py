"""Policies that remember: a gated recurrent unit (GRU) over the steps of a trial.

What it is told at each step besides the observation are its last action, the last reward, and whether an episode has
just ended; its memory starts at zero with a trial, and goes on from episode to episode.
"""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import Tensor, nn

from metarl.agents.distributions import Distribution
from metarl.agents.frozen.front import Front, refuse_nothing
from metarl.agents.frozen.trained import ALL_TRAINED, Trained
from metarl.agents.normalization import Normalizer
from metarl.agents.observations import Observations, channels_first, map_observations
from metarl.agents.policies.acting import Actor
from metarl.agents.policies.gru import GATES, Linear, gru, gru_cell, gru_step
from metarl.agents.policies.policy import Parameters, Policy
from metarl.agents.policies.soundness import refuse_unsound_parts
from metarl.agents.samples import Samples
from metarl.agents.seeded import Seeded
from metarl.agents.trials import TOLD, encode_actions, encoded_width

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


_BLOCK = 16  # rows, a multiple of what BLAS computes at once


class GruNetwork(nn.Module):
    """The layers of a ``GruPolicy``: features extractor, perceptron, GRU and action head.

    Args:
        observation_space: images with channels first.
        action_space: of the family.
        extractor: of the features of preprocessed observations.
        hidden_sizes: the widths of the perceptron's layers, and last that of the memory.
        activation: of the perceptron.
        log_std_init: initial logarithm of the standard deviation.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        extractor: BaseFeaturesExtractor,
        hidden_sizes: tuple[int, ...],
        activation: type[nn.Module],
        log_std_init: float,
    ) -> None:
        super().__init__()
        self.observation_space = observation_space
        self.features_extractor = extractor
        *widths, memory = hidden_sizes
        width = extractor.features_dim + encoded_width(action_space) + TOLD
        layers: list[nn.Module] = []
        for following in widths:
            layers += [nn.Linear(width, following), activation()]
            width = following
        self.embedding = nn.Sequential(*layers)
        self.weight_ih = nn.Parameter(torch.empty(GATES * memory, width))
        self.weight_hh = nn.Parameter(torch.empty(GATES * memory, memory))
        self.bias_ih = nn.Parameter(torch.zeros(GATES * memory))
        self.bias_hh = nn.Parameter(torch.zeros(GATES * memory))
        box = isinstance(action_space, spaces.Box)
        self.action_net = nn.Linear(
            memory, int(np.prod(action_space.shape or ())) if box else encoded_width(action_space)
        )
        if box:
            self.log_std = nn.Parameter(torch.full((self.action_net.out_features,), log_std_init))

    def initialize(self, output_gain: float) -> None:
        """Draw initial weights: Xavier-uniform ones, orthogonal ones in the memory; biases are 0."""
        for part in (*self.embedding, self.action_net):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight, gain=output_gain if part is self.action_net else 1.0)
                nn.init.zeros_(part.bias)
        for gate in self.weight_ih.chunk(GATES):
            nn.init.xavier_uniform_(gate)
        for gate in self.weight_hh.chunk(GATES):
            nn.init.orthogonal_(gate)

    def forward(self, observations: Observations, told: Tensor, sizes: Tensor, hidden: Tensor) -> Tensor:
        """Return the memory after each step, ``[row, memory]``; see ``GruPolicy.remember``."""
        return gru(self._embedded(observations, told), sizes, hidden, self._weights())

    def step(self, observations: Observations, told: Tensor, hidden: Tensor) -> Tensor:
        """Return the memory after one step ``[row, memory]``, by operations that torch can export."""
        return gru_cell(self._embedded(observations, told), hidden, self._weights())

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _embedded(self, observations: Observations, told: Tensor) -> Tensor:
        kind = self.weight_ih.dtype
        seen = map_observations(
            lambda part: part.to(kind), preprocess_obs(observations, self.observation_space, normalize_images=True)
        )
        if isinstance(seen, Tensor) and seen.dim() == 1:
            seen = seen[:, None]  # of a box without axes
        embedded: Tensor = self.embedding(torch.cat([self.features_extractor(seen), told.to(kind)], dim=1))
        return embedded


class GruPolicy(Policy):
    """A policy with a memory, ``policy.name = "GruPolicy"``, for learners with memory.

    The features of the observation, the last action (choices as one-hot vectors, those of a box clipped to it), the
    last reward and whether an episode has just ended go through a perceptron into a GRU (Cho et al. 2014), and its
    memory through a linear layer into the distribution of actions. The widths of the perceptron's layers are
    ``policy.hidden_sizes``, the last of which is that of the memory.

    Args:
        network: its layers; they are copied.
        action_space: of the family.
        log_std_min: a floor on the logarithm of the standard deviation, or None.
        front: a frozen features extractor before it, or None.
        frozen: names of parameters that are not trained.
    """

    remembers: ClassVar[bool] = True

    def __init__(
        self,
        network: GruNetwork,
        action_space: spaces.Space[Any],
        log_std_min: float | None,
        front: Front | None = None,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        self.network, self.front, self.frozen = copy.deepcopy(network), front, frozen
        self._copies = threading.local()
        super().__init__(network.observation_space, action_space, log_std_min)

    @classmethod
    def build(
        cls,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        seed: int,
        hidden_sizes: Any = (64, 64),
        activation: str = "tanh",
        output_gain: float = 1.0,
        log_std_init: float = 0.0,
        log_std_min: float | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        trained: Trained = ALL_TRAINED,
        **unknown: Any,
    ) -> GruPolicy:
        """Return a new policy; see ``Policy.build``.

        Args:
            observation_space: of the family.
            action_space: of the family.
            seed: of the initial weights.
            hidden_sizes: the widths of the perceptron's layers, and last that of the memory.
            activation: ``tanh`` or ``relu``.
            output_gain: the factor on the last layer's initial weights.
            log_std_init: initial logarithm of the standard deviation.
            log_std_min: its floor, or None.
            features_extractor_class: of stable-baselines3's kind; default: a convolutional network for images, both
                for a Dict, and else the observation as it is.
            features_extractor_kwargs: its arguments.
            trained: what of it is trained, without low-rank updates.
            unknown: arguments that the policy does not have.

        Raises:
            ValueError: unknown arguments, no hidden size, or a features extractor that cannot be used.
        """
        if unknown:
            raise ValueError(
                f"policy 'GruPolicy' has no argument {next(iter(unknown))!r}; it takes the settings of [policy], "
                "features_extractor_class and features_extractor_kwargs"
            )
        sizes = tuple(int(size) for size in hidden_sizes)
        if not sizes:
            raise ValueError("policy.hidden_sizes is empty; expected at least one number, the size of the memory")
        seen = channels_first(observation_space)
        kind: type[BaseFeaturesExtractor] = features_extractor_class or _standard_extractor(seen)
        front: Front | None = None
        with Seeded(seed):
            try:
                extractor = kind(seen, **(features_extractor_kwargs or {}))
            except (TypeError, KeyError, AssertionError, RuntimeError) as error:
                raise ValueError(f"the features extractor {kind.__name__} cannot be made: {error}") from error
            if trained.freeze == "extractor":
                refuse_nothing(extractor)
                front = Front(seen, extractor.float(), half=trained.half)
                seen, extractor = front.space, FlattenExtractor(front.space)
            else:
                trained.refuse_half()
            network = GruNetwork(seen, action_space, extractor, sizes, ACTIVATIONS[activation], log_std_init)
            network.initialize(output_gain)
        refuse_unsound_parts(network)
        frozen = trained.frozen(name for name, _ in network.named_parameters()) if front is None else frozenset()
        return cls(network.float(), action_space, log_std_min, front, frozen)

    @property
    def memory_size(self) -> int:
        """The number of entries of the memory."""
        return self.network.weight_hh.shape[1]

    @property
    def told_size(self) -> int:
        """How many numbers the policy is told at each step besides the observation."""
        return encoded_width(self.action_space) + TOLD

    def parameters(self) -> Parameters:
        """Return a copy of the initial parameters."""
        named = self.network.named_parameters()
        return {name: value.detach().clone() for name, value in named if name not in self.frozen}

    def buffers(self) -> Parameters:
        """Return a copy of the buffers of the features extractor, and of what is frozen."""
        return {name: value.detach().clone() for name, value in self._constant().items()}

    def whole(self, parameters: Parameters) -> Parameters:
        """Return parameters with the frozen ones."""
        like = next(iter(parameters.values()))
        frozen = {name: value.detach().to(like) for name, value in self._frozen().items()}
        return {**frozen, **parameters}

    def _frozen(self) -> Parameters:
        return {name: value for name, value in self.network.named_parameters() if name in self.frozen}

    def _constant(self) -> Parameters:
        frozen = self._frozen()
        before = {} if self.front is None else self.front.tensors()
        return {**dict(self.network.named_buffers()), **frozen, **before}

    def with_buffers(self, buffers: Parameters) -> Self:
        """Return the policy with other buffers.

        Raises:
            ValueError: they have other names or shapes.
        """
        own = {name: value.shape for name, value in self._constant().items()}
        if own != {name: value.shape for name, value in buffers.items()}:
            raise ValueError(
                f"the policy has the buffers {', '.join(own) or 'none'}, and was given {', '.join(buffers) or 'none'}, "
                "or their shapes differ; expected those of the same architecture"
            )
        other = copy.deepcopy(self)
        with torch.no_grad():
            for name, value in other._constant().items():
                value.copy_(buffers[name])
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes for ``copy`` and ``pickle``, without the copies that threads run."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, without copies."""
        self.__dict__.update(state)
        self._copies = threading.local()

    def remember(
        self, parameters: Parameters, observations: Observations, told: Tensor, sizes: Tensor, hidden: Tensor
    ) -> Tensor:
        """Return the memory after each step of several trials, ``[row, memory]``, as a differentiable pure function.

        Args:
            parameters: of the policy.
            observations: ``[row, *obs]``: of all trials at the first time step, then at the second, and so on.
            told: ``[row, number]``, what the policy is told with them (``TrialSteps.told``).
            sizes: ``[time]``, how many trials are running at each time step, in falling order; int64, on the CPU.
            hidden: ``[trial, memory]``, before the first of these steps.
        """
        if not hasattr(self._copies, "network"):
            # functional_call temporarily swaps a module's parameters, so each thread has a copy.
            self._copies.network = copy.deepcopy(self.network)
        network: GruNetwork = self._copies.network
        if network.weight_hh.device != hidden.device:
            network.to(hidden.device)
        arguments = (observations, told, sizes, hidden)
        return torch.func.functional_call(network, parameters, arguments)  # type: ignore[no-any-return]

    def act_on(self, parameters: Parameters, memory: Tensor) -> Distribution:
        """Return the distribution over actions, given the memory after a step ``[row, memory]``."""
        whole = self.whole(parameters)
        output = nn.functional.linear(memory, whole["action_net.weight"], whole["action_net.bias"])
        log_std = whole.get("log_std")
        return self.head(output, None if log_std is None else log_std.expand_as(output))

    def distribution(self, parameters: Parameters, samples: Samples) -> NoReturn:
        """Raise an error: single samples do not say what came before them."""
        raise ValueError("a policy with memory has no distribution for single samples; use remember and act_on")

    def module(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error: a policy with memory is no ``ActorCriticPolicy``; ``TrialPolicy`` holds its parameters."""
        raise ValueError("a policy with memory is no ActorCriticPolicy; use metarl.agents.policies.TrialPolicy")

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> GruActor:
        """Return the actor with these parameters, which have no task axis, at the start of trials."""
        actor = GruActor(self, parameters, normalizer or Normalizer())
        return actor.after(self.front, next(iter(parameters.values())).device)


def _standard_extractor(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    return NatureCNN if is_image_space(space) else FlattenExtractor


@dataclass(frozen=True)
class Memory:
    """What is remembered in trials: ``hidden [row, memory]``, and what is told at the next step, ``told [row, n]``."""

    hidden: NDArray[np.float32]
    told: NDArray[np.float32]


class GruActor(Actor):
    """Acts with a ``GruPolicy``, all trials in one matrix product for each layer, in numpy.

    ``act`` and ``tell`` are called in turn.

    Attributes:
        memory: of the trials, a row for each, set by the first ``act``; None for trials that begin.
    """

    acts_without_noise = True

    def __init__(self, policy: GruPolicy, parameters: Parameters, normalizer: Normalizer) -> None:
        host = {name: value.detach().cpu() for name, value in policy.whole(parameters).items()}
        self._policy = policy
        network = policy.network
        space = network.observation_space
        flattened = type(network.features_extractor) is FlattenExtractor and isinstance(space, spaces.Box)
        self._plain = flattened and not is_image_space(space)  # images are scaled
        self._extractor = copy.deepcopy(network.features_extractor)
        prefix = "features_extractor."
        own = {name.removeprefix(prefix): value for name, value in host.items() if name.startswith(prefix)}
        self._extractor.load_state_dict({**self._extractor.state_dict(), **own})
        self._layers = []
        for number, part in enumerate(network.embedding):
            if isinstance(part, nn.Linear):
                named = (host[f"embedding.{number}.weight"], host[f"embedding.{number}.bias"])
                self._layers.append(_transposed(*named))
        self._tanh = any(isinstance(part, nn.Tanh) for part in network.embedding)
        self._input = _transposed(host["weight_ih"], host["bias_ih"])
        self._recurrent = _transposed(host["weight_hh"], host["bias_hh"])
        self._head = _transposed(host["action_net.weight"], host["action_net.bias"])
        log_std = policy.floored(host["log_std"]).numpy()[None, None] if "log_std" in host else None
        self.memory: Memory | None = None
        super().__init__(policy.action_space, log_std, normalizer)

    def act(self, observations: Any, noise: NDArray[np.float32] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return actions ``[task, episode, *action]`` and their log-probabilities; see ``Actor``."""
        actions, log_probs = super().act(observations, noise)
        self._coded = encode_actions(self._space, actions.reshape(-1, *actions.shape[2:]))
        return actions, log_probs

    def tell(self, rewards: NDArray[Any], ended: NDArray[np.bool_]) -> None:
        """Tell the rewards of the last actions and which episodes they ended, ``[row]``."""
        assert self.memory is not None
        scaled = self._normalizer.scale_rewards(torch.from_numpy(rewards.astype(np.float32))).numpy()
        last = np.stack([scaled.astype(np.float32), ended.astype(np.float32)], axis=1)
        self.memory = Memory(self.memory.hidden, np.concatenate([self._coded, last], axis=1))

    def output(self, observations: Any) -> NDArray[Any]:
        """Return the output of the last layer, ``[task, episode, output]``, and remember the step."""
        leading = (
            next(iter(observations.values())).shape[:2] if isinstance(observations, dict) else observations.shape[:2]
        )
        rows = leading[0] * leading[1]
        if self.memory is None:
            size = self._policy.memory_size
            self.memory = Memory(
                np.zeros((rows, size), np.float32), np.zeros((rows, self._policy.told_size), np.float32)
            )
        features = self._features(map_observations(lambda part: part.reshape(rows, *part.shape[2:]), observations))
        hidden = _filled(np.concatenate([features, self.memory.told], axis=1))
        for weight, bias in self._layers:
            hidden = hidden @ weight
            hidden += bias
            hidden = np.tanh(hidden, out=hidden) if self._tanh else np.maximum(hidden, 0.0, out=hidden)
        memory = gru_step(hidden, _filled(self.memory.hidden), self._input, self._recurrent)
        self.memory = Memory(memory[:rows], self.memory.told)
        output: NDArray[Any] = memory @ self._head[0] + self._head[1]
        return output[:rows].reshape(*leading, -1)

    def _features(self, observations: Any) -> NDArray[np.float32]:
        if self._plain:
            flat: NDArray[np.float32] = observations.reshape(len(observations), -1).astype(np.float32, copy=False)
            return flat
        with torch.no_grad():
            given = map_observations(torch.as_tensor, observations)
            seen = preprocess_obs(given, self._policy.network.observation_space, normalize_images=True)
            found: NDArray[np.float32] = self._extractor(seen).numpy()
        return found


def _filled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows with rows of zeros below, to a multiple of ``_BLOCK``.

    Matrix products compute the rows of an incomplete block in another order, and so with other last bits; filled up,
    what is acted in a trial does not depend on how many are played side by side.
    """
    missing = -len(rows) % _BLOCK
    return np.concatenate([rows, np.zeros((missing, rows.shape[1]), rows.dtype)]) if missing else rows


def _transposed(weight: Tensor, bias: Tensor) -> Linear:
    return np.ascontiguousarray(weight.numpy().T), bias.numpy()
