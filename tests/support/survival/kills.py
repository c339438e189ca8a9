"""Runs that are killed at any moment from their first instruction on, and must go on to the same bits.

``kill_and_resume`` is a function of a seed. ``make kills KILLS=500`` tries so many.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import forked
import numpy as np

TINY = (
    "family_kwargs.pulls=5", "learning.iterations=4", "learning.tasks=2", "learning.episodes=2",
    "policy.hidden_sizes=[4]", "evaluation.every=2", "evaluation.tasks=2", "evaluation.test_tasks=2",
    "evaluation.episodes=2", "evaluation.steps=1",
)  # fmt: skip
# Learners of all kinds: with tensors of their own, with stable-baselines3, without training.
LEARNERS = ("maml", "meta-sgd", "reptile outer.optimizer=adam outer.learning_rate=0.01", "pretrained", "scratch")
SAME = ("results.json", "progress.csv", "config.toml", "checkpoints/last.zip", "checkpoints/best.zip")
# Counts what changes files, and dies just before the one with a given number; at the end it writes how many there were.
DYING = """
import atexit, os, signal, sys
at, seen, here = {at}, 0, os.getcwd()
def count(event, arguments):
    global seen
    if event == "open":
        path, mode, flags = arguments
        changes = isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    else:
        path = arguments[0] if event in ("os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir") else None
        changes = isinstance(path, (str, bytes))
    if changes and (not os.path.isabs(path) or os.fsdecode(path).startswith(here)):
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
"""
COUNTED = "atexit.register(lambda: open('/proc/self/fd/2', 'w').write(f'\\nevents {seen}\\n'))\n"


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted: its folder, how many changes of files it makes, and how long it takes."""

    folder: Path
    events: int
    seconds: float


def command(learner: str, name: str, *, compared: bool = False) -> list[str]:
    """Return the arguments of a run in ``runs/<name>``."""
    if compared:
        return ["compare", "bernoulli-bandit", "--learners", learner, "--seeds", "1", "--out", f"runs/{name}", *TINY]
    first, *settings = learner.split()
    return ["train", "bernoulli-bandit", f"learner={first}", *settings, *TINY, "--name", name]


def make_wholes(out: Path, learners: tuple[str, ...] = LEARNERS) -> dict[str, Whole]:
    """Train a run of each learner without interruption."""
    found = {}
    for learner in learners:
        name = learner.split()[0]
        began = time.monotonic()
        done = forked.run(*command(learner, name), cwd=out, code=DYING.format(at=0) + COUNTED + forked.COMMAND)
        seconds = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        events = int(done.stderr.rpartition("events ")[2])
        assert events > 20
        found[learner] = Whole(out / "runs" / name, events, seconds)
    return found


def kill_and_resume(wholes: dict[str, Whole], work: Path, seed: int) -> str:
    """Kill a run, and perhaps what resumes it; go on, and compare with the run that nothing interrupted.

    Args:
        wholes: what ``make_wholes`` returned.
        work: an empty folder.
        seed: of learner, command and moments.

    Returns:
        What was found after the first kill: ``nothing``, ``begun`` or ``finished``.
    """
    rng = np.random.default_rng(seed)
    learner = list(wholes)[seed % len(wholes)]
    whole = wholes[learner]
    compared = bool(rng.random() < 0.3)
    start = command(learner, "killed", compared=compared)
    run = work / "runs/killed"
    if compared:
        run /= "-".join(learner.replace("=", "-").split()) + "-1"
    resume = ["train", "--resume", str(run.relative_to(work))]
    _kill(start, work, whole, rng)
    state = "finished" if (run / "results.json").exists() else "begun" if run.exists() else "nothing"
    told = f"seed {seed}, {learner}, {'compare' if compared else 'train'}, {state} after the first kill"
    if rng.random() < 0.4:
        _kill(resume if run.exists() and not compared else start, work, whole, rng)
    goes_on = compared or not (run / "results.json").exists()
    if goes_on:
        _succeeds(start if compared or not run.exists() else resume, work, told)
    for name in SAME:
        assert (run / name).read_bytes() == (whole.folder / name).read_bytes(), f"{name} differs: {told}"
    # What a start left is deleted an hour later, since it may be one that starts right now; what a run left that was
    # killed when it had written everything, when it is next used.
    folders = [path for path in (run, run / "checkpoints") if state == "begun" and goes_on]
    left = [path.name for folder in folders for path in folder.glob("*.part")]
    assert not left, f"{left} is left over: {told}"
    return state


def _kill(arguments: list[str], work: Path, whole: Whole, rng: np.random.Generator) -> None:
    """Start the command and kill it, before a change of a file or after a time."""
    if rng.random() < 0.7:
        code = DYING.format(at=int(rng.integers(1, whole.events + 1)))
        forked.start(*arguments, cwd=work, code=code + forked.COMMAND).finish()
        return
    process = forked.start(*arguments, cwd=work)
    time.sleep(rng.uniform(0.0, whole.seconds))
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.finish()


def _succeeds(arguments: list[str], work: Path, told: str) -> None:
    done = forked.run(*arguments, cwd=work)
    assert done.returncode == 0, f"{told}\n{done.stderr}"
    assert "metarl:" not in done.stderr, f"a kill alone is nothing to complain of: {told}\n{done.stderr}"


def main() -> int:
    """Kill as many runs as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    failed, states = 0, []
    with tempfile.TemporaryDirectory() as folder:
        wholes = make_wholes(Path(folder))
        for seed in range(options.first, options.first + options.kills):
            with tempfile.TemporaryDirectory() as work:
                try:
                    states.append(kill_and_resume(wholes, Path(work), seed))
                except AssertionError as error:
                    failed += 1
                    print(error, flush=True)
    forked.close()
    print({state: states.count(state) for state in sorted(set(states))}, f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
