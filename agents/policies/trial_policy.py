"""A policy with memory in the form of stable-baselines3: ``predict(observation, state, episode_start)``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl.agents.normalization import Normalizer
from metarl.agents.observations import channels_first
from metarl.agents.policies.policy import Parameters
from metarl.agents.policies.recurrent import GruPolicy, Memory


class TrialPolicy(BasePolicy):
    """A policy with memory for environments that put into the observation what the policy is told.

    ``predict(observation, state, episode_start)`` is that of sb3-contrib's recurrent policies: it returns the actions
    and the state to pass on at the next step. Where there is no state yet (None), and in environments in which a trial
    begins (``episode_start``), it starts from what was remembered in adaptation, and not from zero.

    Args:
        policy: its layers.
        parameters: of the policy, without a task axis.
        normalizer: of observations and of the rewards that the policy is told.
        observation_space: of the environments: a Dict space with the observation (under its own keys, or under the only
            other one) and the entries of ``told``.
        told: the keys of the last action, the last reward and the end of an episode, in this order.
        start: what was remembered in adaptation, of a single trial; None for nothing.
        device: of the policy.
        own_actions: the environments' action space where it is not the one that the layers act in, and the map from
            actions of the layers to it; in a box, entries with two finite ends are [-1, 1] for the layers.
    """

    def __init__(
        self,
        policy: GruPolicy,
        parameters: Parameters,
        normalizer: Normalizer,
        observation_space: spaces.Dict,
        told: Sequence[str],
        start: Memory | None = None,
        device: str | torch.device = "cpu",
        own_actions: tuple[spaces.Space[Any], Callable[[Any], Any]] | None = None,
    ) -> None:
        super().__init__(
            channels_first(observation_space), policy.action_space if own_actions is None else own_actions[0]
        )
        self._arguments = (policy, parameters, normalizer, observation_space, tuple(told), start, own_actions)
        self._to_own = None if own_actions is None else own_actions[1]
        self._policy = policy
        self._told = tuple(told)
        self._normalizer = normalizer
        size = policy.memory_size
        begun = Memory(np.zeros((1, size), np.float32), np.zeros((1, policy.told_size), np.float32))
        self._start = start or begun
        self.network = copy.deepcopy(policy.network)
        self.extractor = None if policy.front is None else copy.deepcopy(policy.front.extractor)
        with torch.no_grad():
            for name, value in self.network.named_parameters():
                if name in parameters:
                    value.copy_(policy.floored(parameters[name]) if name == "log_std" else parameters[name])
        self.set_training_mode(False)
        self.to(device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("policy", "parameters", "normalizer", "observation_space", "told", "start")
        return dict(zip((*names, "own_actions"), self._arguments, strict=True))

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """Raise an error: acting needs the state, so use ``predict``."""
        raise NotImplementedError("a policy with memory acts by predict(observation, state, episode_start)")

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        raise NotImplementedError("a policy with memory acts by predict(observation, state, episode_start)")

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Return actions and the next state.

        Args:
            observation: of one environment, or of several with a leading axis; as ``metarl.Trial`` gives it.
            state: as returned by the last call, a tuple of one array ``[1, environment, memory]``; None at the start.
            episode_start: ``[environment]``, in which environments a trial begins.
            deterministic: take the most likely actions instead of random ones.

        Raises:
            ValueError: the observation does not hold what the policy is told, or the state has another shape.
        """
        if not isinstance(observation, dict) or not set(self._told) <= set(observation):
            raise ValueError(
                "a policy with memory has to be told its last action and reward, which this observation does not hold; "
                "put them into it by metarl.Trial(env, episodes)"
            )
        given, vectorized = self.obs_to_tensor(observation)
        assert isinstance(given, dict)
        count = len(given[self._told[0]])
        hidden = np.repeat(self._start.hidden, count, axis=0)
        begins = np.ones(count, dtype=np.bool_)
        if state is not None:
            found = np.asarray(state[0])
            if found.shape != (1, *hidden.shape):
                raise ValueError(
                    f"the state has shape {found.shape}; expected {(1, *hidden.shape)}, as predict returns it"
                )
            starts = np.zeros(count, np.bool_) if episode_start is None else episode_start
            begins = np.asarray(starts, dtype=np.bool_).reshape(count)
            hidden = np.where(begins[:, None], hidden, found[0])
        told, seen = self._told_and_seen(given, torch.as_tensor(begins, device=self.device))
        parameters: Parameters = {name: value.detach() for name, value in self.network.named_parameters()}
        with torch.no_grad():
            memory = self._policy.remember(
                parameters,
                seen,
                told,
                torch.tensor([count]),
                torch.as_tensor(hidden, dtype=torch.float32, device=self.device),
            )
            chosen = self._chosen(self._policy.act_on(parameters, memory).parameters, deterministic).cpu().numpy()
        inside = self._policy.action_space
        if isinstance(inside, spaces.Box):
            chosen = np.clip(chosen.reshape(count, *inside.shape), inside.low, inside.high)
        if self._to_own is not None:
            chosen = self._to_own(chosen)
        return (chosen if vectorized else chosen[0]), (memory.cpu().numpy()[None],)

    @property
    def memory_size(self) -> int:
        """How many numbers are remembered."""
        return self._policy.memory_size

    def step(self, given: dict[str, Tensor], state: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's output and the next state, by operations that torch can export.

        Args:
            given: the observation, ``[environment, ...]`` by key.
            state: ``[environment, memory]``.
            begins: ``[environment]``, bool: where a trial begins, and with it what was remembered in adaptation.
        """
        told, seen = self._told_and_seen(given, begins)
        start = torch.as_tensor(self._start.hidden, device=state.device)
        memory = self.network.step(seen, told, torch.where(begins[:, None], start, state))
        output: Tensor = self.network.action_net(memory)
        return output, memory

    def in_own_units(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log standard deviation of the environments' actions, ``[environment, number]``.

        Args:
            mean: ``[environment, number]``, of the layers' actions.
        """
        middle, half = self._own_units(mean.device)
        log_std = (self.network.log_std + half.log()).expand_as(mean)
        return (mean * half + middle).float(), log_std.float()

    def _told_and_seen(self, given: dict[str, Tensor], begins: Tensor) -> tuple[Tensor, Any]:
        """Return what the layers are told, ``[environment, number]``, and the normalised observation."""
        action, reward, ended = (given[key].reshape(begins.shape[0], -1).float() for key in self._told)
        told = torch.cat([self._as_layers_act(action), self._normalizer.scale_rewards(reward).float(), ended], dim=1)
        remembered = torch.as_tensor(self._start.told, device=told.device).expand_as(told)
        told = torch.where(begins[:, None], remembered, told)
        rest = {key: part for key, part in given.items() if key not in self._told}
        front = self._policy.front
        space = self._policy.observation_space if front is None else front.observation_space
        seen = rest if isinstance(space, spaces.Dict) else next(iter(rest.values()))
        if front is not None:
            return told, front.features(seen, self.extractor)
        return told, self._normalizer.observe(seen)

    def _as_layers_act(self, action: Tensor) -> Tensor:
        """Return the environments' actions ``[environment, number]``, as they are told, as those of the layers."""
        if self._to_own is None or not isinstance(self.action_space, spaces.Box):
            return action
        middle, half = self._own_units(action.device)
        return ((action.double() - middle) / half).float()

    def _own_units(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return middle and half width of each entry of the environments' box; 0 and 1 where it is not mapped."""
        if self._to_own is None:
            return torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        assert isinstance(self.action_space, spaces.Box)
        middle, half = own_units(self.action_space)
        return middle.to(device), half.to(device)

    def _chosen(self, parameters: Sequence[Tensor], deterministic: bool) -> Tensor:
        """Return actions ``[environment, ...]`` of the layers from the parameters of their distribution."""
        if isinstance(self._policy.action_space, spaces.Box):
            mean, log_std = parameters
            return mean if deterministic else mean + log_std.exp() * torch.randn_like(mean)
        parts = torch.split(parameters[0], self._policy.choices, dim=-1)
        columns = [
            part.argmax(dim=-1) if deterministic else torch.multinomial(torch.softmax(part, dim=-1), 1)[:, 0]
            for part in parts
        ]
        return (
            torch.stack(columns, dim=-1) if isinstance(self._policy.action_space, spaces.MultiDiscrete) else columns[0]
        )


def own_units(box: spaces.Box) -> tuple[Tensor, Tensor]:
    """Return middle and half width of each entry of a box, float64; 0 and 1 for those without two finite ends."""
    low, high = (torch.as_tensor(end, dtype=torch.float64).flatten() for end in (box.low, box.high))
    bounded = torch.isfinite(low) & torch.isfinite(high)
    return torch.where(bounded, low / 2 + high / 2, 0.0), torch.where(bounded, high / 2 - low / 2, 1.0)
