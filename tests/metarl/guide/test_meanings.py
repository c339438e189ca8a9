"""Every setting of every learner says what it means, in ``help`` too."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

import metarl
from metarl.guide.meanings import meanings
from metarl.learners.registry import LEARNERS, find_learner
from metarl.settings import Settings, outer_kinds, valid_keys


def test_every_setting_has_a_meaning_and_says_what_it_can_be() -> None:
    found = meanings()
    expected = {key for name in LEARNERS for kind in outer_kinds(find_learner(name)) for key in valid_keys(kind)}
    tables = {"learning", "inner", "outer", "policy", "augment", "evaluation"}
    assert {one.key for one in found} == expected - tables
    assert [one.key for one in found if not one.meaning or not one.expected] == []


def test_defaults_and_owners_are_those_of_the_classes() -> None:
    found = meanings()
    (step_size,) = [one for one in found if one.key == "inner.step_size"]
    schedule = "a number above 0, or a schedule: {start, end, schedule = 'linear' or 'cosine'}, or a function"
    assert (step_size.default, step_size.expected, step_size.users) == (0.1, schedule, "all learners")
    rates = {one.default: one for one in found if one.key == "outer.learning_rate"}
    assert rates[1.0].learners == ("reptile",)
    assert rates[2e-3].learners == ("pretrained",)
    (timeout,) = [one for one in found if one.key == "learning.step_timeout"]
    assert timeout.unit == "seconds"
    (damping,) = [one for one in found if one.key == "outer.damping"]
    assert damping.update == "trpo"
    assert "promp" not in damping.learners


@pytest.mark.parametrize("name", LEARNERS)
def test_help_shows_the_settings_of_a_class(name: str) -> None:
    kind = find_learner(name)
    text = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    assert "inner.step_size = 0.1: " in text
    for outer in outer_kinds(kind):
        for entry in dataclasses.fields(outer):
            assert f"outer.{entry.name} = {entry.default!r}: " in text
    assert (kind.__doc__ or "").partition("\n")[0].endswith((".", ":", ","))


@dataclass(frozen=True, kw_only=True)
class Plain:
    warmth: float = 0.5
    needed: int


class OwnLearner(metarl.MAML):
    """A learner of one's own."""

    outer_settings: ClassVar[tuple[type[Any], ...]] = (Plain,)


class Undescribed(metarl.MAML):
    outer_settings: ClassVar[tuple[type[Any], ...]] = (int,)


def test_a_learner_of_ones_own_needs_no_texts() -> None:
    assert (inspect.getdoc(OwnLearner) or "").startswith("A learner of one's own.\n")
    assert "outer.warmth = 0.5\n" in (OwnLearner.__doc__ or "")
    assert "outer.needed\n" in (OwnLearner.__doc__ or "")
    assert Undescribed.__doc__ == ""
    assert Settings().outer is None
