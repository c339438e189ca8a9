"""Output formats of stable-baselines3's logger that a resumed run can continue."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.logger import (
    HumanOutputFormat,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from torch.utils.tensorboard import FileWriter, SummaryWriter
from tqdm import tqdm

from metarl.envs.tasks import whole_number
from metarl.files import naming
from metarl.sb3.progress_file import ProgressFile

_SECONDS_BETWEEN_LINES = 10.0

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

    def has_room(self) -> bool:
        """Return whether it is a terminal with a size; without one, a bar would not be visible."""
        try:
            return self._stream.isatty() and min(os.get_terminal_size(self._stream.fileno())) > 0
        except (OSError, ValueError):
            return False

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _ProgressLines:
    """Progress as lines, for a file or a pipe: of the first and the last iteration, and now and then in between."""

    def __init__(self, done: int, total: int | None, stream: _ForgivingStream) -> None:
        self._first = done + 1
        self._done = done
        self._total = total
        self._stream = stream
        self._text = ""
        self._began = self._wrote = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to close."""

    def set_postfix_str(self, text: str) -> None:
        """Set what the next line says of the results."""
        self._text = text

    def update(self) -> None:
        """Count an iteration."""
        self._done += 1
        now = time.monotonic()
        if self._done in (self._first, self._total) or now - self._wrote >= _SECONDS_BETWEEN_LINES:
            self._wrote = now
            self._stream.write(f"{self._line(now - self._began)}\n")
            self._stream.flush()

    def _line(self, seconds: float) -> str:
        line = f"iteration {self._done}" + ("" if self._total is None else f" of {self._total}")
        if self._text:
            line += f": {self._text}"
        if self._total is not None and self._done < self._total:
            left = tqdm.format_interval(seconds / (self._done - self._first + 1) * (self._total - self._done))
            line += f"; about {left} left"
        return line


def progress_bar(done: int, more: int | None, *, shown: bool) -> tqdm | _ProgressLines:
    """Return a display of progress on standard error: a bar on a terminal, lines in a file or a pipe.

    A missing or closed standard error does not stop training.

    Args:
        done: iterations before.
        more: iterations to come, or None if it is not known how many.
        shown: False for no display.
    """
    total = None if more is None else done + more
    if not shown or sys.stderr is None:
        return tqdm(total=total, disable=True)
    stream = _ForgivingStream(sys.stderr)
    if not stream.has_room():
        return _ProgressLines(done, total, stream)
    return tqdm(total=total, initial=done, unit="iteration", file=stream, dynamic_ncols=True)


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


def write_moving_picture(folder: Path, tag: str, gif: bytes, size: tuple[int, int], step: int) -> None:
    """Write an animated GIF, which TensorBoard plays, as an image into a new event file.

    Args:
        folder: the run's.
        tag: of the image.
        gif: the contents of the file.
        size: its height and width.
        step: the environment steps of training.
    """
    picture = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=gif)
    with naming(folder):
        writer = FileWriter(str(folder))
        try:
            writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)
        finally:
            writer.close()


def record_iteration(
    logger: Logger,
    metrics: Mapping[str, float | str],
    returns: Sequence[float],
    successes: Sequence[float],
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
        successes: the share of episodes with success, likewise; empty if ``info`` does not tell of it.
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
    for step, share in enumerate(successes):
        logger.record(f"rollout/success_step_{step}", share)
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
