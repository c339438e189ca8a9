"""docs/few-tasks.md: its code runs, and it names all settings of augmentation."""

from __future__ import annotations

import dataclasses
import re

from source import ROOT

from metarl.augmenting.settings import Augmenting
from metarl.results import Evaluation

PAGE = (ROOT / "docs/few-tasks.md").read_text()


def test_the_code_of_the_page_runs(capsys: object) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    model = names["model"]
    evaluation = model.evaluate(n_tasks=3, episodes=2, steps=1)  # type: ignore[attr-defined]
    assert isinstance(evaluation, Evaluation)
    assert model.iteration == 2  # type: ignore[attr-defined]


def test_the_page_names_each_setting() -> None:
    named = set(re.findall(r"^\| `augment\.(\w+)`", PAGE, flags=re.MULTILINE))
    assert named == {entry.name for entry in dataclasses.fields(Augmenting)}
