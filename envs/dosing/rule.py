"""The textbook's doses: from population values, and corrected by one measured level."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.envs.dosing.kinetics import (
    CLEARANCE,
    CLEARANCE_VARIATION,
    INTERVAL,
    LEVEL_VARIATION,
    VOLUME,
    WINDOW,
    Floats,
    concentrations,
    log_deviation,
)

TARGET = float(np.sqrt(WINDOW[0] * WINDOW[1]))  # mg/L, the window's geometric middle
CLEARANCES = CLEARANCE * np.exp(np.linspace(-2.0, 2.0, 401))


def textbook_doses(clearance: Any, doses: int) -> Floats:
    """Return a loading dose and then maintenance doses, ``[..., dose]``.

    The loading dose is target * V, the maintenance dose target * clearance * interval.

    Source: Winter 2010, Basic Clinical Pharmacokinetics, chapter 1.
    """
    maintenance = TARGET * np.asarray(clearance, dtype=np.float64) * INTERVAL
    found = np.repeat(maintenance[..., None], doses, axis=-1)
    found[..., 0] = TARGET * VOLUME + maintenance / 2.0
    return found


def clearance_from_level(level: Any, given: Floats, route: str = "oral") -> Floats:
    """Return the most likely clearances given levels ``[patient]`` measured before the next of the doses ``given``.

    The volume is taken to be the population's.

    Source: Sheiner and Beal 1982: the maximum a posteriori, here on a grid, with log-normal errors.
    """
    concentration, gut = np.zeros(len(CLEARANCES)), np.zeros(len(CLEARANCES))
    for dose in given:
        levels, gut = concentrations(concentration, gut + dose, CLEARANCES, VOLUME, route)
        concentration = levels[:, -1]
    misfit = np.log(np.asarray(level, dtype=np.float64)[:, None] / concentration) / log_deviation(LEVEL_VARIATION)
    surprise = np.log(CLEARANCES / CLEARANCE) / log_deviation(CLEARANCE_VARIATION)
    found: Floats = CLEARANCES[(misfit**2 + surprise**2).argmin(axis=1)]
    return found
