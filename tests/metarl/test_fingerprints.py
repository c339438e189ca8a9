"""Training gives the bits it gave: three iterations of every learner on navigation, and what is compared elsewhere.

Where this machine's libraries compute other bits than the kept ones are of, norms, returns and steps are compared
roughly; ``test_this_machine_computes_the_kept_bits`` then says so.
"""

from __future__ import annotations

import json
from typing import Any

import fingerprints
import pytest

from metarl.learners.registry import LEARNERS

KEPT: dict[str, Any] = json.loads(fingerprints.KEPT.read_text(encoding="utf-8"))
CASES = {name: (learner, arguments) for name, learner, arguments in fingerprints.cases()}


def test_this_machine_computes_the_kept_bits() -> None:
    if KEPT["arithmetic"] != fingerprints.arithmetic():
        pytest.skip("this machine's libraries compute other bits: fingerprints are compared roughly")
    assert fingerprints.arithmetic() == KEPT["arithmetic"]


def test_every_learner_has_a_fingerprint_on_each_family() -> None:
    assert KEPT["cases"].keys() == CASES.keys()
    found = {(name.partition(",")[0], learner) for name, (learner, _) in CASES.items()}
    assert found == {(family, learner) for family in fingerprints.FAMILIES for learner in LEARNERS}


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("navigation")])
def test_training_on_navigation_gives_what_it_gave(name: str) -> None:
    found = fingerprints.fingerprint(*CASES[name])
    to_the_bit = KEPT["arithmetic"] == fingerprints.arithmetic()
    assert fingerprints.differences(name, KEPT["cases"][name], found, to_the_bit=to_the_bit) == []


@pytest.mark.parametrize("name", ["navigation, maml, fast", "bandit, maml, fast"])
def test_a_rough_comparison_sees_what_is_no_rounding(name: str) -> None:
    kept = KEPT["cases"][name]
    close = {**kept, "parameters": "other", "norm": 1.001 * kept["norm"]}
    assert fingerprints.differences(name, kept, close, to_the_bit=False) == []
    assert len(fingerprints.differences(name, kept, close, to_the_bit=True)) == 2
    for change in (
        {"norm": 1.1 * kept["norm"]},
        {"returns": [value - 10.0 for value in kept["returns"]]},
        {"timesteps": kept["timesteps"] + 100},
    ):
        assert len(fingerprints.differences(name, kept, {**kept, **change}, to_the_bit=False)) == 1
