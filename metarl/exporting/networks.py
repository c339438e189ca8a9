"""What is exported: a policy as a network from named arrays to named arrays, without random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.observations import subspaces
from metarl.agents.policies import TrialPolicy
from metarl.agents.policies.mixture import MixtureActorCriticPolicy

Arrays = dict[str, NDArray[Any]]
OBSERVATION, ACTION, STATE, START = "observation", "action", "state", "episode_start"
LARGEST = 10.0  # of the random observations in boxes without ends, or with very distant ones


class ExportedNetwork(nn.Module):
    """A policy as a network from arrays to arrays; the first axis of each is the environment.

    Attributes:
        inputs: the names of its inputs, in the order of its arguments.
        outputs: the names of its outputs: first the most likely action, as ``predict(..., deterministic=True)`` returns
            it; then those of the distribution of actions: ``mean`` and ``log_std``, or ``logits``.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def examples(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return random inputs for so many environments."""
        raise NotImplementedError

    def expected(self, given: Arrays) -> list[NDArray[Any]]:
        """Return the action, and the state if there is one, as the policy's own ``predict`` returns them."""
        raise NotImplementedError


class ActingNetwork(ExportedNetwork):
    """A stable-baselines3 policy: observations, one input for each key of a Dict space, to actions."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy
        self._keys = tuple(subspaces(policy.observation_space))
        self.inputs = tuple(key or OBSERVATION for key in self._keys)
        self.outputs = (ACTION, *_distribution_names(policy))
        _take_limits(self, policy.action_space)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        seen: Any = dict(zip(self._keys, given, strict=True)) if "" not in self._keys else given[0]
        distribution = self.policy.get_distribution(seen)
        action = _shaped(self, self.policy.action_space, distribution.mode())
        if len(self.outputs) == 1:
            return (action,)
        if isinstance(distribution, DiagGaussianDistribution):
            normal = distribution.distribution
            return action, normal.mean, normal.stddev.log()
        own: Any = distribution.distribution
        parts = own if isinstance(own, list) else [own]
        return action, torch.cat([part.logits for part in parts], dim=1)

    def examples(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return random observations."""
        return _observations(self.policy.observation_space, count, rng)

    def expected(self, given: Arrays) -> list[NDArray[Any]]:
        """Return the policy's actions."""
        seen: Any = given if isinstance(self.policy.observation_space, spaces.Dict) else given[OBSERVATION]
        return [self.policy.predict(seen, deterministic=True)[0]]


class RememberingNetwork(ExportedNetwork):
    """A policy with memory: observations of ``metarl.Trial``, the state and where trials begin, to actions and state.

    Where ``episode_start`` is true, the state given is not used: the policy starts from what it remembered in
    adaptation.
    """

    def __init__(self, policy: TrialPolicy) -> None:
        super().__init__()
        self.policy = policy
        self._keys = tuple(subspaces(policy.observation_space))
        self.inputs = (*self._keys, STATE, START)
        self._gaussian = isinstance(policy.action_space, spaces.Box)
        self.outputs = (ACTION, *(("mean", "log_std") if self._gaussian else ("logits",)), STATE)
        _take_limits(self, policy.action_space)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        *seen, state, starts = given
        output, memory = self.policy.step(dict(zip(self._keys, seen, strict=True)), state, starts)
        space = self.policy.action_space
        if self._gaussian:
            mean, log_std = self.policy.in_own_units(output)
            return _shaped(self, space, mean), mean, log_std, memory
        columns = [part.argmax(dim=1) for part in torch.split(output, self.policy.choices, dim=1)]
        action = torch.stack(columns, dim=1) if isinstance(space, spaces.MultiDiscrete) else columns[0]
        start = torch.as_tensor(space.start)  # type: ignore[attr-defined]
        return _shaped(self, space, action + start), output, memory

    def examples(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return random observations and states; some trials begin."""
        found = _observations(self.policy.observation_space, count, rng)
        state = np.tanh(rng.standard_normal((count, self.policy.memory_size))).astype(np.float32)
        return {**found, STATE: state, START: rng.random(count) < 0.5}

    def expected(self, given: Arrays) -> list[NDArray[Any]]:
        """Return the policy's actions and state."""
        seen = {key: given[key] for key in self._keys}
        action, state = self.policy.predict(seen, (given[STATE][None],), given[START], deterministic=True)
        assert state is not None
        return [action, state[0][0]]


def network_of(policy: ActorCriticPolicy | TrialPolicy) -> ExportedNetwork:
    """Return the network of a policy, which lies on the CPU.

    Raises:
        ValueError: an observation has the name of another input.
    """
    network = RememberingNetwork(policy) if isinstance(policy, TrialPolicy) else ActingNetwork(policy)
    twice = sorted(name for name in network.inputs if network.inputs.count(name) > 1)
    if twice:
        raise ValueError(
            f"the observation has the key {twice[0]!r}, which is the name of another input of the exported network; "
            "rename it in the environment"
        )
    network.eval()
    return network


def _distribution_names(policy: ActorCriticPolicy) -> tuple[str, ...]:
    if isinstance(policy, MixtureActorCriticPolicy):
        return ()  # of several distributions
    return ("mean", "log_std") if isinstance(policy.action_space, spaces.Box) else ("logits",)


def _take_limits(network: nn.Module, space: spaces.Space[Any]) -> None:
    if isinstance(space, spaces.Box):
        network.register_buffer("low", torch.as_tensor(space.low, dtype=torch.float32))
        network.register_buffer("high", torch.as_tensor(space.high, dtype=torch.float32))


def _shaped(network: nn.Module, space: spaces.Space[Any], action: Tensor) -> Tensor:
    """Return actions ``[environment, *action]``; those of a box are clipped to it."""
    shaped = action.reshape(-1, *(space.shape or ()))
    if isinstance(space, spaces.Box):
        assert isinstance(network.low, Tensor)
        assert isinstance(network.high, Tensor)
        return torch.minimum(torch.maximum(shaped, network.low), network.high)
    return shaped


def _observations(space: spaces.Space[Any], count: int, rng: np.random.Generator) -> Arrays:
    """Return random observations by the names of inputs, in the types of the exported network."""
    found = {}
    for key, part in subspaces(space).items():
        part.seed(int(rng.integers(2**31)))
        values = np.stack([np.asarray(part.sample()) for _ in range(count)])
        if values.dtype.kind == "f":
            values = np.clip(values, -LARGEST, LARGEST).astype(np.float32)
        found[key or OBSERVATION] = values
    return found
