"""Output formats of stable-baselines3's logger that a resumed run can continue."""

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

from metarl.envs.tasks import whole_number
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
    """A stream to which writing raises no error, even if it was closed or its reader is gone."""

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
    """Return a progress bar on standard error; a missing or closed standard error does not stop training."""
    if not shown or sys.stderr is None:
        return tqdm(total=total, disable=True)
    return tqdm(total=total, unit="iteration", file=_ForgivingStream(sys.stderr), dynamic_ncols=True)


class ResumableTensorBoard(TensorBoardOutputFormat):
    """stable-baselines3's TensorBoard writer; a resumed run hides the events after the checkpoint it starts from.

    Args:
        folder: of the event files.
        purge_step: earlier events from this environment step on are hidden; None hides none.
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
    """The contents of ``progress.csv``: columns, rows by iteration, and whether the whole file could be read."""

    columns: list[str]
    rows: dict[int, list[str]]
    whole: bool

    def row(self, iteration: int) -> dict[str, str]:
        """Return the row of an iteration, by column."""
        return dict(zip(self.columns, self.rows[iteration], strict=True))

    def until(self, iteration: int) -> Progress:
        """Return the contents without the rows after an iteration."""
        return replace(self, rows={number: row for number, row in self.rows.items() if number <= iteration})


def read_progress(path: Path) -> Progress:
    """Return the contents of a ``progress.csv`` up to its first invalid row; nothing if the file is missing."""
    rows: dict[int, list[str]] = {}
    try:
        # The last number of a line without a newline may lack digits.
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
    """``progress.csv``: a row for each iteration; columns in order of first appearance, then by name.

    Args:
        path: the file; it is created or, in a resumed run, truncated.
        keep: the last iteration whose row in an existing file is kept.
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
        """Append a row; if there are new columns, replace the whole file."""
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
        settings: nested dicts; lists are written as text.
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
    """Record the results of a meta-iteration; docs/tensorboard.md describes each series.

    Args:
        logger: to which they are recorded.
        metrics: the learner's own; text is not written to progress.csv.
        returns: the mean over tasks after 0, 1, ... inner steps.
        timesteps: environment steps so far.
        steps: environment steps of this iteration.
        seconds: the time of the iteration.
        seconds_rollouts: the time of its rollouts.
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


def checked_verbosity(verbose: Any) -> int:
    """Return ``verbose`` as a number.

    Raises:
        ValueError: it is no whole number of at least 0.
    """
    return int(verbose) if isinstance(verbose, bool) else whole_number("verbose", verbose, least=0)


def checked_folder(folder: Any) -> str | Path | None:
    """Return the folder for TensorBoard as it was given.

    Raises:
        ValueError: it is no path.
    """
    if folder is not None and not isinstance(folder, str | Path):
        raise ValueError(f"tensorboard_log is {folder!r}; expected the folder for TensorBoard, as in 'runs', or None")
    return folder


def default_logger(verbose: int, tensorboard_log: str | Path | None, name: str, new: bool) -> Logger:
    """Return the logger of a learner used from Python, with the same folders as stable-baselines3's.

    Args:
        verbose: from 1 on, a table is printed to standard output.
        tensorboard_log: the folder for TensorBoard, or None; the events go into its sub-folder ``<name>_<n>``.
        name: of the run; it may contain folders, as in ``sweep/first``, which are made.
        new: begin a new run with the next number; else continue the latest.

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
    """Return the folder ``<first>_<n>``: a new one with the next number, or unless ``new`` the latest, if any."""
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
        except FileExistsError:  # another process has made it in the meantime
            following += 1
        else:
            return folder
