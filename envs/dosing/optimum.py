"""The best doses for a patient whose clearance and volume are known, by dynamic programming on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.envs.dosing.kinetics import LARGEST_DOSE, Floats, check_doses, check_patient, closeness, concentrations

GRID = np.linspace(0.0, 60.0, 241)  # concentrations before a dose, mg/L
DOSES = np.linspace(0.0, LARGEST_DOSE, 121)


def best_doses(clearance: float, volume: float, doses: int, route: str = "oral") -> Floats:
    """Return the doses of a course with the highest reward, up to the grid's width.

    What is left of a dose in the gut at the next one (less than a ten thousandth) is neglected in planning.

    Args:
        clearance: of the patient.
        volume: of the patient.
        doses: how many.
        route: ``oral`` or ``intravenous``.

    Raises:
        ValueError: the patient or the route makes no sense.

    Source: Bellman 1957, V_t(C) = max_d r(C, d) + V_{t+1}(C'), with linear interpolation between concentrations.
    """
    check_patient(clearance, volume)
    levels, _ = concentrations(GRID[:, None], DOSES, clearance, volume, route)
    rewards, after = closeness(levels).mean(axis=-1), levels[..., -1]
    values = [np.zeros(len(GRID))]
    for _ in range(doses - 1):
        values.append((rewards + np.interp(after, GRID, values[-1])).max(axis=1))
    chosen, concentration = np.zeros(doses), 0.0
    for dose in range(doses):
        levels, _ = concentrations(concentration, DOSES, clearance, volume, route)
        worth = closeness(levels).mean(axis=-1) + np.interp(levels[:, -1], GRID, values[doses - 1 - dose])
        best = int(worth.argmax())
        chosen[dose], concentration = DOSES[best], levels[best, -1]
    return chosen


def course(doses: Any, clearance: float, volume: float, route: str = "oral") -> Floats:
    """Return the concentrations in the hours of a course of doses ``[dose]`` from the start: ``[dose, hour]``.

    Raises:
        ValueError: a dose is negative or not finite, or the patient or the route makes no sense.
    """
    check_patient(clearance, volume)
    concentration, gut, found = 0.0, 0.0, []
    for dose in check_doses(doses):
        levels, left = concentrations(concentration, gut + dose, clearance, volume, route)
        concentration, gut = float(levels[-1]), float(left)
        found.append(levels)
    return np.array(found)
