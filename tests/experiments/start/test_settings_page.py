"""``metarl settings``, docs/settings.md and what ``metarl init`` prints are in step with the code."""

from __future__ import annotations

import pytest

from metarl.experiments.configuration import read_configuration, shipped_configurations
from metarl.experiments.start.settings_page import PAGE, listing, page
from metarl.experiments.start.template import template
from metarl.learners.registry import LEARNERS, read_settings


def test_the_page_is_what_the_script_writes() -> None:
    hint = "run: python -m metarl.experiments.start.settings_page"
    assert PAGE.read_text(encoding="utf-8") == page(), hint
    assert all(f"| `{key}` |" in page() for key in ("seed", "inner.step_size", "outer.kl_coefficient", "policy.name"))


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("inner.step_size", "inner.step_size = 0.1", 1),
        ("inner", "inner.steps = 1", 6),
        ("[inner]", "inner.steps = 1", 6),
        ("step-size", "inner.step_size = 0.1", 1),
        ("gamma", "learning.gamma = 0.99", 1),
        ("reptile", "outer.learning_rate = 1.0", 2),
        ("kl", "outer.kl_coefficient = 0.0005", 4),
    ],
)
def test_a_setting_is_found_by_its_name_its_section_its_learner_or_a_part(name: str, first: str, count: int) -> None:
    keys = [line for line in listing(name).splitlines() if not line.startswith(" ")]
    assert (keys[0], len(keys)) == (first, count)


def test_all_settings_are_listed_with_meaning_unit_and_owner() -> None:
    text = listing()
    assert "learning.step_timeout = 60.0\n    longest time" in text
    assert "(seconds); a number above 0\n    of all learners" in text
    assert "of learner anil" in text


@pytest.mark.parametrize(
    ("name", "hint"),
    [("inner.stepsize", "the nearest is 'inner.step_size'"), ("iner", "the nearest is 'inner'"), ("", "there is no")],
)
def test_an_unknown_name_suggests_a_near_one(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        listing(name)


@pytest.mark.parametrize("name", shipped_configurations())
def test_a_printed_configuration_reads_back_as_it_was(name: str, tmp_path: object) -> None:
    settings = read_configuration(name, [])[1]
    assert read_back(template(settings)) == settings


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_printed_configuration_has_the_learners_own_settings(learner: str) -> None:
    awkward = {"names": ["a # b", 'c "d" [', "e, f"], "table": {"a b": [[1, 2], []], "gravity": {"low": 1.5}}}
    settings = read_settings({"learner": learner, "family_kwargs": awkward})
    assert read_back(template(settings)) == settings


def read_back(text: str) -> object:
    import tomllib

    return read_settings(tomllib.loads(text))
