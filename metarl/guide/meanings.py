"""What each setting means: one list for ``metarl settings``, ``metarl init``, docs/settings.md and ``help``.

The texts are at the fields themselves, see ``metarl.fields.setting``.
"""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema

from metarl.learners.registry import LEARNERS, find_learner
from metarl.settings import Settings, outer_kinds
from metarl.training.schedules import takes_schedule

_SCHEDULE = ", or a schedule: {start, end, schedule = 'linear' or 'cosine'}, or a function"
_LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_TYPES = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """A setting in words.

    Attributes:
        key: its dotted name, as in ``inner.step_size``.
        default: its default.
        meaning: what it is; empty where a learner of one's own does not say.
        unit: its unit, or empty.
        expected: the values that it can have.
        learners: the names of the learners that have it; empty for all.
        update: the ``outer.update`` that it belongs to, or empty.
    """

    key: str
    default: Any
    meaning: str
    unit: str
    expected: str
    learners: tuple[str, ...] = ()
    update: str = ""

    @property
    def text(self) -> str:
        """The meaning with the unit."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning

    @property
    def users(self) -> str:
        """Who has this setting, in words."""
        who = f"learner {', '.join(self.learners)}" if self.learners else "all learners"
        return f"{who}, with outer.update = {self.update!r}" if self.update else who


def meanings() -> list[Meaning]:
    """Return all settings: the top level, each section, and ``[outer]`` of each of metarl's own learners."""
    found = fields_of(Settings, "")
    for entry in dataclasses.fields(Settings):
        kind = type(getattr(Settings(), entry.name))
        if entry.name == "outer":
            found += _outer(LEARNERS)
        elif dataclasses.is_dataclass(kind):
            found += fields_of(kind, entry.name)
    return found


def fields_of(kind: type, section: str) -> list[Meaning]:
    """Return the settings of a dataclass, without those that are dataclasses themselves.

    Args:
        kind: the dataclass.
        section: what its settings' names begin with, or empty.
    """
    schema = _schema(kind)
    found = []
    for entry in dataclasses.fields(kind):
        if entry.name == "outer" or dataclasses.is_dataclass(entry.default_factory):
            continue
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        found.append(
            Meaning(
                key=f"{section}.{entry.name}" if section else entry.name,
                default=list(default) if isinstance(default, tuple) else default,
                meaning=entry.metadata.get("meaning", ""),
                unit=entry.metadata.get("unit", ""),
                expected=_expected(schema.get(entry.name, {})) + (_SCHEDULE if takes_schedule(entry.name) else ""),
            )
        )
    return found


def _outer(learners: Sequence[str] | Mapping[str, str]) -> list[Meaning]:
    """Return the settings of ``[outer]``; one that is the same for several learners appears once."""
    together: dict[tuple[str, ...], list[tuple[Meaning, str, str]]] = {}
    for name in learners:
        kinds = outer_kinds(find_learner(name))
        for kind in kinds:
            update = str(getattr(kind, "update", "")) if len(kinds) > 1 else ""
            for one in fields_of(kind, "outer"):
                same = (one.key, repr(one.default), one.meaning)
                together.setdefault(same, []).append((one, name, update))
    found = []
    for entries in together.values():
        updates = list(dict.fromkeys(update for _, _, update in entries if update))
        found.append(
            dataclasses.replace(
                entries[0][0],
                learners=tuple(dict.fromkeys(name for _, name, _ in entries)),
                update=updates[0] if len(updates) == 1 and entries[0][0].key != "outer.update" else "",
            )
        )
    return sorted(found, key=lambda one: one.key)


@functools.cache
def _schema(kind: type) -> dict[str, Any]:
    """Return the JSON schema of each field of a dataclass of settings."""
    try:
        return dict(TypeAdapter(kind).json_schema().get("properties", {}))
    except PydanticInvalidForJsonSchema:  # a type of one's own
        return {}


def _expected(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema allows.

    >>> _expected({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'a number above 0, at most 1'
    >>> _expected({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]})
    'auto, or a whole number of at least 1'
    """
    if "anyOf" in schema:
        return ", or ".join(_expected(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        *most, last = map(str, schema["enum"])
        return f"{', '.join(most)} or {last}" if most else last
    if schema.get("type") == "array":
        return f"a list, each {_expected(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return "a table"
    words = _TYPES.get(schema.get("type", ""), "")
    limits = [f"{word} {schema[name]}" for name, word in _LIMITS.items() if name in schema]
    of = " of" if limits and limits[0].startswith("at") else ""
    return f"{words}{of} {', '.join(limits)}" if limits else words


class Documented:
    """A docstring of a learner's class with the class's settings added, which ``help`` shows; made when it is read."""

    def __init__(self, written: str | None) -> None:
        self._written = (written or "").rstrip()

    def __get__(self, instance: object, owner: type[Any]) -> str:
        names = ("learning", "inner", "policy", "augment", "evaluation")
        sections = [(name, type(getattr(Settings(), name))) for name in names]
        try:
            sections[2:2] = [("outer", kind) for kind in outer_kinds(owner)]
            lines = [line for section, kind in sections for line in _lines(section, kind)]
        except TypeError:  # what a learner of one's own has for settings may be none
            return self._written
        head = "Settings and their defaults; ``metarl settings NAME`` says what each can be:"
        return self._written + "\n\n" + "".join(f"    {line}\n" for line in [head, "", *lines]) + "    "


def _lines(section: str, kind: type) -> list[str]:
    found = []
    for entry in dataclasses.fields(kind):
        default = "" if entry.default is dataclasses.MISSING else f" = {entry.default!r}"
        text = f"{section}.{entry.name}{default}: {entry.metadata.get('meaning', '')}".rstrip(": ")
        found += textwrap.wrap(text, 108, initial_indent="    ", subsequent_indent="        ")
    return found
