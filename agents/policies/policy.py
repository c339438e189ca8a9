"""The interface of policies: pure functions of the actor's parameters, with a set of parameters for each task.

Parameters are ``dict[str, Tensor]`` with stable-baselines3's names, of the actor only; stacked parameters have a
leading task axis. A critic are the parameters that only the value function has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from torch import Tensor, nn

from metarl.agents.distributions import Distribution, action_distribution
from metarl.agents.frozen.front import Front
from metarl.agents.normalization import Normalizer, new_normalizer
from metarl.agents.observations import Observations, subspaces
from metarl.agents.policies.acting import Actor
from metarl.agents.samples import Samples

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """A linear layer of a perceptron by the names of its parameters, and the activation after it."""

    weight: str
    bias: str
    activation: type[nn.Module] | None


class Policy:
    """A policy as pure functions of its actor's parameters; it holds no trained parameters itself.

    Your own policy defines ``parameters``, ``distribution``, ``actor`` and ``module``, and is chosen by
    ``policy.name = "package.module:Class"``; its class method ``build`` makes it.

    Attributes:
        observation_space: of the networks, images with channels first.
        action_space: of the family.
        log_std_min: a floor on the logarithm of the standard deviation (exploration noise), or None.
        layers: of a perceptron, for the fast path of derivatives; None for any other policy.
        remembers: whether an action depends on earlier steps, which only learners with memory can train.
        front: a frozen features extractor before the policy, whose features are its observations; None without one.
        frozen: names of the parameters that are neither adapted nor trained; ``parameters`` does not return them.
        shapes: of the parameters, by name.

    Args:
        observation_space: of the networks, images with channels first.
        action_space: of the family.
        log_std_min: a floor on the logarithm of the standard deviation, or None.
    """

    layers: list[Layer] | None = None
    remembers: ClassVar[bool] = False
    front: Front | None = None
    frozen: frozenset[str] = frozenset()

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], log_std_min: float | None
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.log_std_min = log_std_min
        self.shapes = {name: value.shape for name, value in self.parameters().items()}

    @classmethod
    def build(
        cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, seed: int, **settings: Any
    ) -> Policy:
        """Return a new policy with initial weights.

        Args:
            observation_space: of the family.
            action_space: of the family.
            seed: of the initial weights; torch's global generator must not be used.
            settings: those of ``[policy]`` except ``name``, and further ``policy_kwargs``.
        """
        raise NotImplementedError

    def parameters(self) -> Parameters:
        """Return a copy of the actor's initial parameters."""
        raise NotImplementedError

    def critic(self) -> Parameters:
        """Return a copy of the initial parameters that only the value function has; empty without one."""
        return {}

    def buffers(self) -> Parameters:
        """Return the policy's constant tensors besides its parameters; checkpoints hold them."""
        return {}

    def norms(self) -> frozenset[str]:
        """Return the names of the parameters of normalisation layers."""
        return frozenset()

    def with_buffers(self, buffers: Parameters) -> Self:
        """Return the policy with other buffers, from a checkpoint."""
        return self

    def distribution(self, parameters: Parameters, samples: Samples) -> Distribution:
        """Return the distribution over actions for each sample, as a differentiable pure function.

        It may depend on whole episodes: ``samples.by_episode`` reshapes rows to ``[..., episode, time]``.

        Args:
            parameters: of one task, without a task axis.
            samples: of one task, ``[sample, ...]``; observations in the observation space's own type.
        """
        raise NotImplementedError

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor, which computes actions with these parameters, shared (no task axis) or stacked.

        It gets observations as returned by the environments and normalises them itself.
        """
        raise NotImplementedError

    def module(
        self,
        parameters: Parameters,
        critic: Parameters | None = None,
        normalizer: Normalizer | None = None,
        device: str | torch.device = "cpu",
    ) -> ActorCriticPolicy:
        """Return a new stable-baselines3 policy with these parameters (no task axis).

        It gets observations as returned by the environment: a normaliser's statistics become part of its features
        extractor. The floor is applied to ``log_std``.

        Args:
            parameters: of the actor.
            critic: of the value function; default: the initial one.
            normalizer: of observations.
            device: of the policy.
        """
        raise NotImplementedError

    def behind_front(self, module: ActorCriticPolicy) -> ActorCriticPolicy:
        """Return the policy on the observations of rollouts that shares its heads with one that ``module`` returned."""
        return module

    @property
    def choices(self) -> list[int]:
        """The number of options of each choice in an action; empty for a box."""
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return [int(n) for n in self.action_space.nvec]
        return [int(self.action_space.n)] if isinstance(self.action_space, spaces.Discrete) else []

    def head(self, output: Tensor, log_std: Tensor | None) -> Distribution:
        """Return the distribution that a last layer's output ``[..., output]`` parametrises, with the floor applied."""
        return action_distribution(self.action_space, output, None if log_std is None else self.floored(log_std))

    def floored(self, log_std: Tensor) -> Tensor:
        """Return a logarithm of the standard deviation with the floor applied."""
        return log_std if self.log_std_min is None else log_std.clamp(min=self.log_std_min)

    def new_normalizer(self, observations: bool, rewards: bool) -> Normalizer:
        """Return a normaliser of observations or rewards, or of neither, without statistics yet.

        Raises:
            ValueError: observations are to be normalised that cannot be, as those before a frozen front.
        """
        if observations and self.front is not None:
            raise ValueError(
                "learning.normalize_observations is set, and policy.freeze freezes the features extractor, which was "
                "not trained on normalised observations; leave one of them out"
            )
        return new_normalizer(self.observation_space, observations, rewards)

    def features(self, observations: Observations) -> Tensor:
        """Return observations ``[task, episode, time, *obs]`` as vectors ``[task, episode, time, feature]``.

        They are the inputs of the return baseline: one-hot for a discrete space, flat for a box, nothing for an image
        or the features of a frozen front (the baseline then depends on time alone), and for a Dict the concatenation
        of its parts.
        """
        given = observations if isinstance(observations, dict) else {"": observations}
        leading = next(iter(given.values())).shape[:3]
        if self.front is not None:
            return given[""].new_zeros((*leading, 0), dtype=torch.float32)
        vectors = []
        for key, space in subspaces(self.observation_space).items():
            if is_image_space(space):
                vectors.append(given[key].new_zeros((*leading, 0), dtype=torch.float32))
                continue
            encoded = preprocess_obs(given[key].flatten(0, 2), space, normalize_images=True)
            assert isinstance(encoded, Tensor)
            vectors.append(encoded.reshape(*leading, -1))
        return torch.cat(vectors, dim=-1)

    def need_no_memory(self, learner: str) -> None:
        """Raise an error if the policy remembers, for a learner that takes each observation by itself.

        Raises:
            ValueError: it remembers.
        """
        if self.remembers:
            raise ValueError(
                f"learner {learner} takes each observation by itself, and a policy with memory (GruPolicy) does not; "
                "use learner rl2, or a policy such as MlpPolicy"
            )

    def need_perceptron(self, purpose: str, instead: str, *, behind_front: bool = False) -> None:
        """Raise an error if the policy is not a perceptron.

        Args:
            purpose: what needs a perceptron, the subject of the message.
            instead: what to use otherwise, the end of the message.
            behind_front: whether it may be behind a frozen front.

        Raises:
            ValueError: the policy has no ``layers``, or is behind a frozen front.
        """
        if self.front is not None and not behind_front:
            raise ValueError(
                f"{purpose} needs the observations themselves, and policy.freeze puts a frozen features extractor "
                f"before them; {instead}"
            )
        if self.layers is None:
            raise ValueError(
                f"{purpose} needs a perceptron (MlpPolicy with tanh or relu on a flat Box), and this policy is none, "
                f"on {self.observation_space}; {instead}"
            )
