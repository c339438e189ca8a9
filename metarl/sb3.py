"""stable-baselines3, out: an adapted policy as a model of stable-baselines3 that goes on learning."""

from __future__ import annotations

from typing import Any, TypeVar

import gymnasium
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

Model = TypeVar("Model", bound=OnPolicyAlgorithm)
_GIVEN_BY_THE_MODEL = ("observation_space", "action_space", "lr_schedule", "use_sde")


def to_model(
    algorithm: type[Model], policy: ActorCriticPolicy, env: gymnasium.Env[Any, Any], **arguments: Any
) -> Model:
    """Return a model of an on-policy algorithm with a policy's architecture and weights, ready to learn in ``env``.

    The value function is the policy's, untrained where the policy was meta-trained here; the optimizer is new.

    Raises:
        ValueError: the algorithm is none of stable-baselines3's on-policy ones (PPO, A2C).
    """
    if not isinstance(algorithm, type) or not issubclass(algorithm, OnPolicyAlgorithm):
        raise ValueError(f"{algorithm!r} cannot go on from a policy-gradient agent; expected PPO or A2C")
    kept = {key: value for key, value in policy._get_constructor_parameters().items() if key not in _GIVEN_BY_THE_MODEL}
    # A policy names every argument of every distribution; those of state-dependent noise do not apply.
    kept = {key: value for key, value in kept.items() if value is not None}
    model = algorithm(type(policy), env, policy_kwargs=kept, **arguments)
    model.policy.load_state_dict(policy.state_dict())
    return model
