"""Configurations: shipped ones by name or TOML files, with overrides such as ``inner.step_size=0.05``."""

from __future__ import annotations

import difflib
import importlib.resources
import tomllib
from collections.abc import Sequence
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


def read_configuration(config: str, overrides: Sequence[tuple[str, Any]]) -> tuple[str, Settings]:
    """Return a configuration's name and its settings, with overrides applied.

    If the overrides choose another learner or another meta-update, the configuration's ``[outer]`` is ignored.

    Args:
        config: a shipped name, or the path of a TOML file.
        overrides: dotted keys and values.

    Raises:
        ValueError: the configuration does not exist, is not valid TOML, or has wrong settings, which are all named.
    """
    path = Path(config)
    shipped = shipped_configurations()
    if path.suffix == ".toml" or len(path.parts) > 1:
        try:
            text, source = path.read_text(encoding="utf-8-sig"), config
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"the configuration {config!r} cannot be read: {reason}") from error
    elif config in shipped:
        text, source = shipped[config], f"shipped configuration {config}"
    else:
        near = difflib.get_close_matches(config, shipped, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped are {', '.join(shipped)}"
        raise ValueError(f"unknown configuration {config!r}; {hint} (the path of a file of yours ends in .toml)")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is no valid TOML: {error}") from error
    if _changes_outer(data, dict(overrides)):
        data.pop("outer", None)
    for key, value in overrides:
        _put(data, key, value)
    return path.stem, read_settings(data)


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
