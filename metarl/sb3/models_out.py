"""From metarl to stable-baselines3: an adapted policy as a stable-baselines3 model that can continue learning."""

from __future__ import annotations

from typing import Any, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from metarl.agents import Rollouts, discounted_returns
from metarl.agents.frozen.front import keep_evaluating
from metarl.agents.frozen.packed import architecture_of
from metarl.agents.observations import map_observations
from metarl.agents.policies import is_critic

Model = TypeVar("Model", bound=OnPolicyAlgorithm)
_FITS = 10
_EPOCHS = 5
_BATCH = 256


def refuse_other_algorithms(algorithm: Any) -> None:
    """Raise an error if an algorithm is not one of stable-baselines3's on-policy ones.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(algorithm, type) or not issubclass(algorithm, OnPolicyAlgorithm):
        raise ValueError(f"{algorithm!r} cannot go on from a policy-gradient agent; expected PPO or A2C")


def to_model(
    algorithm: type[Model], policy: ActorCriticPolicy, env: gymnasium.Env[Any, Any] | VecEnv, **arguments: Any
) -> Model:
    """Return a model of an on-policy algorithm with a policy's architecture and weights, ready to learn in ``env``.

    The optimizer is new; ``policy_kwargs`` may choose it.

    Raises:
        ValueError: the algorithm is not one of stable-baselines3's on-policy ones (PPO, A2C), or ``policy_kwargs``
            asks for another architecture.
    """
    given = arguments.pop("policy_kwargs", None) or {}
    for key in given:
        if key not in ("optimizer_class", "optimizer_kwargs"):
            raise ValueError(
                f"policy_kwargs has {key!r}, but the architecture is that of the adapted policy; give only "
                "'optimizer_class' and 'optimizer_kwargs'"
            )
    refuse_other_algorithms(algorithm)
    actions = env.action_space
    if isinstance(actions, spaces.Box) and not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise ValueError(
            f"the environment's action space is {actions}, and stable-baselines3's models take only boxes with finite "
            "ends; use the policy that adapt() returns, or an environment that limits its actions"
        )
    kept = architecture_of(policy)
    if "optimizer_class" in given:
        kept.pop("optimizer_kwargs", None)
    model = algorithm(type(policy), env, policy_kwargs={**kept, **given}, **arguments)
    model.policy.float()  # the precision of stable-baselines3's observations, whatever torch's default type is
    model.policy.load_state_dict(policy.state_dict())
    for own, given in zip(model.policy.parameters(), policy.parameters(), strict=True):
        own.requires_grad_(given.requires_grad)
    extractor = model.policy.features_extractor
    if not all(part.requires_grad for part in extractor.parameters()):
        keep_evaluating(extractor)
    return model


def fit_value(policy: ActorCriticPolicy, rollouts: Rollouts, gamma: float, seed: int) -> None:
    """Fit a policy's value function to one task's rollouts, in place, without changing the actor.

    Only parameters that the critic does not share with the actor are trained (Adam, mean squared error). The targets
    are discounted returns, bootstrapped with the value function at the end of truncated episodes, as in
    stable-baselines3.

    Args:
        policy: of stable-baselines3.
        rollouts: of one task, ``[1, episode, time, ...]``, not normalised.
        gamma: the discount factor.
        seed: of the order of the samples.
    """
    with torch.inference_mode(False), torch.enable_grad():  # even if the caller has switched gradients off
        _fit_value(policy, rollouts, gamma, seed)


def _fit_value(policy: ActorCriticPolicy, rollouts: Rollouts, gamma: float, seed: int) -> None:
    device = policy.device
    running = rollouts.mask[0].bool()
    returns = discounted_returns(rollouts.rewards, rollouts.mask, gamma)[0]
    length = running.sum(dim=1)
    remaining = length[:, None] - torch.arange(running.shape[1])
    discount = torch.where(rollouts.truncated[0].any(dim=1)[:, None], gamma ** remaining.clamp(min=0), 0.0)
    episodes = torch.arange(len(length))
    last = map_observations(lambda part: part[0, episodes, length].to(device), rollouts.observations)
    given = map_observations(lambda part: part[0, :, :-1][running].to(device), rollouts.observations)
    critic = [parameter for name, parameter in policy.named_parameters() if is_critic(name)]
    optimizer = torch.optim.Adam(critic, lr=5e-3)
    generator = torch.Generator().manual_seed(seed)
    # The network is fitted to standardised returns; at the end the value head absorbs their mean and deviation.
    centre, scale = returns[running].mean().to(device), returns[running].std(correction=0).clamp(min=1e-3).to(device)
    with torch.no_grad():
        policy.value_net.weight /= scale
        policy.value_net.bias.zero_()
    for _ in range(_FITS):
        with torch.no_grad():
            beyond = centre + scale * policy.predict_values(last).flatten()
            targets = (returns + discount * beyond.cpu()[:, None])[running].to(device)
        for _ in range(_EPOCHS):
            order = torch.randperm(len(targets), generator=generator).to(device)
            for rows in torch.split(order, _BATCH):
                values = policy.predict_values(_rows(given, rows)).flatten()
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(values, (targets[rows] - centre) / scale)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.no_grad():
        policy.value_net.weight *= scale
        policy.value_net.bias.copy_(centre + scale * policy.value_net.bias)
    policy.zero_grad()


def _rows(observations: Any, rows: Tensor) -> Any:
    return map_observations(lambda part: part[rows], observations)
