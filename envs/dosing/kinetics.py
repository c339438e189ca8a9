"""A drug in one compartment, as pure functions of arrays. Not for treating people.

Doses are in mg per kg of body weight, concentrations in mg/L, clearances in L/h/kg, volumes in L/kg, times in hours.
The values are those of theophylline.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Yano et al. 1993, for a PaCO2 of 42.5 mmHg, their patients' mean, without hepatic dysfunction:
# exp(-3.78 + 0.0233 * 42.5) and exp(-1.12 + 0.00934 * 42.5).
CLEARANCE = 0.0614
VOLUME = 0.485
CLEARANCE_VARIATION = 0.385  # coefficients of variation between patients
VOLUME_VARIATION = 0.125
LEVEL_VARIATION = 0.106  # of a measured level around the concentration
ABSORPTION = 1.6  # 1/h, about exp(0.47), that of the twelve subjects of Pinheiro and Bates 1995

WINDOW = (10.0, 20.0)  # mg/L
INTERVAL = 6  # hours between doses
LARGEST_DOSE = 15.0  # mg/kg
ROUTES = ("oral", "intravenous")


def log_deviation(variation: float) -> float:
    """Return the standard deviation of the logarithm of a log-normal number with this coefficient of variation."""
    return float(np.sqrt(np.log1p(variation**2)))


def check_doses(doses: Any) -> Floats:
    """Return doses in mg/kg as an array.

    Raises:
        ValueError: one is negative or not finite.
    """
    return _numbers("a dose", doses, "mg/kg", "finite numbers from 0 on", least=0.0)


def check_patient(clearance: Any, volume: Any) -> None:
    """Check a patient, or several.

    Raises:
        ValueError: a clearance is negative, a volume is not positive, or one of them is not finite.
    """
    _numbers("a clearance", clearance, "L/h/kg", "finite numbers from 0 on", least=0.0)
    _numbers("a volume", volume, "L/kg", "finite numbers above 0", least=np.nextafter(0.0, 1.0))


def check_levels(levels: Any) -> Floats:
    """Return measured concentrations in mg/L as an array.

    Raises:
        ValueError: one is not positive or not finite.
    """
    expected = "finite numbers above 0; give one below what can be measured as that limit"
    return _numbers("a level", levels, "mg/L", expected, least=np.nextafter(0.0, 1.0))


def check_route(route: Any) -> None:
    """Check how doses are given.

    Raises:
        ValueError: it is none of the routes.
    """
    if route not in ROUTES:
        raise ValueError(f"route is {route!r}; expected one of {', '.join(ROUTES)}")


def _numbers(what: str, given: Any, unit: str, expected: str, least: float) -> Floats:
    if np.ma.is_masked(given):
        raise ValueError(f"{what} is masked; expected {expected}")
    try:
        found: Floats = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what} is {str(given)[:80]} ({error}); expected {expected}, in {unit}") from error
    wrong = ~(np.isfinite(found) & (found >= least))
    if wrong.any():
        raise ValueError(f"{what} is {found[wrong][0]:g} {unit}; expected {expected}")
    return found


def to_actions(doses: Any) -> NDArray[np.float32]:
    """Return the actions in [-1, 1] that stand for doses from 0 to ``LARGEST_DOSE``; larger doses become the largest.

    Raises:
        ValueError: a dose is negative or not finite.
    """
    shares = np.minimum(check_doses(doses) / LARGEST_DOSE, 1.0)
    return (2.0 * shares - 1.0).astype(np.float32)


def to_doses(actions: Any) -> Floats:
    """Return the doses in mg/kg that actions stand for; actions are clipped to [-1, 1]."""
    clipped: Floats = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
    return (clipped + 1.0) / 2.0 * LARGEST_DOSE


def concentrations(start: Any, gut: Any, clearance: Any, volume: Any, route: str = "oral") -> tuple[Floats, Floats]:
    """Return the concentrations in the hours after a dose, and what is left in the gut at the end of the interval.

    With rates k = clearance / volume and a of absorption: C(t) = C(0) e^(-k t) + G / V * a / (a - k) (e^(-k t) -
    e^(-a t)) for oral doses, G being the amount in the gut after the dose, and (C(0) + G / V) e^(-k t) for
    intravenous ones.

    Args:
        start: the concentrations before the dose, ``[...]``.
        gut: the amounts to be absorbed, with the dose, ``[...]``.
        clearance: ``[...]``.
        volume: ``[...]``.
        route: ``oral`` or ``intravenous``.

    Returns:
        the concentrations after 1, 2, ..., 6 hours, ``[..., hour]``, the last before the next dose; and the amounts
        ``[...]``.

    Raises:
        ValueError: the route is neither of these.

    Source: the Bateman function (Bateman 1910); Gabrielsson and Weiner 2016, one-compartment models.
    """
    check_route(route)
    start, gut, volume = (np.asarray(each, dtype=np.float64)[..., None] for each in (start, gut, volume))
    hours = np.arange(1.0, INTERVAL + 1.0)
    rate = np.asarray(clearance, dtype=np.float64)[..., None] / volume
    left = np.exp(-rate * hours)
    if route == "intravenous":
        return (start + gut / volume) * left, np.zeros(np.shape(gut[..., 0]))
    absorbed = np.exp(-ABSORPTION * hours)
    difference = ABSORPTION - rate
    # Where both rates agree, the quotient has a limit; a difference that small changes nothing that can be measured.
    difference = np.where(np.abs(difference) < 1e-6, 1e-6, difference)
    rise = (np.exp(-(ABSORPTION - difference) * hours) - absorbed) * ABSORPTION / difference
    return start * left + gut / volume * rise, gut[..., 0] * absorbed[-1]


def closeness(levels: Floats) -> Floats:
    """Return how close concentrations are to the window: 1 inside, 0 at half its low or twice its high end.

    Outside the window it is linear in the logarithm of the concentration, and at least -1.
    """
    logs = np.log2(np.maximum(levels, 1e-9))
    outside = np.maximum(np.log2(WINDOW[0]) - logs, 0.0) + np.maximum(logs - np.log2(WINDOW[1]), 0.0)
    found: Floats = np.maximum(1.0 - outside, -1.0)
    return found


def inside(levels: Floats) -> NDArray[np.bool_]:
    """Return which intervals ``[..., hour]`` are inside the window at all hours, ``[...]``."""
    between: NDArray[np.bool_] = (levels >= WINDOW[0]) & (levels <= WINDOW[1])
    return np.asarray(between.all(axis=-1))
