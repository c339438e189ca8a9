"""What is exported: a policy as a network from named arrays to named arrays, without random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from metarl.agents.observations import subspaces
from metarl.agents.policies import TrialPolicy
from metarl.agents.policies.mixture import MixtureActorCriticPolicy
from metarl.agents.policies.module import ActorModule

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


class _Acts(nn.Module):
    """From the last layer's output to the most likely actions and what describes their distribution."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.outputs = (ACTION, "mean", "log_std") if isinstance(space, spaces.Box) else (ACTION, "logits")
        self._shape, self._choices = space.shape or (), [0]
        if isinstance(space, spaces.Box):
            self._ends = (torch.as_tensor(space.low), torch.as_tensor(space.high))
            return
        assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        self._choices = np.atleast_1d(space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n).tolist()
        self._start = torch.as_tensor(space.start).reshape(-1)

    def forward(self, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, ...]:
        """Return the outputs: actions ``[environment, *action]``, those of a box clipped to it."""
        if len(self.outputs) == 3:
            assert log_std is not None
            low, high = self._ends
            shaped = output.reshape(-1, *self._shape)
            return torch.minimum(torch.maximum(shaped, low), high), output, log_std
        columns = [part.argmax(dim=1) for part in torch.split(output, self._choices, dim=1)]
        chosen = torch.stack(columns, dim=1) + self._start
        return chosen.reshape(-1, *self._shape), torch.cat(
            [part.log_softmax(dim=1) for part in torch.split(output, self._choices, dim=1)], dim=1
        )


class ActingNetwork(ExportedNetwork):
    """A stable-baselines3 policy: observations, one input for each key of a Dict space, to actions."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__()
        self.policy = policy
        self._keys = tuple(subspaces(policy.observation_space))
        self.inputs = tuple(key or OBSERVATION for key in self._keys)
        self.actor, self.acts = ActorModule(policy), _Acts(policy.action_space)
        # A mixture is of several distributions.
        self.outputs = (ACTION,) if isinstance(policy, MixtureActorCriticPolicy) else self.acts.outputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        seen: Any = dict(zip(self._keys, given, strict=True)) if "" not in self._keys else given[0]
        output, log_std = self.actor(seen), getattr(self.policy, "log_std", None)
        if isinstance(self.policy, MixtureActorCriticPolicy):
            chosen = self.policy.mixture_logits.argmax()
            output, log_std = output[:, chosen], None if log_std is None else log_std[chosen]
        if log_std is not None:
            log_std = log_std.expand_as(output)
        found: tuple[Tensor, ...] = self.acts(output, log_std)
        return found[: len(self.outputs)]

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
        self.acts = _Acts(policy.action_space)
        self.outputs = (*self.acts.outputs, STATE)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        *seen, state, starts = given
        output, memory = self.policy.step(dict(zip(self._keys, seen, strict=True)), state, starts)
        if isinstance(self.policy.action_space, spaces.Box):
            return (*self.acts(*self.policy.in_own_units(output)), memory)
        return (*self.acts(output, None), memory)

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
    """Return the network of a policy, which lies on the CPU and changes to one that cannot be trained.

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
    network.eval().requires_grad_(False)
    return network


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
