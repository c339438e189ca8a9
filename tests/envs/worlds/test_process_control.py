"""The page on process control: its plant is a family, and what has drifted matters and does not show."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import metarl

PAGE = Path(__file__).parents[3] / "docs/worlds/process-control.md"
NAME = "env_params['custom_model'].UA"


def block(kind: str) -> str:
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_configuration_varies_what_the_page_says() -> None:
    family_kwargs = tomllib.loads(block("toml"))["family_kwargs"]
    assert family_kwargs["parameters"] == {NAME: [5e4, 7e4]}
    compile(block("python file=reactor.py"), "reactor.py", "exec")
    assert family_kwargs["env"] == "reactor:Reactor-v0"


@pytest.mark.filterwarnings("ignore")  # of the packages' own
def test_the_plant_is_a_family_in_which_the_drift_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pcgym", reason="needs the extra [process]")
    (tmp_path / "reactor.py").write_text(block("python file=reactor.py"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    settings = tomllib.loads(block("toml"))
    assert metarl.check_family(settings["family"], **settings["family_kwargs"]) == []
    played = []
    for conductance in (5e4, 7e4):
        env = metarl.make(settings["family"], task={NAME: conductance}, **settings["family_kwargs"])
        first, _ = env.reset()
        steps = [env.step(np.zeros(1, np.float32)) for _ in range(19)]
        assert [step[2] for step in steps] == [False] * 18 + [True]
        played.append((first, sum(step[1] for step in steps)))
    np.testing.assert_array_equal(played[0][0], played[1][0])
    assert abs(played[0][1] - played[1][1]) > 3.0
