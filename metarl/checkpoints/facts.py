"""The JSON part of a checkpoint, its facts: names and types of all entries, and the ranges of numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from metarl.settings import Settings, outer_options
from metarl.untrusted import shown

FORMAT = "metarl-checkpoint"
VERSION = 1
COUNTS = ("iteration", "num_timesteps", "line_search_failures")
EARLIER = "earlier_timesteps"  # which files of older versions lack
PROGRESS = "progress_remaining"
_HORIZON = ("first_iteration", "last_iteration", "first_timestep", "last_timestep")
_MOST_TASKS = 1_000_000  # of which a digest is kept
_LARGEST = 2**63
_LONGEST_NAME = 300


class OtherVersionError(ValueError):
    """A checkpoint is of a version that this metarl does not read."""


def check_format(facts: Any) -> None:
    """Check that JSON is of a checkpoint, and of the version that is read.

    Raises:
        OtherVersionError: it is of another version.
        ValueError: it is of something else.
    """
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError("its JSON is none that save() writes")
    version = facts.get("version")
    if type(version) is not int:
        raise ValueError(f"its version is {shown(version, 40)}, expected a whole number")
    if version != VERSION:
        raise OtherVersionError(
            f"has checkpoint version {shown(version, 40)}, this metarl reads {VERSION}; update metarl"
        )


def check_facts(facts: Any) -> None:
    """Check the types and ranges of all facts but the settings, which ``structure`` checks.

    Raises:
        ValueError: one is missing, or is not what a checkpoint can have; the message names it.
    """
    check_format(facts)
    for key in ("learner", "metarl"):
        _check(key, facts.get(key), "a name", isinstance(facts.get(key), str) and len(facts[key]) <= _LONGEST_NAME)
    for key in ("settings", "policy_kwargs", "normalizer"):
        _check(key, facts.get(key), "a table", isinstance(facts.get(key), dict))
    normalizer = facts["normalizer"]
    clip, epsilon = normalizer.get("clip"), normalizer.get("epsilon")
    _check("normalizer.clip", clip, "a number above 0", _is_number(clip) and clip > 0)
    _check("normalizer.epsilon", epsilon, "a number from 0 on", _is_number(epsilon) and epsilon >= 0)
    unknown = set(normalizer) - {"clip", "epsilon"}
    _check("normalizer", normalizer, "clip and epsilon only", not unknown)
    for key in COUNTS:
        _check_count(key, facts.get(key))
    _check_count(EARLIER, facts.get(EARLIER, 0))
    _check_progress(PROGRESS, facts)
    horizon = facts.get("horizon", {})
    _check("horizon", horizon, "a table", isinstance(horizon, dict) and set(horizon) <= set(_HORIZON))
    for key, value in horizon.items():
        if value is not None or key.startswith("first"):
            _check_count(f"horizon.{key}", value)
    trained_on = facts.get("tasks_trained_on", [])
    digests = isinstance(trained_on, list) and len(trained_on) <= _MOST_TASKS
    fits = digests and all(isinstance(entry, str) and len(entry) <= _LONGEST_NAME for entry in trained_on)
    _check("tasks_trained_on", trained_on, "a list of digests", fits)
    if "best" not in facts:
        raise ValueError("best is missing")
    if facts["best"] is not None:
        _check_best(facts["best"], facts["iteration"])


def _check_best(best: Any, iteration: int) -> None:
    _check("best", best, "a table, or null", isinstance(best, dict))
    _check("best.score", best.get("score"), "a number", _is_number(best.get("score")))
    for key in (*COUNTS, EARLIER):
        # Files of older versions have fewer counts of the best state.
        if key in best or key == "iteration":
            _check_count(f"best.{key}", best.get(key))
    _check_progress(f"best.{PROGRESS}", best)
    if best["iteration"] > iteration:
        raise ValueError(f"best.iteration is {best['iteration']}, after iteration = {iteration}")


def check_settings(data: Mapping[str, Any], learner: Any) -> None:
    """Refuse settings of unknown names, before anything that takes longer the more there are of them.

    Args:
        data: the settings as tables.
        learner: the class.

    Raises:
        ValueError: there are unknown ones; the message names the first.
    """
    own = Settings()
    _refuse_unknown("settings", data, {entry.name for entry in fields(Settings)})
    for section in ("learning", "inner", "augment", "policy", "evaluation"):
        table = data.get(section)
        if isinstance(table, dict):
            _refuse_unknown(section, table, {entry.name for entry in fields(getattr(own, section))})
    if isinstance(data.get("outer"), dict):
        _refuse_unknown("outer", data["outer"], outer_options(learner))


def _refuse_unknown(table: str, found: Mapping[str, Any], known: Collection[str]) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ValueError(f"{table} has the unknown entry {shown(unknown[0], 60)!r}")


def _check(key: str, value: Any, expected: str, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{key} is {shown(value, 80)}, expected {expected}")


def _check_progress(key: str, table: Mapping[str, Any]) -> None:
    """Check the share of the training that remains, which files of older versions do not have."""
    value = table.get(PROGRESS, 1.0)
    _check(key, value, "a number from 0 to 1", _is_number(value) and 0 <= value <= 1)


def _check_count(key: str, value: Any) -> None:
    _check(key, value, "a whole number from 0 on", type(value) is int and 0 <= value < _LARGEST)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all that are computed with
        return False
