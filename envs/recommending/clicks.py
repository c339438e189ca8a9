"""How a user clicks on slates of items: a factor model with position bias and boredom, as pure functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BASE = -3.0  # log-odds of a click on a new item that the user neither likes nor dislikes
SCALE = 6.0  # log-odds per unit of liking
BOREDOM = 0.5  # log-odds lost with each earlier showing of the item in the same visit

Floats = NDArray[np.float64]


def catalogue(items: int, features: int) -> Floats:
    """Return the features of a catalogue's items, vectors of length 1, always the same: ``[item, feature]``."""
    drawn = np.random.default_rng(0).normal(size=(items, features))
    unit: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def examined(positions: int) -> Floats:
    """Return the probabilities that a user looks at the first, second, ... position of a slate.

    Source: Joachims, Swaminathan and Schnabel 2017: (1 / position)^eta; eta is 1 / 2 here.
    """
    return np.arange(1.0, positions + 1.0) ** -0.5


def log_odds(features: Floats, tastes: Any, showings: Any) -> Floats:
    """Return the log-odds that users click on items that they look at, ``[..., item]``.

    Args:
        features: of the items, ``[item, feature]``.
        tastes: of the users, ``[..., feature]``.
        showings: how often each item was shown before in the visit, ``[..., item]``.
    """
    liking = np.asarray(tastes, dtype=np.float64) @ features.T
    return BASE + SCALE * liking - BOREDOM * np.asarray(showings)


def click_probabilities(odds: Floats) -> Floats:
    """Return the probabilities of clicks on slates with these log-odds ``[..., position]``: seen, and liked.

    The user likes what they see if its log-odds plus standard logistic noise are above 0.
    """
    return examined(odds.shape[-1]) / (1.0 + np.exp(-odds))


def best_slates(odds: Floats, size: int) -> NDArray[np.intp]:
    """Return the ``size`` items with the highest log-odds ``[user, item]``, the highest first, ``[user, size]``."""
    among = np.argpartition(odds, -size, axis=1)[:, -size:] if size < odds.shape[1] else np.argsort(odds, axis=1)
    order = np.argsort(-np.take_along_axis(odds, among, axis=1), axis=1, kind="stable")
    return np.take_along_axis(among, order, axis=1)


def myopic_clicks(features: Floats, taste: Any, size: int, slates: int) -> float:
    """Return the expected clicks of a visit in which each slate is the best one for a taste that is known."""
    showings, clicks = np.zeros((1, len(features))), 0.0
    for _ in range(slates):
        odds = log_odds(features, taste, showings)
        shown = best_slates(odds, size)
        clicks += float(click_probabilities(np.take_along_axis(odds, shown, axis=1)).sum())
        showings[0, shown[0]] += 1.0
    return clicks
