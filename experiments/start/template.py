"""A configuration as a file to edit: every setting with its value, its meaning and its unit."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import tomllib
from typing import Any

import tomli_w

from metarl.guide.meanings import Meaning, fields_of
from metarl.learners.registry import find_learner
from metarl.settings import Settings, as_dict

_WIDTH = 110


def template(settings: Settings) -> str:
    """Return settings as TOML with comments, from which the same settings are read."""
    values = as_dict(settings)
    lines = _comment(
        "A configuration of metarl, for 'metarl train FILE.toml'. Each setting is written with its meaning (and unit); "
        f"'metarl settings NAME' says what else it can be. One iteration plays {_iteration(settings)}."
    )
    for one in fields_of(Settings, ""):
        if one.key != "family_kwargs":
            lines += _setting(one, one.key, values[one.key])
    if settings.family_kwargs:
        lines += ["", *_comment("The arguments of the family's constructor, and max_episode_steps.")]
        lines.append(_toml({"family_kwargs": settings.family_kwargs}))
    for section in dataclasses.fields(Settings):
        kind = type(getattr(settings, section.name))
        if dataclasses.is_dataclass(kind):
            lines += ["", *_comment(_first_sentence(kind)), f"[{section.name}]"]
            own = values[section.name]
            named = [(one.key.removeprefix(f"{section.name}."), one) for one in fields_of(kind, section.name)]
            for name, one in named:
                if not isinstance(own[name], dict):
                    lines += _setting(one, name, own[name])
            for name, one in named:  # what follows a table's head belongs to it, so tables come last
                if isinstance(own[name], dict):
                    lines += [*_comment(one.text), _toml({section.name: {name: own[name]}})]
    return "\n".join(lines)


def _iteration(settings: Settings) -> str:
    """Return what an iteration plays, in words."""
    learning = settings.learning
    if find_learner(settings.learner).remembers:
        given = getattr(settings.outer, "trials", "auto")
        trials = max(1, settings.iteration_episodes // learning.trial_episodes) if given == "auto" else given
        return f"{trials:,} trials x {learning.trial_episodes} episodes = {trials * learning.trial_episodes:,} episodes"
    return (
        f"{learning.tasks} tasks x {learning.episodes} episodes = {learning.tasks * learning.episodes:,} episodes "
        "before adaptation, and as many after each inner step"
    )


def _setting(one: Meaning, name: str, value: Any) -> list[str]:
    return [*_comment(f"{one.text}; {one.expected}" if one.expected else one.text), _toml({name: value})]


def _toml(tables: dict[str, Any]) -> str:
    """Return tables as TOML, with an array of plain values in one line."""
    text = tomli_w.dumps(tables).rstrip()
    short = re.sub(
        r"\[\n((?: +[^\[\]{}\n]+,\n)+) *\]",
        lambda found: f"[{', '.join(line.strip().rstrip(',') for line in found[1].splitlines())}]",
        text,
    )
    return short if tomllib.loads(short) == tomllib.loads(text) else text


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ") if text else []


def _first_sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())
