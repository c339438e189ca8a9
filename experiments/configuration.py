"""Configurations: shipped ones by name, TOML files, or those that fit an environment; with overrides."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from metarl.learners.registry import find_learner, read_settings
from metarl.settings import Settings, as_dict


def shipped_configurations() -> dict[str, str]:
    """Return the shipped configurations, name to TOML text."""
    folder = importlib.resources.files("metarl.experiments.configs")
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def read_configuration(
    config: str, overrides: Sequence[tuple[str, Any]], vary: Sequence[str] = ()
) -> tuple[str, Settings]:
    """Return a configuration's name and its settings, with overrides applied.

    A shipped name wins over an environment of the same name. If the overrides choose another learner or another
    meta-update, the configuration's ``[outer]`` is ignored; if they choose a learner with memory where the
    configuration's has none, or the other way round, so is its ``policy.name``.

    Args:
        config: a shipped name, the path of a TOML file, or an environment's id or ``module:Name``, for which settings
            are sized (``metarl.defaults``).
        overrides: dotted keys and values.
        vary: what varies in an environment that has no tasks of its own, as ``gravity=5..15``.

    Raises:
        ValueError: the configuration does not exist, is not valid TOML, or has wrong settings, which are all named.
    """
    path = Path(config)
    shipped = shipped_configurations()
    if is_sized(config):
        return _of_environment(config, overrides, vary, shipped)
    if vary:
        raise ValueError(
            f"--vary is for an environment, and {config!r} is a configuration, which has its tasks; name the "
            "environment, as in 'metarl train CartPole-v1 --vary gravity=5..15'"
        )
    if config in shipped:
        text, source = shipped[config], f"shipped configuration {config}"
    else:
        try:
            text, source = path.read_text(encoding="utf-8-sig"), config
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"the configuration {config!r} cannot be read: {reason}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is no valid TOML: {error}") from error
    if _changes_outer(data, dict(overrides)):
        data.pop("outer", None)
    if _changes_memory(data, dict(overrides)):
        data["policy"].pop("name")
    for key, value in overrides:
        _put(data, key, value)
    return path.stem, read_settings(data)


def is_sized(config: str) -> bool:
    """Whether a name is no configuration, shipped or in a file, but an environment's, for which settings are sized."""
    path = Path(config)
    is_file = path.suffix == ".toml" or (len(path.parts) > 1 and path.is_file())
    return not is_file and config not in shipped_configurations()


def how_sized(environment: str, settings: Settings) -> str:
    """Return the sentence on the settings that were sized for an environment."""
    learning = settings.learning
    return (
        f"{environment} has no configuration of its own, so it trains with settings of a general size: "
        f"{learning.tasks} tasks x {learning.episodes} episodes, {settings.policy.name}; 'metarl init', called alike, "
        "prints them as a file to edit"
    )


def _of_environment(
    name: str, overrides: Sequence[tuple[str, Any]], vary: Sequence[str], shipped: Iterable[str]
) -> tuple[str, Settings]:
    from metarl.experiments.start import environments  # the other configurations need no environment

    if not environments.is_environment(name):
        raise environments.unknown_name(name, shipped)
    given: dict[str, Any] = {}
    for key, value in overrides:
        _put(given, key, value)
    wanted = read_settings(given)  # what is wrong with the overrides is said before anything is played
    data = environments.environment_tables(name, vary, given.get("family_kwargs", {}))
    if find_learner(wanted.learner).remembers:
        data["policy"].pop("name")  # the learner's own takes all observations
    for key, value in overrides:
        _put(data, key, value)
    return environments.run_name(name), read_settings(data)


def parse_override(text: str) -> tuple[str, Any]:
    """Return key and value of ``key=value``; a value that is not valid TOML is a string.

    Raises:
        ValueError: there is no ``=``, or no key before it.
    """
    key, separator, value = text.partition("=")
    key = key.strip()
    if not separator or not key:
        raise ValueError(f"{text!r} is no setting; expected key=value, as in inner.step_size=0.05")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key, value
    return key, parsed["value"] if set(parsed) == {"value"} else value


def _changes_outer(data: dict[str, Any], overrides: dict[str, Any]) -> bool:
    """Return whether overrides choose another learner or meta-update, for which ``[outer]`` of data is not valid."""
    learner = data.get("learner", Settings.learner)
    if overrides.get("learner", learner) != learner:
        return True
    outer = data.get("outer")
    if "outer.update" not in overrides or not isinstance(outer, dict):
        return False
    first = find_learner(learner).outer_settings[0]
    return bool(overrides["outer.update"] != outer.get("update", getattr(first, "update", None)))


def _changes_memory(data: dict[str, Any], overrides: dict[str, Any]) -> bool:
    """Return whether overrides choose a learner that cannot train the policy that data names."""
    policy = data.get("policy")
    if not isinstance(policy, dict) or "name" not in policy or "learner" not in overrides:
        return False
    try:
        learners = [find_learner(name) for name in (data.get("learner", Settings.learner), overrides["learner"])]
    except (TypeError, ValueError):  # which read_settings says
        return False
    return bool(learners[0].remembers != learners[1].remembers)


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inside = data.setdefault(section, {})
        if not isinstance(inside, dict):
            inside = data[section] = {}
        data = inside
    data[last] = value


def to_toml(settings: Settings) -> str:
    """Return settings as TOML from which the same settings are read."""
    return tomli_w.dumps(as_dict(settings))
