"""The settings tree: round trips, and every fault named at once."""

from __future__ import annotations

import pytest

from metarl.learners.registry import find_learner, read_settings
from metarl.settings import as_dict


def test_settings_survive_a_round_trip() -> None:
    settings = read_settings(
        {"policy": {"hidden_sizes": [3, 4]}, "inner": {"steps": 2}, "family_kwargs": {"a": [1, "b"]}}
    )
    assert settings.policy.hidden_sizes == (3, 4)
    assert read_settings(as_dict(settings)) == settings
    assert read_settings({}) == find_learner("maml")().settings


def test_all_faults_are_named_at_once_with_the_nearest_key() -> None:
    with pytest.raises(ValueError, match="unknown setting") as caught:
        read_settings({"iner": {}, "learning": {"task": 3, "gamma": 2.0}, "inner": {"step_size": "big"}, "seed": True})
    message = str(caught.value)
    for part in ("'iner'; the nearest is 'inner'", "'learning.task'", "'learning.tasks'", "learning.gamma is 2.0",
                 "inner.step_size is 'big'", "seed is True"):  # fmt: skip
        assert part in message, part


@pytest.mark.parametrize(
    "data",
    [
        {"learning": {"tasks": 2.5}},
        {"learning": {"tasks": "3"}},
        {"learning": 3},
        {"outer": {"damping": float("inf")}},
        {"outer": {"line_search_ratio": 1.0}},
        {"outer": {"fisher_fraction": 0.0}},
        {"policy": {"activation": "sigmoid"}},
        {"learner": "mamal"},
        {"family": 3},
    ],
)
def test_wrong_values_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|should"):
        read_settings(data)


def test_a_setting_of_several_kinds_says_what_each_expects() -> None:
    expected = r"^learning\.workers is 0; it should be 'auto', or be greater than or equal to 1$"
    with pytest.raises(ValueError, match=expected):
        read_settings({"learning": {"workers": 0}})
