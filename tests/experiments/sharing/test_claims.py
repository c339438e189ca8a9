"""Claims on work: one process gets each piece, a dead one's is free again, and what failed is not done twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.experiments.sharing import claims as claims_module
from metarl.experiments.sharing.claims import DONE, FAILED, Claim, Claimed, Claims
from metarl.experiments.sharing.share import TAKEN, End, share


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    found = Claims(tmp_path / "claims", grace=0.3)
    found.prepare()
    return found


def of_another_machine(claims: Claims, name: str) -> Path:
    """Write what a process of another machine writes, whose lock is not seen here."""
    path = claims.folder / name
    path.write_text(json.dumps({"host": "elsewhere", "machine": "node7", "process": 12}) + "\n")
    return path


def test_of_many_that_take_the_same_one_gets_it(claims: Claims) -> None:
    found: list[Claim | None] = []
    threads = [threading.Thread(target=lambda: found.append(claims.take("run", 0))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [one for one in found if one is not None]
    assert len(found) == 20
    assert claims.state("run").held
    assert claims.state("run").holder.startswith(f"process {os.getpid()} on ")
    assert not claim.lost
    claim.end(DONE)
    assert claims.state("run") == Claimed(1, ended=DONE)
    assert claims.take("run", 0) is None
    again = claims.take("run", 1)
    assert again is not None
    again.end(FAILED, "the numbers are not finite")
    assert claims.state("run") == Claimed(2, ended=FAILED, failure="the numbers are not finite")


def die_with_a_claim(folder: Path) -> None:
    assert Claims(folder).take("run", 0) is not None
    os._exit(9)


def test_the_claim_of_a_dead_process_of_this_machine_is_free_at_once(claims: Claims) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_with_a_claim, args=(claims.folder,))
    process.start()
    process.join()
    state = Claims(claims.folder).state("run")
    assert (process.exitcode, state.number, state.held, state.ended) == (9, 1, False, "")


def test_a_process_of_another_machine_lives_while_its_file_is_touched(claims: Claims) -> None:
    path = of_another_machine(claims, "run.1")
    assert claims.state("run").holder == "process 12 on node7"
    for _ in range(4):
        time.sleep(0.15)
        os.utime(path)
        assert claims.state("run").held
    deadline = time.monotonic() + 20
    while claims.state("run").held:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert claims.state("run").number == 1


def test_a_holder_touches_its_file_and_notices_that_it_was_replaced(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "BEAT_SECONDS", 0.05)
    claim = claims.take("run", 0)
    assert claim is not None
    path = claims.folder / "run.1"
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 20
    while path.stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    of_another_machine(claims, "run.2")
    assert claim.lost
    claim.end(DONE)
    assert "ended" not in path.read_text()
    assert claims.state("run").number == 2


def test_what_waits_goes_on_when_the_holder_has_ended(claims: Claims) -> None:
    claim, order = claims.take("tables", 0), []
    assert claim is not None

    def write() -> None:
        with Claims(claims.folder).waiting_for("tables"):
            order.append("second")

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.3)
    order.append("first")
    claim.end(DONE)
    thread.join(20)
    assert order == ["first", "second"]


def worker(meanwhile: Callable[[str], None], done: set[str]) -> Callable[[Claims, int, str], str | None]:
    """Return work that takes its claim as training does, while another process does something."""

    def work(own: Claims, number: int, name: str) -> str | None:
        claim = own.take(name, number)
        if claim is None:
            return TAKEN
        meanwhile(name)
        done.add(name)
        claim.end(DONE)
        return None

    return work


def test_each_piece_is_done_once_and_the_others_are_reported(
    claims: Claims, capsys: pytest.CaptureFixture[str]
) -> None:
    other, done, theirs = Claims(claims.folder), {"finished"}, {}

    def meanwhile(name: str) -> None:
        if name == "a":
            for one in ("b", "c", "d"):
                theirs[one] = other.take(one, 0)
            theirs["b"].end(FAILED, "the disk is full")
            done.add("c")
            theirs["c"].end(DONE)
            threading.Timer(0.3, lambda: (done.add("d"), theirs["d"].end(DONE))).start()

    before = other.take("e", 0)
    assert before is not None
    before.end(FAILED, "an earlier failure, which is tried again")
    calls = {name: (name,) for name in ("a", "b", "c", "d", "e")}
    ends = list(share(worker(meanwhile, done), calls, claims, done.__contains__, parallel=1))
    assert ends == [
        End("a", None, here=True), End("b", "the disk is full", here=False), End("c", None, here=False),
        End("e", None, here=True), End("d", None, here=False),
    ]  # fmt: skip
    assert f"Waiting for d (process {os.getpid()} on " in capsys.readouterr().out


def test_without_waiting_what_others_have_is_left_to_them(claims: Claims, capsys: pytest.CaptureFixture[str]) -> None:
    of_another_machine(claims, "b.1")
    done: set[str] = set()
    calls = {name: (name,) for name in ("a", "b")}
    work = worker(lambda name: None, done)
    ends = list(share(work, calls, claims, done.__contains__, parallel=1, waits=False))
    assert ends == [End("a", None, here=True)]
    assert "Left to others: b (process 12 on node7)" in capsys.readouterr().out
    # A second later that machine counts as dead, and its work is done here.
    ends = list(share(work, calls, claims, done.__contains__, parallel=1))
    assert ends == [End("a", None, here=False), End("b", None, here=True)]
