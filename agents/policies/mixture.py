"""Policies that are mixtures of perceptrons, ``pi(a|s) = sum_c w_c pi_c(a|s)``, with a perceptron for each component c.

The components' parameters are stacked, ``[component, ...]``, with the names of a single perceptron's. ``mixture_logits
[component]`` are the unnormalised logarithms of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import Tensor, nn

from metarl.agents.distributions import Mixture, action_distribution
from metarl.agents.normalization import Normalizer
from metarl.agents.policies.acting import Actor, choose, draw, spread
from metarl.agents.policies.module import ModulePolicy
from metarl.agents.policies.perceptron import PerceptronActor, PerceptronPolicy
from metarl.agents.policies.policy import Parameters, Policy
from metarl.agents.samples import Samples
from metarl.agents.seeded import Seeded

LOGITS = "mixture_logits"


class MixturePolicy(ModulePolicy):
    """A mixture of perceptrons, which initially are equal and have equal weights.

    Args:
        plain: the perceptron.
        components: the number of components.
    """

    def __init__(self, plain: Policy, components: int) -> None:
        assert isinstance(plain, PerceptronPolicy)
        self.plain = plain
        super().__init__(_mixture_module(plain, components), plain.log_std_min)

    def components(self, parameters: Parameters) -> Parameters:
        """Return the components' parameters, without the weights."""
        return {name: value for name, value in parameters.items() if name != LOGITS}

    def distribution(self, parameters: Parameters, samples: Samples) -> Mixture:
        """Return the mixture; see ``Policy``."""
        assert isinstance(samples.observations, Tensor)
        hidden = samples.observations.to(parameters[LOGITS].dtype)
        hidden = hidden.reshape(len(hidden), -1)
        for layer in self.plain.layers:
            hidden = hidden @ parameters[layer.weight].mT + parameters[layer.bias].unsqueeze(-2)
            if layer.activation is not None:
                hidden = layer.activation()(hidden)
        output = hidden.movedim(0, -2)  # [sample, component, output]
        log_std = parameters.get("log_std")
        components = self.head(output, None if log_std is None else log_std.expand_as(output))
        return Mixture(parameters[LOGITS].expand(output.shape[:-1]), components)

    def actor(self, parameters: Parameters, normalizer: Normalizer | None = None) -> Actor:
        """Return the actor with these parameters; if they have no weights, each task is played by one component."""
        if LOGITS not in parameters:
            return self.plain.actor(parameters, normalizer)
        return MixtureActor(self, parameters, normalizer or Normalizer())


class MixtureActor(Actor):
    """Draws at each step a component according to the weights, and then an action of this component."""

    choices: ClassVar[int] = 1

    def __init__(self, policy: MixturePolicy, parameters: Parameters, normalizer: Normalizer) -> None:
        super().__init__(policy.action_space, None, normalizer)
        stacked = {name: value[None] if parameters[LOGITS].dim() == 1 else value for name, value in parameters.items()}
        self._logits = torch.log_softmax(stacked[LOGITS].detach().cpu(), dim=-1).unsqueeze(
            1
        )  # [task or 1, 1, component]
        components = policy.components(stacked)
        self._log_std = None
        if "log_std" in components:
            self._log_std = (
                policy.floored(components["log_std"]).detach().cpu().unsqueeze(1)
            )  # [task or 1, 1, component, action]
        flat = {name: value.flatten(0, 1) for name, value in components.items()}
        self._perceptrons = PerceptronActor(policy.plain, flat, Normalizer())

    def act(self, observations: Any, noise: NDArray[np.float32] | None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return actions ``[task, episode, *action]`` and their log-probabilities; see ``Actor``.

        The last number of the noise selects the component.
        """
        assert noise is not None  # since ``acts_without_noise`` is not set
        output = self._outputs(self._normalizer.observe(observations))
        last = noise[..., -1]
        if isinstance(self._space, spaces.Box):
            last = torch.special.ndtr(torch.from_numpy(last)).numpy()
        chosen, _ = choose(np.broadcast_to(self._logits.numpy(), output.shape[:-1]), last)
        log_std = None if self._log_std is None else self._log_std.expand(output.shape)
        own = _of_component(output, chosen)
        width = None if log_std is None else spread(_of_component(log_std.numpy(), chosen))
        actions, _ = draw(self._space, own, width, noise[..., :-1])
        mixture = Mixture(
            self._logits.expand(output.shape[:-1]), action_distribution(self._space, torch.from_numpy(output), log_std)
        )
        drawn = torch.from_numpy(actions)
        if isinstance(self._space, spaces.Box):
            drawn = drawn.reshape(*drawn.shape[:2], -1)
        return actions, mixture.log_prob(drawn).numpy()

    def _outputs(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs of the components' last layers, ``[task, episode, component, output]``."""
        tasks, episodes = observations.shape[:2]
        sets, _, number = self._logits.shape
        rows = observations.reshape(sets, tasks * episodes // sets, -1)
        # The actor of perceptrons treats each component of each set of parameters as a task.
        output = self._perceptrons.output(np.repeat(rows, number, axis=0))
        output = output.reshape(sets, number, tasks * episodes // sets, -1).swapaxes(1, 2)
        return output.reshape(tasks, episodes, number, -1)


def _of_component(values: NDArray[Any], chosen: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values ``[task, episode, component, ...]`` of the chosen components ``[task, episode]``."""
    return np.take_along_axis(values, chosen[..., None, None], axis=2)[:, :, 0]


class StackedLinear(nn.Module):
    """Linear layers side by side: ``[..., component, in]`` to ``[..., component, out]``."""

    def __init__(self, components: int, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for _ in range(components)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layers' outputs."""
        return (self.weight @ inputs.unsqueeze(-1)).squeeze(-1) + self.bias


class _MixtureExtractor(MlpExtractor):
    """stable-baselines3's hidden layers, with separate ones of the actor for each component."""

    def __init__(self, components: int, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._components = components
        self.policy_net = nn.Sequential(
            *(
                StackedLinear(components, part.in_features, part.out_features) if isinstance(part, nn.Linear) else part
                for part in self.policy_net
            )
        )

    def forward_actor(self, features: Tensor) -> Tensor:
        """Return the components' last hidden layers, ``[sample, component, hidden]``."""
        hidden: Tensor = self.policy_net(features.unsqueeze(-2).expand(-1, self._components, -1))
        return hidden


class MixtureActorCriticPolicy(ActorCriticPolicy):
    """A stable-baselines3 policy whose actor is a mixture of perceptrons.

    Its deterministic action is that of the component with the largest weight.

    Args:
        arguments: see ``ActorCriticPolicy``.
        components: the number of components.
        named: see ``ActorCriticPolicy``.
    """

    mixture_logits: nn.Parameter

    def __init__(self, *arguments: Any, components: int, **named: Any) -> None:
        self._components = components
        super().__init__(*arguments, **named)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "components": self._components}

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _MixtureExtractor(
            self._components,
            self.features_dim,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            device=self.device,
        )

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        assert isinstance(self.action_net, nn.Linear)
        self.action_net = StackedLinear(self._components, self.action_net.in_features, self.action_net.out_features)
        if isinstance(self.action_space, spaces.Box):
            self.log_std = nn.Parameter(self.log_std.detach().repeat(self._components, 1))
        self.mixture_logits = nn.Parameter(torch.zeros(self._components))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> sb3.Distribution:
        log_std = getattr(self, "log_std", None)
        mixed = MixtureDistribution(self.action_space, self.action_dist)
        return mixed.proba_distribution(self.mixture_logits, self.action_net(latent_pi), log_std)


class MixtureDistribution(sb3.Distribution):
    """A mixture with the interface of stable-baselines3's distributions; actions of a box are ``[sample, action]``.

    Args:
        space: of the actions.
        single: stable-baselines3's distribution of one component, from which actions are sampled.
    """

    def __init__(self, space: spaces.Space[Any], single: sb3.Distribution) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._space = space
        self._single = single

    def proba_distribution_net(self, components: int, latent_dim: int, outputs: int) -> nn.Module:
        """Return the components' last layers."""
        return StackedLinear(components, latent_dim, outputs)

    def proba_distribution(self, logits: Tensor, output: Tensor, log_std: Tensor | None) -> MixtureDistribution:
        """Set logits ``[component]``, outputs ``[sample, component, output]`` and log_std ``[component, action]``."""
        self._logits, self._output, self._log_std = logits, output, log_std
        wide = None if log_std is None else log_std.expand_as(output)
        self._mixture = Mixture(logits.expand(output.shape[:-1]), action_distribution(self._space, output, wide))
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of actions."""
        return self._mixture.log_prob(actions)

    def entropy(self) -> None:
        """Return None, since the entropy has no closed form."""

    def sample(self) -> Tensor:
        """Return actions, each of a component drawn according to the weights."""
        chosen = torch.multinomial(torch.softmax(self._logits, dim=-1), len(self._output), replacement=True)
        return self._of(chosen).sample()

    def mode(self) -> Tensor:
        """Return the deterministic actions of the component with the largest weight."""
        return self._of(self._logits.argmax().expand(len(self._output))).mode()

    def _of(self, chosen: Tensor) -> sb3.Distribution:
        output = self._output[torch.arange(len(chosen), device=chosen.device), chosen]
        spread: Sequence[Tensor] = () if self._log_std is None else (self._log_std[chosen],)
        return self._single.proba_distribution(output, *spread)

    def actions_from_params(
        self, logits: Tensor, output: Tensor, log_std: Tensor | None, deterministic: bool = False
    ) -> Tensor:
        """Return actions of the mixture with these parameters."""
        return self.proba_distribution(logits, output, log_std).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, logits: Tensor, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return actions of the mixture with these parameters, and their log-probabilities."""
        actions = self.actions_from_params(logits, output, log_std)
        return actions, self.log_prob(actions)


def _mixture_module(plain: PerceptronPolicy, components: int) -> MixtureActorCriticPolicy:
    """Return a mixture of components that all equal a perceptron, with the perceptron's value function."""
    single = plain.initial_module
    with Seeded(0):  # any seed would do, since all weights are overwritten
        module = MixtureActorCriticPolicy(
            **single._get_constructor_parameters(),
            share_features_extractor=single.share_features_extractor,
            components=components,
        ).float()
    given = single.state_dict()
    stacked = set(plain.shapes)
    state = {
        name: value.expand(components, *value.shape) if name in stacked else value for name, value in given.items()
    }
    if hasattr(single.features_extractor, "flatten"):
        module.features_extractor.flatten = copy.deepcopy(single.features_extractor.flatten)
    module.load_state_dict({**state, LOGITS: torch.zeros(components)})
    return module
