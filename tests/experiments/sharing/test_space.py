"""The ranges and choices of a sweep's command line."""

from __future__ import annotations

import pytest

from metarl.experiments.sharing.launching import in_jobs, parse_jobs
from metarl.experiments.sharing.space import Searched, split


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.b=1e-4..1e-2:log", Searched(1e-4, 1e-2, log=True)),
        ("a.b=log(1e-4, 1e-2)", Searched(1e-4, 1e-2, log=True)),
        ("a.b=0..1", Searched(0, 1)),
        ("a.b=uniform(0,1)", Searched(0, 1)),
        ("a.b=1..5:int", Searched(1, 5, integer=True)),
        ("a.b=int(1,5)", Searched(1, 5, integer=True)),
        ("a.b=tanh,relu", Searched(choices=("tanh", "relu"))),
        ("a.b=choice(0.5, true)", Searched(choices=(0.5, True))),
        ("a.b=[32,32],[64,64]", Searched(choices=([32, 32], [64, 64]))),
    ],
)
def test_ranges_and_choices_are_read(text: str, found: Searched) -> None:
    assert split([text]) == ([], {text.partition("=")[0]: found})


def test_other_settings_are_given() -> None:
    texts = ["learner=maml", "policy.hidden_sizes=[64,64]", "inner.step_size=0.1", "family_kwargs.text=a.b"]
    given, searched = split(texts)
    assert dict(given) == {
        "learner": "maml", "policy.hidden_sizes": [64, 64], "inner.step_size": 0.1, "family_kwargs.text": "a.b",
    }  # fmt: skip
    assert searched == {}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["a=5..1"], "'a=5..1' goes from 5 to 1"),
        (["a=0..1:log"], "begins at 0; expected ends above 0 for log"),
        (["a=0..1:wide"], "ends in 'wide'; expected one of"),
        (["a=0..1:scale"], "ends in 'scale', which is for --vary; expected KEY=LOW..HIGH"),
        (["a=low..high"], "has the range 'low..high', whose ends are no two numbers"),
        (["a=log(1)"], "'a=log(1)' has 1 values; expected two"),
        (["a=log(x,1)"], "whose ends are no two numbers"),
        (["a=choice(tanh)"], "has a choice twice or only one"),
        (["a=tanh,tanh"], "has a choice twice or only one"),
        (["a=tanh,,relu"], "has an empty choice"),
        (["a=1..2", "a=2..3"], "a is searched twice"),
        (["a"], "'a' is no setting; expected key=value"),
    ],
)
def test_a_range_that_cannot_be_is_named(texts: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"expected|give") as caught:
        split(texts)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jobs_run_the_same_command_without_submitting_and_waiting() -> None:
    words = ["compare", "navigation", "--submitit", "2 executor=local", "--seeds", "2"]
    assert in_jobs(words) == ["compare", "navigation", "--seeds", "2", "--no-wait"]
    assert in_jobs(["sweep", "--submitit=2", "--no-wait", "x"]) == ["sweep", "--no-wait", "x"]


@pytest.mark.parametrize(
    ("text", "part"), [("", "''"), ("slurm", "'slurm'"), ("0", "'0'"), ("2 gpu", "'gpu' is no setting")]
)
def test_jobs_that_cannot_be_read_are_named(text: str, part: str) -> None:
    with pytest.raises(ValueError, match="--submitit is") as caught:
        parse_jobs(text)
    assert part in str(caught.value)
