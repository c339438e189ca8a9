"""Run folders: what a run leaves, and where. Nothing in them is ever overwritten but what is so far.

That is the latest checkpoint, ``checkpoints/last.zip``, and what training took until then, ``cost.json``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from metarl.experiments.configuration import read_configuration, to_toml
from metarl.settings import Settings
from metarl.version import __version__

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PACKAGES = ("gymnasium", "numpy", "stable-baselines3", "tensorboard", "torch")


class Run:
    """A run's folder and the files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.last = folder / "checkpoints" / "last.zip"
        self.best = folder / "checkpoints" / "best.zip"
        self.results = folder / "results.json"
        self.evaluations = folder / "evaluations"
        self._cost = folder / "cost.json"
        self._lock = FileLock(folder / "lock", blocking=False)

    @classmethod
    def create(cls, out: Path, name: str | None, standard: str, settings: Settings) -> Run:
        """Make the folder of a new run.

        Args:
            out: the folder of all runs; it is made where it is missing.
            name: given by hand, and taken as it is; or None.
            standard: the name where none is given, numbered from the second run on.
            settings: written to ``config.toml``.

        Raises:
            ValueError: a name that is none or is taken, or a folder that cannot be written.
        """
        if name is not None and (not _NAME.fullmatch(name) or ".." in name):
            raise ValueError(
                f"the run name {name!r} is not allowed; use letters, digits, '.', '_' and '-', beginning with a letter "
                "or digit, without '/' and '..'"
            )
        try:
            out.mkdir(parents=True, exist_ok=True)
            folder = _take(out, name, re.sub(r"[^A-Za-z0-9._-]", "-", standard))
            run = cls(folder)
            run.config.write_text(to_toml(settings), encoding="utf-8")
            _write_json(folder / "machine.json", _machine())
        except FileExistsError as error:
            raise ValueError(f"there is already {error.filename!r}; choose another name or folder") from error
        except OSError as error:
            raise ValueError(f"the output folder {str(out)!r} cannot be written: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Return the run in a folder.

        Raises:
            ValueError: the folder is no run.
        """
        run = cls(folder)
        if not run.config.is_file() or not run.last.parent.is_dir():
            raise ValueError(
                f"{str(folder)!r} is no run: it lacks config.toml and checkpoints/; name a folder that "
                "'metarl train' made, as runs/navigation"
            )
        return run

    def lock(self) -> None:
        """Keep other processes from training in the folder; the lock of a process that died does not hold.

        Raises:
            ValueError: another process is training in it.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"another process is training in {str(self.folder)!r}; wait until it ends") from None

    def settings(self) -> Settings:
        """Return the run's settings."""
        return read_configuration(str(self.config), [])[1]

    def write_results(self, results: dict[str, Any]) -> None:
        """Write ``results.json``, once."""
        _write_json(self.results, results)

    def write_cost(self, cost: dict[str, Any]) -> None:
        """Write ``cost.json``, what training took so far, in place of the last one."""
        beside = self._cost.with_suffix(".json.part")
        beside.write_text(json.dumps(cost) + "\n", encoding="utf-8")
        beside.replace(self._cost)

    def cost(self) -> dict[str, Any] | None:
        """Return what training took so far, None where that was not written."""
        return json.loads(self._cost.read_text(encoding="utf-8")) if self._cost.exists() else None

    def next_evaluation(self, results: dict[str, Any]) -> Path:
        """Write ``evaluations/<n>.json`` with the next free number and return its path."""
        self.evaluations.mkdir(exist_ok=True)
        number = 1
        while True:
            path = self.evaluations / f"{number}.json"
            try:
                _write_json(path, results)
            except FileExistsError:
                number += 1
            else:
                return path


def _take(out: Path, name: str | None, standard: str) -> Path:
    if name is not None:
        folder = out / name
        folder.mkdir()
        return folder
    number = 1
    while True:
        folder = out / (standard if number == 1 else f"{standard}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a new file whole or not at all.

    Raises:
        FileExistsError: there is one.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    try:
        os.link(beside, path)
    finally:
        beside.unlink()


def _machine() -> dict[str, Any]:
    """Return the versions and the machine a run was made with."""
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {
        "metarl": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
