"""``progress.csv``: a row for each iteration, which a resumed run continues."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from metarl.files import flush_folder, naming, replacing

ITERATION = "rollout/iteration"


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
    except (FileNotFoundError, IsADirectoryError, ValueError, csv.Error):
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
            flush_folder(path.parent)

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
            if new or not self._in_place():
                self._file.close()
                self._rewrite()
                self._file = self._path.open("a", newline="", encoding="utf-8")
            else:
                csv.writer(self._file, lineterminator="\n").writerow(row)
                self._file.flush()
                # Before the checkpoint of this iteration is written, so that no row is lost with the power.
                os.fsync(self._file.fileno())

    def _in_place(self) -> bool:
        """Return whether the path still names the open file, which may have been deleted or replaced."""
        assert self._file is not None
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

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
