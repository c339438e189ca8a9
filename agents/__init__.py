"""Policy-gradient agents: rollouts, policies with a set of parameters for each task, objectives, baselines."""

from metarl.agents.distributions import Categorical, Distribution, Gaussian, Mixture, MultiCategorical
from metarl.agents.normalization import Normalizer, new_normalizer
from metarl.agents.objectives import (
    DICE,
    LIKELIHOOD_RATIO,
    POLICY_GRADIENT,
    InnerObjective,
    Second,
    clipped_objective,
    dice_loss,
    likelihood_ratio_gain,
    likelihood_ratio_parts,
    mean_kl,
    policy_gradient_loss,
)
from metarl.agents.policies import Noise, Parameters, Policy, build_policy, wrap_module
from metarl.agents.returns import discounted_returns, generalized_advantages, normalize
from metarl.agents.rollouts import Rollouts, join_episodes, pad_time
from metarl.agents.samples import Samples, to_samples

__all__ = [
    "DICE",
    "LIKELIHOOD_RATIO",
    "POLICY_GRADIENT",
    "Categorical",
    "Distribution",
    "Gaussian",
    "InnerObjective",
    "Mixture",
    "MultiCategorical",
    "Noise",
    "Normalizer",
    "Parameters",
    "Policy",
    "Rollouts",
    "Samples",
    "Second",
    "build_policy",
    "clipped_objective",
    "dice_loss",
    "discounted_returns",
    "generalized_advantages",
    "join_episodes",
    "likelihood_ratio_gain",
    "likelihood_ratio_parts",
    "mean_kl",
    "new_normalizer",
    "normalize",
    "pad_time",
    "policy_gradient_loss",
    "to_samples",
    "wrap_module",
]
