"""A configuration as a file to edit: every setting with its value, its meaning and its unit."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import tomllib
from typing import Any

import tomli_w

from metarl.guide.meanings import Meaning, fields_of
from metarl.settings import Settings, as_dict

_WIDTH = 110


def template(settings: Settings) -> str:
    """Return settings as TOML with comments, from which the same settings are read."""
    values = as_dict(settings)
    episodes = settings.learning.tasks * settings.learning.episodes
    lines = _comment(
        "A configuration of metarl, for 'metarl train FILE.toml'. Each setting is written with its meaning (and unit); "
        "'metarl settings NAME' says what else it can be. One iteration plays "
        f"{settings.learning.tasks} tasks x {settings.learning.episodes} episodes = {episodes:,} episodes before "
        "adaptation, and as many after each inner step."
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
            for one in fields_of(kind, section.name):
                name = one.key.removeprefix(f"{section.name}.")
                lines += _setting(one, name, values[section.name][name])
    return "\n".join(lines)


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
