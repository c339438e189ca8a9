"""What the folders of runs hold, with a sentence for each thing that cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.experiments.runs import Run
from metarl.files import in_words, read_json
from metarl.learners.registry import read_settings
from metarl.results import Evaluation
from metarl.settings import as_dict

_AT_RUN = "config.toml", "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What could be read of a run.

    Attributes:
        folder: as it was given.
        settings: by dotted name.
        evaluation: the test after training; None if there is none (yet).
        progress: the columns of ``progress.csv`` by name, a row for each iteration, NaN where nothing was logged.
        cost: of ``cost.json``; empty if unknown.
        machine: of ``machine.json``; empty if unknown.
        origin: what training started from, of ``from.json``; None for a random start.
    """

    folder: Path
    settings: Mapping[str, Any]
    evaluation: Evaluation | None
    progress: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    origin: str | None = None


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the folders of runs that paths name; a folder of runs, as ``metarl compare`` makes, stands for all of its.

    Each folder is returned once. A path that names no run is returned as it is.
    """
    found: list[Path] = []
    for path in paths:
        within: list[Path] = []
        if path.is_dir() and not any((path / name).exists() for name in _AT_RUN):
            within = sorted(part for part in path.iterdir() if all((part / name).exists() for name in _AT_RUN))
        found.extend(within or [path])
    return list({path.resolve(): path for path in found}.values())


def read_run(folder: Path, faults: list[str]) -> Found | None:
    """Return what a run's folder holds; None if it is no run or nothing tells its settings.

    Args:
        folder: of the run.
        faults: gets a sentence for everything that cannot be read.
    """
    try:
        run = Run.open(folder)
    except ValueError as error:
        faults.append(f"{_text(error)}; the report is without it.")
        return None
    settings, evaluation = _settings_and_evaluation(run, faults)
    if settings is None:
        return None
    parts: dict[str, Any] = {}
    for name, read in (("cost", run.read_cost), ("machine", run.read_machine)):
        try:
            parts[name] = read()
        except (ValueError, OSError) as error:
            parts[name] = {}
            faults.append(f"{str(folder / f'{name}.json')!r} {_text(error)}; the report is without what it tells.")
    return Found(
        folder=folder,
        settings=dict(flat(settings)),
        evaluation=evaluation,
        progress=_read_progress(run, faults),
        origin=_read_origin(folder, faults),
        **parts,
    )


def _settings_and_evaluation(run: Run, faults: list[str]) -> tuple[Any, Evaluation | None]:
    try:
        settings = run.settings()
    except (ValueError, TypeError, OSError) as error:
        try:
            evaluation = Evaluation.read(run.results)
            plain = as_dict(read_settings(dict(evaluation.settings or {})))
        except (ValueError, TypeError, OSError):
            faults.append(f"The settings of {str(run.folder)!r} cannot be read: {_text(error)}; it is left out.")
            return None, None
        faults.append(f"{_text(error)}; the settings of {str(run.folder)!r} are those in its results.")
        return plain, evaluation
    if not run.results.exists():
        faults.append(
            f"{str(run.folder)!r} has no results yet, so only its training is shown; "
            f"'metarl train --resume {run.folder}' finishes it."
        )
        return as_dict(settings), None
    try:
        return as_dict(settings), run.read_results(settings)
    except (ValueError, OSError) as error:
        faults.append(f"{str(run.results)!r} {_text(error)}; only the run's training is shown.")
        return as_dict(settings), None


def _text(error: Exception) -> str:
    return in_words(error) if isinstance(error, OSError) else " ".join(str(error).split())


def flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested settings; an empty section has none.

    >>> dict(flat({"seed": 1, "inner": {"steps": 2}}))
    {'seed': 1, 'inner.steps': 2}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _read_progress(run: Run, faults: list[str]) -> dict[str, NDArray[np.float64]]:
    if not run.progress.exists():
        faults.append(f"{str(run.progress)!r} is missing; the report is without the run's training.")
        return {}
    try:
        with run.progress.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
        if reader.fieldnames and (not rows or not any("/" in name for name in reader.fieldnames)):
            raise ValueError("these are no names of series")
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        return {name: np.array([float(cell or "nan") for cell in cells]) for name, cells in columns.items()}
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        faults.append(f"{str(run.progress)!r} is damaged; the report is without the run's training.")
        return {}


def _read_origin(folder: Path, faults: list[str]) -> str | None:
    path = folder / "from.json"
    if not path.exists():
        return None
    try:
        return str(read_json(path)["path"])
    except (ValueError, KeyError, OSError):
        faults.append(f"{str(path)!r} is damaged; the commands do not tell what the run started from.")
        return None
