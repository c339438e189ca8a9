"""Linear Thompson sampling on ``metarl/Recommend-v0``, the classical rival of learners that adapt."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.families.recommend import RecommendVectorEnv
from metarl.envs.recommending.clicks import SCALE, examined

NOISE = 0.15  # standard deviation of a click around its expectation, in the linear model
SLOPE = 0.08  # clicks that a unit of log-odds is worth, about, where they vary


class LinearThompson:
    """Bayesian linear regression of clicks on the features of the items shown, for several users at once.

    The expected click at position j is ``examined[j] * (b + features . w)``; ``b`` and ``w`` have independent normal
    priors with a standard deviation of 1. The position bias is known.

    Source: Agrawal and Goyal 2013, on linear contextual bandits.

    Args:
        features: of the catalogue's items, ``[item, feature]``.
        users: how many.
    """

    def __init__(self, features: NDArray[np.float64], users: int) -> None:
        self._inputs = np.concatenate([np.ones((len(features), 1)), features], axis=1)
        size = self._inputs.shape[1]
        self._precision = np.tile(np.eye(size), (users, 1, 1))
        self._weighted = np.zeros((users, size))

    def update(self, shown: NDArray[Any], clicked: NDArray[Any]) -> None:
        """Learn from slates ``[user, position]``, and which of their items were clicked."""
        inputs = self._inputs[shown] * examined(shown.shape[1])[:, None]
        self._precision += np.einsum("upi,upj->uij", inputs, inputs) / NOISE**2
        self._weighted += np.einsum("upi,up->ui", inputs, clicked) / NOISE**2

    def beliefs(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return tastes drawn from the posterior, as actions of the family, ``[user, feature]``."""
        mean = np.linalg.solve(self._precision, self._weighted[..., None])[..., 0]
        root = np.linalg.cholesky(np.linalg.inv(self._precision))
        drawn = mean + np.einsum("uij,uj->ui", root, rng.normal(size=mean.shape))
        beliefs: NDArray[np.float32] = np.clip(drawn[:, 1:] / (SLOPE * SCALE), -1.0, 1.0).astype(np.float32)
        return beliefs


def play_thompson(tastes: Any, visits: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the clicks of users with these tastes ``[user, feature]`` in successive visits, ``[visit, user]``."""
    env = RecommendVectorEnv(len(tastes))
    sampler, rng = LinearThompson(env.features, len(tastes)), np.random.default_rng(seed)
    env.reset(seed=list(range(seed, seed + len(tastes))), options={"tasks": np.asarray(tastes, np.float32)})
    returns = np.zeros((visits, len(tastes)))
    for visit in range(visits):
        env.reset()
        for _ in range(env.slates):
            returns[visit] += env.step(sampler.beliefs(rng))[1]
            sampler.update(env.shown, env.clicked)
    return returns
