"""One run on several processes: the same bits as on one, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked
import pytest
import ranked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY, scalars

SAME = ("results.json", "progress.csv", "config.toml", "checkpoints/last.zip", "checkpoints/best.zip")
# So many tasks that one process of three has no test task of the last group, and one of four no validation task.
FIVE = [*TINY, "learning.tasks=7", "evaluation.tasks=5", "evaluation.test_tasks=9"]
NAVIGATION = ["train", "navigation", *FIVE, "--name", "run"]


def in_ranks(count: int, cwd: Path, *arguments: str) -> Path:
    """Train in so many processes; return the run's folder."""
    cwd.mkdir(exist_ok=True)
    done = ranked.run(count, *arguments, cwd=cwd)
    assert [one.returncode for one in done] == [0] * count, [one.stderr for one in done]
    assert all(one.stdout == "" and one.stderr == "" for one in done[1:]), "only rank 0 speaks"
    return cwd / "runs" / "run"


def alone(cwd: Path, *arguments: str) -> Path:
    cwd.mkdir(exist_ok=True)
    done = forked.run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "runs" / "run"


def assert_same(run: Path, whole: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def shown(run: Path) -> Mapping[str, Any]:
    """Return what TensorBoard shows of a run, but for times."""
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0})
    accumulator.Reload()
    pictures = {tag: [each.encoded_image_string for each in accumulator.Images(tag)]
                for tag in accumulator.Tags()["images"]}  # fmt: skip
    return {**{tag: values for tag, values in scalars(run).items() if not tag.startswith("time/")}, **pictures}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(tmp_path_factory.mktemp("whole"), *NAVIGATION)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_processes_gives_the_bits_of_one(count: int, whole: Path, tmp_path: Path) -> None:
    run = in_ranks(count, tmp_path, *NAVIGATION)
    assert_same(run, whole)
    assert shown(run) == shown(whole)
    assert "validation/paths" in shown(run)
    assert sorted(path.name for path in tmp_path.rglob("*.zip")) == ["best.zip", "last.zip"]


def test_a_run_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    steps = [[*NAVIGATION, "learning.iterations=1"], *(
        ["train", "--resume", "runs/run", f"learning.iterations={count}"] for count in (2, 3)
    )]  # fmt: skip
    for arguments, count in zip(steps, (3, 2, 1), strict=True):
        whole = alone(tmp_path / "one", *arguments)
        several = tmp_path / "several"
        assert_same(in_ranks(count, several, *arguments) if count > 1 else alone(several, *arguments), whole)
