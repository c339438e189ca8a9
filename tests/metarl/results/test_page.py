"""docs/evaluation.md: its example runs as it stands, and it names every protocol, setting and statistic."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import forked

from metarl.protocols.evaluate import PROTOCOLS
from metarl.protocols.pearl import TEST_TASKS
from metarl.results import aggregates
from metarl.settings import Evaluating

PAGE = (Path(__file__).parents[3] / "docs/evaluation.md").read_text()


def test_the_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = forked.run(cwd=tmp_path, code=code)
    assert done.returncode == 0, done.stderr
    assert "2 seeds and their tasks" in done.stdout
    assert "(2, 5, 2, 3)" in done.stdout


def test_every_protocol_and_setting_is_on_the_page() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \|$", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(PROTOCOLS)
    for name in ("success", "record", "best", "protocol", "exploration", "shots", "beyond", "seed"):
        assert name in {field.name for field in dataclasses.fields(Evaluating)}
        assert name in PAGE
    for count in set(TEST_TASKS.values()):
        assert re.search(rf"\b{count} of", PAGE), count


def test_every_statistic_on_the_page_is_there() -> None:
    (table,) = re.findall(r"\| statistic \| what it is \|\n(.*)", PAGE, flags=re.DOTALL)
    names = re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE)
    assert len(names) == 7
    assert all(callable(getattr(aggregates, name)) for name in names)
