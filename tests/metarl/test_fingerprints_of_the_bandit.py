"""Training on the bandit gives the bits it gave; see ``test_fingerprints``."""

from __future__ import annotations

import json
from typing import Any

import fingerprints
import pytest

KEPT: dict[str, Any] = json.loads(fingerprints.KEPT.read_text(encoding="utf-8"))
CASES = {name: given for name, *given in fingerprints.cases() if name.startswith("bandit")}


@pytest.mark.parametrize("name", CASES)
def test_training_on_the_bandit_gives_what_it_gave(name: str) -> None:
    found = fingerprints.fingerprint(*CASES[name])
    to_the_bit = KEPT["arithmetic"] == fingerprints.arithmetic()
    assert fingerprints.differences(name, KEPT["cases"][name], found, to_the_bit=to_the_bit) == []
