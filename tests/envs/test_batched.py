"""Batched families: their public hooks, the page that shows how to write one, and that nothing private is shared."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_families import SameDynamics

from metarl.envs import BatchedFamily, SingleFamily

ROOT = Path(__file__).parents[2]


def test_the_page_on_batched_families_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs/write-a-family.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "my_module.py").write_text("\n".join(blocks))
    code = "import metarl; print(metarl.check_family('my_module:ThrowBatched-v0'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr


class Wrong(SameDynamics):
    """Returns arrays of other shapes than it must, if asked to."""

    wrong = ""

    def apply_actions(self, actions: Any, indices: Any) -> Any:
        rewards, terminated = super().apply_actions(actions, indices)
        return rewards[:1] if self.wrong == "rewards" else rewards, terminated[
            0
        ] if self.wrong == "ends" else terminated

    def observe(self) -> Any:
        return super().observe()[:, :1] if self.wrong == "observations" else super().observe()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("rewards", r"apply_actions of Wrong returned rewards of shape \(1,\), expected \(3,\), one for each"),
        ("ends", r"apply_actions of Wrong returned which terminated of shape \(\), expected \(3,\)"),
        (
            "observations",
            r"observe of Wrong gave the observation as an array of shape \(3, 1\) .*, expected .* \(3, 2\)",
        ),
    ],
)
def test_a_hook_that_returns_other_shapes_is_named(wrong: str, message: str) -> None:
    vector = Wrong(3)
    vector.reset()
    vector.step(np.ones((3, 1), np.float32))
    vector.wrong = wrong
    with pytest.raises(ValueError, match=message):
        vector.step(np.ones((3, 1), np.float32))


def test_the_page_names_hooks_that_exist_and_every_hook_has_a_docstring() -> None:
    page = (ROOT / "docs/write-a-family.md").read_text()
    named = re.findall(r"^\| `(\w+)\(", page, flags=re.MULTILINE)
    assert named == ["start_episodes", "apply_actions", "observe", "validate_tasks"]
    for base in (BatchedFamily, SingleFamily):
        public = [name for name in vars(base) if not name.startswith("_")]
        hidden = [name for name in public if callable(vars(base)[name]) and not vars(base)[name].__doc__]
        assert hidden == []
    assert set(named) <= set(vars(BatchedFamily))
