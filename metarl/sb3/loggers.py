"""Writers for stable-baselines3's logger that a resumed run can go on with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import (
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
    filter_excluded_keys,
)
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from metarl.files import naming, replacing

ITERATION = "rollout/iteration"

# Charts of the "Custom scalars" tab: returns before and after adaptation side by side; tags are regular expressions.
LAYOUT = {
    "Adaptation": {
        "Return after each adaptation step, training": ["Multiline", [r"rollout/return_step_\d+"]],
        "Return after each adaptation step, validation": ["Multiline", [r"validation/return_step_\d+"]],
    },
}


class _ForgivingStream:
    """A stream that may be closed, or cut off by its reader, without stopping who writes to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def progress_bar(total: int | None, *, shown: bool) -> tqdm:
    """Return a bar on standard error, by iterations; it is left out where there is none, and stops no training."""
    if not shown or sys.stderr is None:
        return tqdm(total=total, disable=True)
    return tqdm(total=total, unit="iteration", file=_ForgivingStream(sys.stderr), dynamic_ncols=True)


class ResumableTensorBoard(TensorBoardOutputFormat):
    """stable-baselines3's TensorBoard writer; a resumed run hides what an interrupted one wrote after its checkpoint.

    Args:
        folder: where the event files go.
        purge_step: the first step of what is not to be shown, or None.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        self._folder = folder
        with naming(folder):
            self.writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step)
            self.writer.add_custom_scalars(LAYOUT)
        self._is_closed = False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Write the scalars, texts and figures of an iteration."""
        with naming(self._folder):
            super().write(key_values, key_excluded, step)


@dataclass(frozen=True)
class Progress:
    """What ``progress.csv`` holds: columns, rows by iteration, and whether there is nothing else in it."""

    columns: list[str]
    rows: dict[int, list[str]]
    whole: bool

    def row(self, iteration: int) -> dict[str, str]:
        """Return the row of an iteration, by column."""
        return dict(zip(self.columns, self.rows[iteration], strict=True))

    def until(self, iteration: int) -> Progress:
        """Return it without the rows after an iteration."""
        return replace(self, rows={number: row for number, row in self.rows.items() if number <= iteration})


def read_progress(path: Path) -> Progress:
    """Return what a ``progress.csv`` holds, up to the first row that is none; nothing where it is missing."""
    rows: dict[int, list[str]] = {}
    try:
        # A line that does not end may lack digits of its last number.
        text, _, rest = path.read_text(encoding="utf-8-sig").rpartition("\n")
        columns, *lines = list(csv.reader(text.splitlines()))
        at = columns.index(ITERATION)
    except (FileNotFoundError, ValueError, csv.Error):
        return Progress([], {}, False)
    for row in lines:
        if len(row) != len(columns) or not row[at].isdecimal() or not all(map(_is_number, row)):
            return Progress(columns, rows, False)
        if int(row[at]) <= max(rows, default=0):
            return Progress(columns, rows, False)
        rows[int(row[at])] = row
    return Progress(columns, rows, not rest)


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


class ProgressFile(KVWriter):
    """``progress.csv``: a row for each iteration; columns in the order of their first appearance, then of the name.

    Args:
        path: the file; it is created or, in a resumed run, cut back.
        keep: up to which iteration the rows of an existing file are kept.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._columns: list[str] = []
        self._rows: list[list[str]] = []
        with naming(path):
            if path.exists():
                found = read_progress(path).until(keep)
                rows = list(found.rows.values())
                filled = [i for i in range(len(found.columns)) if any(row[i] for row in rows)]
                self._columns = [found.columns[i] for i in filled]
                self._rows = [[row[i] for i in filled] for row in rows]
                self._rewrite()
            self._file: io.TextIOWrapper | None = path.open("a", newline="", encoding="utf-8")

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Append a row; where there are new columns, write the file again, beside and renamed."""
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float | np.number)}
        new = sorted(set(numbers) - set(self._columns))
        self._columns += new
        row = [_text(numbers[key]) if key in numbers else "" for key in self._columns]
        self._rows.append(row)
        if self._file is None:
            raise ValueError(f"{self._path} was closed; set a new logger")
        with naming(self._path):
            if new:
                self._file.close()
                self._rewrite()
                self._file = self._path.open("a", newline="", encoding="utf-8")
            else:
                csv.writer(self._file, lineterminator="\n").writerow(row)
                self._file.flush()

    def _rewrite(self) -> None:
        with replacing(self._path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self._columns)
            writer.writerows(row + [""] * (len(self._columns) - len(row)) for row in self._rows)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _text(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.number) else value)


def write_hparams(folder: Path, settings: dict[str, Any], results: dict[str, float], step: int) -> None:
    """Write a run's settings and its final results for TensorBoard's HParams tab.

    Args:
        folder: the run's.
        settings: nested; lists are written as text.
        results: by tag.
        step: the environment steps of training.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        for name, entry in value.items() if isinstance(value, dict) else [("", value)]:
            plain = entry if isinstance(entry, bool | int | float | str) else json.dumps(entry)
            flat[f"{key}.{name}" if name else key] = plain
    with naming(folder), SummaryWriter(log_dir=str(folder)) as writer:
        writer.add_hparams(flat, results, run_name=".", global_step=step)


def record_iteration(
    logger: Logger,
    metrics: Mapping[str, float | str],
    returns: Sequence[float],
    *,
    timesteps: int,
    steps: int,
    seconds: float,
    seconds_rollouts: float,
) -> None:
    """Record what a meta-iteration led to; docs/tensorboard.md says what each series is.

    Args:
        logger: where to.
        metrics: the learner's own; text is not written to progress.csv.
        returns: the mean over tasks after 0, 1, ... inner steps.
        timesteps: environment steps so far.
        steps: those of this iteration.
        seconds: that it took.
        seconds_rollouts: that its rollouts took.
    """
    for name, value in metrics.items():
        logger.record(name, value, exclude="csv" if isinstance(value, str) else None)
    logger.record("rollout/timesteps", timesteps, exclude="tensorboard")
    logger.record("time/seconds_rollouts", seconds_rollouts, exclude="csv")
    logger.record("time/seconds_update", seconds - seconds_rollouts, exclude="csv")
    logger.record("time/steps_per_second", steps / seconds, exclude="csv")
    for step, mean in enumerate(returns):
        logger.record(f"rollout/return_step_{step}", mean)
    if len(returns) > 1:
        logger.record("rollout/gain", returns[-1] - returns[0])


def record_validation(logger: Logger, statistics: Mapping[str, NDArray[np.float64]]) -> None:
    """Record an evaluation on validation tasks.

    Args:
        logger: where to.
        statistics: by name, ``[step, task]``: returns, and whatever else there is of episodes.
    """
    for name, by_step in statistics.items():
        for step, values in enumerate(by_step):
            logger.record(f"validation/{name}_step_{step}", float(values.mean()))
    returns = statistics["return"].mean(axis=1)
    logger.record("validation/gain", float(returns[-1]) - float(returns[0]))


def run_logger(folder: Path, *, keep_rows: int = 0, purge_step: int | None = None) -> Logger:
    """Return a logger that writes a run's TensorBoard events and ``progress.csv`` into its folder."""
    return Logger(
        str(folder),
        [ResumableTensorBoard(folder, purge_step), ProgressFile(folder / "progress.csv", keep_rows)],
    )


def default_logger(verbose: int, tensorboard_log: str | Path | None, name: str, new: bool) -> Logger:
    """Return the logger of a learner used from Python, as stable-baselines3 makes it.

    Args:
        verbose: from 1 on, a table is printed to standard output.
        tensorboard_log: the folder for TensorBoard, or None; the events go into ``<name>_<n>`` under it.
        name: of the run; folders within it, as in ``sweep/first``, are made.
        new: number a new run; else go on in the latest.

    Raises:
        ValueError: the folder cannot be made.
    """
    formats: list[KVWriter] = []
    folder = None
    if tensorboard_log is not None:
        try:
            folder = _numbered(Path(tensorboard_log) / name, new)
        except OSError as error:
            raise ValueError(
                f"no folder for TensorBoard can be made at {error.filename!r}: {error.strerror}; choose another "
                "tensorboard_log or tb_log_name"
            ) from error
        formats.append(ResumableTensorBoard(folder, None))
    if verbose >= 1 and sys.stdout is not None:
        formats.append(HumanOutputFormat(sys.stdout))
    return Logger(None if folder is None else str(folder), formats)


def _numbered(first: Path, new: bool) -> Path:
    """Return ``<first>_<n>``: a new folder with the next number, made, or else the latest one where there is one."""
    first.parent.mkdir(parents=True, exist_ok=True)
    taken = {}
    for path in first.parent.iterdir():
        name, _, number = path.name.rpartition("_")
        if name == first.name and number.isdecimal():
            taken[int(number)] = path
    if taken and not new:
        return taken[max(taken)]
    following = max(taken, default=0) + 1
    while True:
        folder = first.with_name(f"{first.name}_{following}")
        try:
            folder.mkdir()
        except FileExistsError:  # another process took it since
            following += 1
        else:
            return folder
