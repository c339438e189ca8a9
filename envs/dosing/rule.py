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
    check_doses,
    check_levels,
    concentrations,
    log_deviation,
    to_actions,
)
from metarl.envs.families.dosing import UNIT, DosingVectorEnv

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


def clearance_from_level(level: Any, given: Any, route: str = "oral") -> Floats:
    """Return the most likely clearances ``[patient]`` given levels measured before the next dose.

    The volume is taken to be the population's.

    Args:
        level: ``[patient]``, mg/L.
        given: the doses before, ``[patient, dose]``.
        route: ``oral`` or ``intravenous``.

    Raises:
        ValueError: a level is not positive, a dose is negative, or one of them is not finite.

    Source: Sheiner and Beal 1982: the maximum a posteriori, here on a grid, with log-normal errors.
    """
    doses, measured = check_doses(given), check_levels(level)[:, None]
    concentration, gut = np.zeros((len(doses), len(CLEARANCES))), np.zeros((len(doses), 1))
    for dose in doses.T:
        levels, gut = concentrations(concentration, gut + dose[:, None], CLEARANCES, VOLUME, route)
        concentration = levels[..., -1]
    misfit = np.log(measured / concentration) / log_deviation(LEVEL_VARIATION)
    surprise = np.log(CLEARANCES / CLEARANCE) / log_deviation(CLEARANCE_VARIATION)
    found: Floats = CLEARANCES[(misfit**2 + surprise**2).argmin(axis=1)]
    return found


def play_rules(tasks: Any, seed: int = 0, route: str = "oral") -> dict[str, dict[str, Floats]]:
    """Play the textbook's doses for a batch of patients of ``metarl/Dosing-v0``.

    Returns:
        the ``return`` and the ``success`` of each patient ``[patient]``, for doses from ``population`` values, and for
        those that ``one level`` corrects.
    """
    count = len(tasks["clearance"])
    found = {}
    for name in ("population", "one level"):
        env = DosingVectorEnv(count, route=route)
        observations, _ = env.reset(seed=list(range(seed, seed + count)), options={"tasks": tasks})
        doses = np.tile(textbook_doses(CLEARANCE, env.doses), (count, 1))
        returns = np.zeros(count)
        for dose in range(env.doses):
            if name == "one level" and dose == env.level_after:
                clearance = clearance_from_level(observations[:, 1] * UNIT, doses[:, :dose], route)
                doses[:, dose:] = textbook_doses(clearance, env.doses)[:, dose:]
            observations, rewards, _, _, info = env.step(to_actions(doses[:, dose : dose + 1]))
            returns += rewards
        found[name] = {"return": returns, "success": info["success"].astype(np.float64)}
    return found
