"""Schedules of step sizes as functions that can be imported."""

from __future__ import annotations


def falling(remaining: float) -> float:
    """From 0.2 to 0.1."""
    return 0.1 + 0.1 * remaining


def negative(remaining: float) -> float:
    """Below 0 in the middle of training."""
    return -0.5 if remaining == 0.5 else 1.0
