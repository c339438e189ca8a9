"""Run folders and their files.

Only the checkpoints ``last.zip`` (the latest) and ``best.zip`` (the best so far), and ``cost.json``, the cost of
training so far, are ever overwritten. A folder appears together with its first checkpoint, so that every run with a
folder can be resumed. If settings change when a run is resumed, what they were is kept under numbered names.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from metarl.evaluation import points
from metarl.experiments.configuration import read_configuration, to_toml
from metarl.files import PART, flush_folder, in_words, naming, new_file, read_json, replacing, sweep_parts
from metarl.learners.registry import find_learner, read_settings
from metarl.results import Evaluation
from metarl.results.document import text_of
from metarl.results.versions import versions
from metarl.settings import Settings, as_dict

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_UNBEGUN = re.compile(r"\.[0-9a-f]{32}\.part")
_UNBEGUN_SECONDS = 3600.0  # age at which the temporary folder of a run counts as left over
_LEFTOVER = re.compile(
    r"(progress\.csv|config(-\d+)?\.toml|(cost|results(-\d+)?|machine|from)\.json|(last|best(-\d+)?)\.zip)(\.\d+)?\.part"
)
_WITHOUT_LOCK = re.compile(r"\d+\.(json|csv)|[^/]+\.(png|svg|pdf|gif|mp4)")  # what evaluate, picture and show write

# The settings that may be changed when a run is resumed.
CHANGEABLE = ("device", "learning.iterations", "learning.workers", "learning.step_timeout", "learning.restart_workers",
              "evaluation.every")  # fmt: skip


class Run:
    """A run's folder and the files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.last = folder / "checkpoints" / "last.zip"
        self.best = folder / "checkpoints" / "best.zip"
        self.results = folder / "results.json"
        self.evaluations = folder / "evaluations"
        self.replays = folder / "replays"
        self.progress = folder / "progress.csv"
        self.cost = folder / "cost.json"
        self.machine = folder / "machine.json"
        self._lock = FileLock(folder / "lock", blocking=False)

    @classmethod
    def create(
        cls,
        out: Path,
        name: str | None,
        standard: str,
        settings: Settings,
        save: Callable[[Path], None],
        origin: dict[str, Any] | None = None,
    ) -> Run:
        """Make the folder of a new run, completely or not at all.

        Args:
            out: the folder of all runs; it is made if it is missing.
            name: of the run's folder; None for ``standard``.
            standard: the default name, numbered from the second run on.
            settings: written to ``config.toml``.
            save: writes the checkpoint of the untrained learner.
            origin: what the run starts from, written to ``from.json``; None for a random start.

        Raises:
            ValueError: the name is not allowed or is taken, or the folder cannot be written.
        """
        if name is not None and (not _NAME.fullmatch(name) or ".." in name):
            raise ValueError(
                f"the run name {name!r} is not allowed; use letters, digits, '.', '_' and '-', beginning with a letter "
                "or digit, without '/' and '..', at most 200"
            )
        beside = out / f".{uuid.uuid4().hex}{PART}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            _sweep_unbegun(out)
            beside.mkdir()
            run = cls(beside)
            run.write_config(settings)
            run.write_machine()
            if origin is not None:
                _write_json(beside / "from.json", origin)
            run.write_cost({"environment_steps": 0, "seconds": 0.0})
            save(run.last)
            flush_folder(beside)
            return cls(_put(beside, out, name, re.sub(r"[^A-Za-z0-9._-]", "-", standard)))
        except FileExistsError as error:
            raise ValueError(f"there is already {error.filename!r}; choose another name or folder") from error
        except OSError as error:
            raise ValueError(f"the output folder {str(out)!r} cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in a folder.

        Raises:
            ValueError: the folder is not a run.
        """
        run = cls(folder)
        if not run.last.parent.is_dir() or not (run.config.is_file() or run.last.is_file()):
            raise ValueError(
                f"{str(folder)!r} is no run: it lacks config.toml and checkpoints/; name a folder that "
                "'metarl train' made, as runs/navigation"
            )
        return run

    def lock(self) -> None:
        """Keep other processes from training in the folder; the lock is released when this process ends.

        Raises:
            ValueError: another process is training in the folder, or it cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"another process is training in {str(self.folder)!r}; wait until it ends") from None
        except (OSError, NotImplementedError) as error:
            reason = in_words(error) if isinstance(error, OSError) else error
            raise ValueError(f"the run {str(self.folder)!r} cannot be locked: {reason}") from error

    def unlock(self) -> None:
        """Let other processes train in the folder again."""
        with contextlib.suppress(OSError):
            self._lock.release()

    def sweep(self) -> None:
        """Delete incomplete files of a killed process; the caller must hold the lock."""
        for folder in (self.folder, self.last.parent):
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink()
        self.sweep_evaluations()

    def sweep_evaluations(self) -> None:
        """Delete incomplete results and pictures of killed processes, which are written without the lock."""
        for folder in (self.folder, self.evaluations, self.replays):
            sweep_parts(folder, _WITHOUT_LOCK)

    def discard(self) -> None:
        """Delete the folder of a run that could not begin; only the caller of ``create`` may do so."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, overrides: Sequence[tuple[str, Any]] = ()) -> Settings:
        """Return the run's settings, with others in place of some.

        Raises:
            ValueError: ``config.toml`` is missing or damaged, or the settings are wrong.
        """
        if not self.config.is_file():
            raise ValueError(f"{str(self.config)!r} is missing; 'metarl train --resume {self.folder}' makes it again")
        return read_configuration(str(self.config), overrides)[1]

    def write_config(self, settings: Settings) -> None:
        """Write ``config.toml``, from which the run can be repeated."""
        with replacing(self.config) as beside:
            beside.write_text(to_toml(settings), encoding="utf-8")

    def write_machine(self) -> None:
        """Write ``machine.json``, the versions of packages and the properties of this machine; it must not exist."""
        _write_json(self.machine, _machine())

    def read_machine(self) -> dict[str, Any]:
        """Return the contents of ``machine.json``.

        Raises:
            ValueError: the file is missing, empty or damaged.
        """
        return read_json(self.machine)

    def keep_earlier(self, settings: Settings, iteration: int) -> None:
        """Keep what was true until now before settings change, each under the same next free number.

        These are the configuration, ``config-<n>.toml``, and of a finished run its results, ``results-<n>.json``, and
        the parameters that they are of, ``checkpoints/best-<n>.zip``.

        Args:
            settings: until now.
            iteration: after which they change.
        """
        number = self._free_number()
        config, results, best = self._earlier(number)
        if not self.kept_before(settings, iteration):
            with new_file(config) as beside:
                beside.write_text(_earlier_text(settings, iteration), encoding="utf-8")
        if self.results.is_file():
            if self.best.is_file():
                with new_file(best) as beside:
                    shutil.copyfile(self.best, beside)
            self.results.rename(results)
            flush_folder(self.folder)

    def kept_before(self, settings: Settings, iteration: int) -> bool:
        """Return whether the latest configuration that was kept is this one, with a change after this iteration."""
        path = self._earlier(self._free_number() - 1)[0]
        return path.is_file() and path.read_text(encoding="utf-8") == _earlier_text(settings, iteration)

    def _free_number(self) -> int:
        number = 1
        while any(os.path.lexists(path) for path in self._earlier(number)):
            number += 1
        return number

    def _earlier(self, number: int) -> tuple[Path, Path, Path]:
        return (
            self.folder / f"config-{number}.toml",
            self.folder / f"results-{number}.json",
            self.best.with_name(f"best-{number}.zip"),
        )

    def write_results(self, results: dict[str, Any], settings: Settings) -> None:
        """Write ``results.json``, which must not exist, with the settings of the run that they are of."""
        _write_json(self.results, {**results, "settings": as_dict(settings)})

    def read_results(self, settings: Settings) -> Evaluation:
        """Return the contents of ``results.json``.

        Raises:
            ValueError: the file is missing, empty or damaged, or is of a run with other settings.
        """
        found = read_json(self.results)
        kept = Evaluation.from_json(found)
        learner = find_learner(settings.learner)
        own = {"family": settings.family, "learner": learner.name, "seeds": [settings.seed]}
        for key, value in own.items():
            if found.get(key) != value:
                raise ValueError(f"is of another run: its {key} is {found.get(key)!r}, not {value!r}")
        if "settings" in found and not _same_as_written(found["settings"], settings):
            raise ValueError("is of another run: its settings differ")
        evaluating = settings.evaluation
        count = points(settings, remembers=learner.remembers)
        expected: tuple[Any, ...] = (evaluating.protocol, evaluating.episodes)
        found_here: tuple[Any, ...] = (kept.protocol, kept.episodes)
        if evaluating.protocol == "steps":
            expected = (*expected, tuple(range(count)), evaluating.test_tasks)
            found_here = (*found_here, kept.points, kept.n_tasks)
        if found_here != expected:
            raise ValueError("is of another run: its steps, tasks and episodes are not those of the configuration")
        return kept

    def write_cost(self, cost: dict[str, Any]) -> None:
        """Write ``cost.json``, the cost of training so far; an existing file is replaced."""
        with replacing(self.cost) as beside:
            beside.write_text(json.dumps(cost) + "\n", encoding="utf-8")

    def read_cost(self) -> dict[str, Any]:
        """Return the cost of training so far: ``environment_steps``, and ``seconds`` (None if unknown).

        Raises:
            ValueError: the file is missing, empty or damaged.
        """
        found = read_json(self.cost)
        steps, seconds = found.get("environment_steps"), found.get("seconds", -1)
        if type(steps) is not int or steps < 0:
            raise ValueError("is damaged")
        if seconds is not None and not (type(seconds) in (int, float) and 0 <= seconds < math.inf):
            raise ValueError("is damaged")
        return found

    def prepare_evaluations(self) -> None:
        """Make the folder of evaluations if it is missing, and delete incomplete files in it."""
        with naming(self.evaluations):
            self.evaluations.mkdir(exist_ok=True)
        self.sweep_evaluations()

    def next_evaluation(self, results: dict[str, Any], settings: Settings) -> Path:
        """Write ``evaluations/<n>.json`` with the next free number and return its path."""
        number = 1
        while True:
            path = self.evaluations / f"{number}.json"
            try:
                _write_json(path, {**results, "settings": as_dict(settings)})
            except FileExistsError:
                number += 1
            else:
                return path


def _earlier_text(settings: Settings, iteration: int) -> str:
    return f"# The configuration of this run until iteration {iteration}.\n{to_toml(settings)}"


def same_run(one: Settings, other: Settings) -> bool:
    """Return whether settings differ at most in those that may be changed when a run is resumed."""
    return _fixed(one) == _fixed(other)


def _same_as_written(plain: Any, settings: Settings) -> bool:
    try:
        return isinstance(plain, dict) and same_run(read_settings(plain), settings)
    except ValueError:
        return False


def _fixed(settings: Settings) -> dict[str, Any]:
    plain = as_dict(settings)
    for key in CHANGEABLE:
        section, _, name = key.rpartition(".")
        del (plain[section] if section else plain)[name]
    return plain


def set_aside(path: Path) -> Path:
    """Rename a damaged file, or one of another run, to a name that is never read, and return that path."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.aside-{number}")):
        number += 1
    return path.rename(aside)


def _put(beside: Path, out: Path, name: str | None, standard: str) -> Path:
    """Rename a folder to a free name; another process may be doing the same at the same time."""
    number = 1
    while True:
        folder = out / (name or (standard if number == 1 else f"{standard}-{number}"))
        if not os.path.lexists(folder):
            try:
                beside.rename(folder)
                flush_folder(out)
                return folder
            except OSError:
                if not os.path.lexists(folder):
                    raise
        if name is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        number += 1


def _sweep_unbegun(out: Path) -> None:
    """Delete old temporary folders of processes that were killed while they made a run's folder."""
    for path in out.iterdir():
        with contextlib.suppress(OSError):
            if _UNBEGUN.fullmatch(path.name) and time.time() - path.stat().st_mtime > _UNBEGUN_SECONDS:
                shutil.rmtree(path)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a new file completely or not at all.

    Raises:
        FileExistsError: the file exists.
    """
    with new_file(path) as beside:
        beside.write_text(text_of(data), encoding="utf-8")


def _machine() -> dict[str, Any]:
    """Return the versions of packages and the properties of this machine."""
    found = versions()
    return {
        "metarl": found.pop("metarl"),
        "python": found.pop("python"),
        "packages": found,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
