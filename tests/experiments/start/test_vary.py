"""How ``--vary`` is read: what each spelling means, and a sentence for each that means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from metarl.experiments.start.vary import parse_parameters


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("gravity=5..15", "gravity", [5, 15]),
        ("gravity=-12.5..-8", "gravity", [-12.5, -8]),
        ("gravity = 5 .. 15", "gravity", [5, 15]),
        ("gravity=.5..1.", "gravity", [0.5, 1.0]),
        ("gravity=1e-3..1E+3:log", "gravity", {"low": 0.001, "high": 1000.0, "log": True}),
        ("size=5..8:int", "size", {"low": 5, "high": 8, "integer": True}),
        ("size=5.0..8:int", "size", {"low": 5, "high": 8, "integer": True}),
        ("mass=0.5..2:scale", "mass", {"low": 0.5, "high": 2, "as": "scale"}),
        ("mass=0.5..2:log:absolute", "mass", {"low": 0.5, "high": 2, "log": True, "as": "absolute"}),
        ("length=0.5,1,-2", "length", {"choices": [0.5, 1, -2]}),
        ("game=breakout,asterix", "game", {"choices": ["breakout", "asterix"]}),
        ("slip=true,false", "slip", {"choices": [True, False]}),
        ("physics.mass=0.5..2", "physics.mass", [0.5, 2]),
        ("params['mass']=0.5..2", "params['mass']", [0.5, 2]),
        ("params['a=b']=0.5..2", "params['a=b']", [0.5, 2]),
        ("body_mass/torso=0.5..2", "body_mass/torso", [0.5, 2]),
    ],
)
def test_a_range_is_read(text: str, name: str, expected: Any) -> None:
    found = parse_parameters([text])
    assert found == {name: expected}
    if "integer" in expected:
        assert type(found[name]["low"]) is int


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["gravity"], "says no values; expected NAME=LOW..HIGH"),
        (["gravity="], "says no values"),
        (["=5..15"], "says no values"),
        (["gravity=5"], "the single value '5'"),
        (["gravity=5-15"], "the single value '5-15'"),
        (["gravity=5:15"], "the single value '5:15'"),
        (["gravity=5..."], "no two numbers"),
        (["gravity=..15"], "no two numbers"),
        (["gravity=5...15"], "no two numbers"),
        (["gravity=5..15..20"], "no two numbers"),
        (["gravity=five..15"], "no two numbers"),
        (["gravity=nan..15"], "no two numbers"),
        (["gravity=[5,15]"], "no two numbers"),
        (["gravity=1..1e999"], "too large"),
        (["gravity=15..5"], "from 15 to 5; expected the lower end first"),
        (["gravity=5..5"], "expected the lower end first"),
        (["gravity=0..5:log"], "begins at 0; expected ends above 0 for log"),
        (["gravity=5..15:lg"], "ends in 'lg'; expected one of log, int, scale, absolute"),
        (["gravity=5..15:"], "ends in ''"),
        (["size=5..8.5:int"], "expected whole numbers"),
        (["size=5..8:int:log"], "is int and log"),
        (["size=5..8:log:log"], "says twice"),
        (["size=5..8:scale:absolute"], "says twice"),
        (["length=1,,2"], "an empty choice"),
        (["length=1,2,1"], "a choice twice"),
        (["gravity=5..15", "gravity=1..2"], "names 'gravity' twice"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_parameters(texts)
    assert str(caught.value).startswith("--vary ")
