"""What becomes of a run if one of its processes refuses, fails, dies or hangs: all end, and one sentence says why."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import forked
import pytest
import ranked
from tiny_runs import TINY

TRAIN = ["train", "navigation", *TINY[:-1], "learning.tasks=4"]
LONG = [*TRAIN, "learning.iterations=100000", "evaluation.every=100000", "--name", "run", "--rank-timeout", "3"]
KEPT = r"; the checkpoint after iteration \d+ is in runs/run/checkpoints/last.zip"
GO_ON = r"; go on with: \S*metarl train --resume runs/run\n$"


def assert_refused(done: list[ranked.Done], sentence: str, status: int = 2) -> None:
    """Check that all ended with the status, and that the sentence is all that is said, by rank 0."""
    assert [one.returncode for one in done] == [status] * len(done), [one.stderr for one in done]
    assert re.fullmatch(f"metarl: {sentence}\n", done[0].stderr), done[0].stderr
    assert not any(one.stderr for one in done[1:]), "only rank 0 speaks"


@pytest.mark.parametrize(
    ("count", "settings", "sentence"),
    [
        (3, [], "an iteration of learner maml has 4 tasks here, .* to at most 2 processes, not 3; start fewer, or .*"),
        (2, ["learner=pretrained"], "learner pretrained trains in a single process, .*, not as 2 processes"),
        (2, ["inner.step_size=-1"], "inner.step_size is -1; .*"),
        (2, ["--processes", "3"], "--processes is 3, but torchrun has started 2 processes already; leave .* out"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(
    count: int, settings: list[str], sentence: str, tmp_path: Path
) -> None:
    done = ranked.run(count, *TRAIN, *settings, cwd=tmp_path)
    if "--processes" in settings:
        assert done.pop().returncode == 2
    assert_refused(done, sentence)
    assert not (tmp_path / "runs").exists()


def test_ranks_with_other_settings_or_families_are_named(tmp_path: Path) -> None:
    done = ranked.run(2, *TRAIN, cwd=tmp_path, others={1: [*TRAIN, "seed=2"]})
    assert_refused(done, r"rank 1 has other settings than rank 0 \('seed = 2', not 'seed = 1'\); start all .*")
    done = ranked.run(2, *TRAIN, cwd=tmp_path, others={1: ["train", "no-such-thing"]})
    assert_refused(done, "rank 1: .*no-such-thing.*")
    assert not (tmp_path / "runs").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = ranked.run(1, *TRAIN, "--rank-timeout", "2", cwd=tmp_path, MASTER_PORT=port, WORLD_SIZE="2")
    assert_refused(done, f"the processes could not meet at 127.0.0.1:{port}: the port is in use; check .*")


@pytest.mark.parametrize("processes", ["0", "-2"])
def test_a_number_of_processes_that_cannot_be_is_refused(processes: str, tmp_path: Path) -> None:
    done = forked.run(*TRAIN, "--processes", processes, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--processes is {processes}; expected a whole number of at least 1" in done.stderr


def test_an_environment_that_raises_is_named_with_its_rank_and_task(tmp_path: Path) -> None:
    support = Path(ranked.__file__).parents[1]
    for source in (support / "toy_families.py", support / "worlds" / "toy_ranks.py"):
        (tmp_path / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    lines = (
        'family = "toy_ranks:Breaks"',
        "seed = 2  # whose fifth task is above 0.5",
        "[learning]",
        "tasks = 6",
        "check = false",
    )
    (tmp_path / "breaks.toml").write_text("\n".join(lines))
    done = ranked.run(2, "train", "breaks.toml", "--name", "run", "--quiet", cwd=tmp_path)
    where = r"rank 1: iteration 1: toy_ranks:Breaks, task \[0\.68.*\], sub-environment \d+"
    assert_refused(done, f"{where} raised OSError: broken, at step 1{KEPT}; go on with: .*", 1)


def begun(cwd: Path) -> list[forked.Process]:
    """Return two ranks of a run that has made its first iterations."""
    started = ranked.start(2, *LONG, "--quiet", cwd=cwd)
    deadline = time.monotonic() + 60
    while not (cwd / "runs/run/progress.csv").exists() or not (cwd / "runs/run/progress.csv").stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return started


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(signal.SIGKILL, "rank 1 ended without a word, hangs, or cannot be reached"),
     (signal.SIGSTOP, "rank 1 ended without a word, hangs, or cannot be reached"),
     (signal.SIGTERM, "rank 1 was told to stop by a signal")],
)  # fmt: skip
def test_a_rank_that_dies_or_hangs_ends_all_in_time(number: int, sentence: str, tmp_path: Path) -> None:
    started = begun(tmp_path)
    began = time.monotonic()
    started[1].send_signal(number)
    first = started[0].finish(60.0)
    assert time.monotonic() - began < 3 + 5 + 5, "the patience, the grace, and as long again for a slow machine"
    assert first.returncode == 1
    assert re.fullmatch(f"metarl: {sentence}{KEPT}{GO_ON}", first.stderr), first.stderr
    if number == signal.SIGSTOP:
        started[1].send_signal(signal.SIGKILL)
    assert started[1].finish(60.0).stderr == ""


def test_without_rank_0_the_next_one_speaks(tmp_path: Path) -> None:
    started = begun(tmp_path)
    started[0].send_signal(signal.SIGKILL)
    started[0].finish(60.0)
    other = started[1].finish(60.0)
    assert other.returncode == 1
    # Before it, torch's own store may complain of the lost connection.
    assert other.stderr.splitlines()[-1] == "metarl: rank 0 has ended without a word, or its machine cannot be reached"


def test_ctrl_c_to_all_stops_them_with_one_sentence(tmp_path: Path) -> None:
    started = begun(tmp_path)
    for process in started:
        process.send_signal(signal.SIGINT)
    done = [process.finish(60.0) for process in started]
    assert [one.returncode for one in done] == [130, 130]
    assert re.fullmatch(f"metarl: stopped{KEPT}{GO_ON}", done[0].stderr), done[0].stderr
    assert done[1].stderr == ""
