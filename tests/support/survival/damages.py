"""Damaged run folders: how files come to harm, and what must be true after such a run was resumed.

``damage_and_resume`` is a function of a seed, so that whatever it finds can be found again.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from metarl.experiments import training
from metarl.experiments.command import main
from metarl.experiments.runs import Run
from metarl.learners.registry import find_learner, read_settings
from metarl.sb3.loggers import run_logger
from metarl.settings import Settings

SETTINGS = read_settings(
    {
        "family": "metarl/BernoulliBandit-v0",
        "family_kwargs": {"pulls": 5},
        "learning": {"iterations": 6, "tasks": 2, "episodes": 2},
        "policy": {"hidden_sizes": [4]},
        "evaluation": {"every": 3, "tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 1, "seed": "run"},
    }
)
OTHERS = {
    "other": replace(SETTINGS, learner="fomaml", seed=7),  # another learner's
    "sibling": replace(SETTINGS, inner=replace(SETTINGS.inner, step_size=3.0)),  # the same learner's
}
LAST, BEST = "checkpoints/last.zip", "checkpoints/best.zip"
FILES = ("cost.json", "progress.csv", "results.json", BEST, LAST, "lock", "machine.json", "config.toml")
SAME = ("results.json", LAST, BEST, "config.toml")


def make_runs(out: Path) -> None:
    """Make run folders: ``whole``, the same after 2 and 3 of 6 iterations (``early``, ``half``), and two others."""
    for name, iterations in (("early", 2), ("half", 3)):
        interrupted(out, name, SETTINGS, iterations)
    for name, settings in {"whole": SETTINGS, **OTHERS}.items():
        training.train(settings, out, name, progress_bar=False)


def interrupted(out: Path, name: str, settings: Settings, iterations: int) -> None:
    """Make the folder of a run that was stopped after some iterations."""
    learner = find_learner(settings.learner).from_settings(settings)
    run = Run.create(out, name, name, settings, learner.save)
    learner.set_logger(run_logger(run.folder))

    class Stops(training.SaveLast):
        def _on_step(self) -> bool:
            super()._on_step()
            if learner.iteration == iterations:
                raise KeyboardInterrupt
            return True

    with contextlib.suppress(KeyboardInterrupt):
        learner.learn(callback=Stops(run), reset_num_timesteps=False)
    learner.logger.close()
    learner.close()


def empty(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def cut(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Leave its beginning."""
    data = path.read_bytes() if path.exists() else b"{}"
    path.write_bytes(data[: int(rng.integers(0, max(len(data), 1)))])


def garbage(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Put bytes into it that mean nothing."""
    path.write_bytes(b"\x00\xff\xfe" + rng.bytes(int(rng.integers(1, 200))))


def listed(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Put something else into it that can be read."""
    path.write_text("[1, 2]\n")


def foreign(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Put another run's in its place."""
    if other.exists():
        shutil.copyfile(other, path)


def missing(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Delete it."""
    path.unlink(missing_ok=True)


def folder(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Put a folder in its place, with a file."""
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def dangling(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Put a link in its place that leads nowhere."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent / "nowhere" / "at-all")


def longer(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Add bytes to its end."""
    data = path.read_bytes() if path.exists() else b""
    path.write_bytes(data + b"\x00\xff more")


def shorter(path: Path, other: Path, rng: np.random.Generator) -> None:
    """Delete a line in its middle."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if len(lines) > 2:
        del lines[int(rng.integers(1, len(lines) - 1))]
        path.write_bytes(b"".join(lines))


KINDS: tuple[Callable[[Path, Path, np.random.Generator], None], ...] = (
    empty, cut, garbage, listed, foreign, missing, folder, dangling, longer, shorter,
)  # fmt: skip


def damage_and_resume(made: Path, work: Path, seed: int) -> str:
    """Damage one to three files of a run, resume it, check what is left, and return what was done.

    Args:
        made: the folder that ``make_runs`` filled.
        work: an empty folder.
        seed: of what is damaged.
    """
    rng = np.random.default_rng(seed)
    state = str(rng.choice(["early", "half", "whole", "untested"]))
    run = work / "run"
    shutil.copytree(made / ("whole" if state == "untested" else state), run)
    if state == "untested":
        (run / "results.json").unlink()
    done: dict[str, str] = {}
    for name in rng.choice(FILES, size=int(rng.integers(1, 4)), replace=False):
        kind = KINDS[int(rng.integers(len(KINDS)))]
        donor = str(rng.choice([*OTHERS, "early", "whole"]))
        if (state, name, kind) == ("early", "progress.csv", foreign):
            kind = garbage  # before the first validation, nothing tells rows of runs with as many steps apart
        kind(run / name, made / donor / name, rng)
        done[str(name)] = f"{kind.__name__} {donor}" if kind is foreign else kind.__name__
    before = {name: (run / name).read_bytes() for name in done if (run / name).is_file()}
    status, printed = resume(work)
    told = f"seed {seed}, {state}, {done}: status {status}\n{printed}"
    assert "Traceback" not in printed, told
    assert all(line.startswith(("metarl: ", "iteration ")) for line in printed.splitlines()), told
    if "config.toml" in done and done.get(LAST, "").startswith("foreign"):
        return told  # nothing that is left tells whose run it was, so the checkpoint is believed
    if status == 0 or "is finished" in printed:
        # A zip file with bytes after its end is whole and may stay, and so is a file that lacks a setting's default.
        harmless = {LAST: "longer", BEST: "longer", "config.toml": "shorter", "results.json": "shorter"}
        same = [name for name in SAME if done.get(name, "") != harmless[name]]
        if "results.json" not in same:
            found, expected = (json.loads((path / "results.json").read_text()) for path in (run, made / "whole"))
            assert {**found, "settings": None} == {**expected, "settings": None}, told
        _check_finished(run, made / "whole", same, printed, told)
    else:
        assert status in (1, 2), told
        assert {LAST, "lock", "config.toml"} & set(done), f"refused without need: {told}"
        assert "'run" in printed.strip().splitlines()[-1], f"no file is named: {told}"
        assert not (run / "results.json").is_file() or state == "whole" or "results.json" in done, told
    kept = {path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for name, data in before.items():
        # What is empty or an older file of the run itself need not be kept, nor rows that are computed again.
        own = any((made / each / name).is_file() and data in (made / each / name).read_bytes()
                  for each in ("early", "half", "whole"))  # fmt: skip
        rows = name == "progress.csv" and ("progress.csv" not in printed or done[name] == "shorter")
        junk = (name, done[name]) in ((LAST, "longer"), (BEST, "longer"))
        assert not data.strip() or own or rows or junk or name == "lock" or data in kept, f"{name} is lost: {told}"
    return told


def resume(work: Path) -> tuple[int, str]:
    """Go on with the run in a folder; return the status and what was written to standard error."""
    printed = io.StringIO()
    with contextlib.chdir(work), contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        status = main(["train", "--resume", "run"])
    return status, printed.getvalue()


def _check_finished(run: Path, whole: Path, same: Sequence[str], printed: str, told: str) -> None:
    for name in same:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs: {told}"
    assert isinstance(json.loads((run / "machine.json").read_text()), dict), told
    cost, expected = (json.loads((folder / "cost.json").read_text()) for folder in (run, whole))
    assert cost["environment_steps"] == expected["environment_steps"], f"cost.json differs: {told}"
    assert cost["seconds"] is not None or "run/cost.json" in printed, f"seconds are lost without a word: {told}"
    rows, all_rows = _rows(run), _rows(whole)
    assert all(all_rows[number] == row for number, row in rows.items()), f"a row is not the run's: {told}"
    assert rows.keys() == all_rows.keys() or "run/progress.csv" in printed, f"rows are lost without a word: {told}"


def _rows(run: Path) -> dict[str, dict[str, str]]:
    text = (run / "progress.csv").read_text() if (run / "progress.csv").exists() else ""
    if not text:
        return {}
    header, *lines = [line.split(",") for line in text.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]
    return {row["rollout/iteration"]: {key: value for key, value in row.items() if value} for row in rows}
