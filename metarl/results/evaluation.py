"""The result of an evaluation, with what can be made of it: a table, a file, a pandas.DataFrame."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from metarl.files import read_json
from metarl.results.document import document_of, fields_of
from metarl.results.kept import Kept
from metarl.results.table import table_of, write_csv

if TYPE_CHECKING:
    import pandas as pd


class Evaluation(Kept):
    """The result of an evaluation: the attributes of ``Kept``, and what can be made of them."""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the evaluation in a ``results.json`` or ``evaluations/<n>.json``, of this or an older version.

        Args:
            path: of the file, or of a run's folder, whose ``results.json`` it is then.

        Raises:
            ValueError: the file is missing, empty, damaged, or of a newer version.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        try:
            return cls.from_json(read_json(path))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} {error}") from error

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the evaluation that ``to_json`` wrote, in this or an older version.

        Raises:
            ValueError: the document is damaged, or of a newer version; the message is the end of a sentence.
        """
        return cls(**fields_of(document))

    def to_json(self) -> dict[str, Any]:
        """Return the results as ``results.json`` and ``evaluations/<n>.json`` hold them."""
        return document_of(self)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each seed, task, point and episode.

        Its columns are ``family``, ``learner``, ``split``, ``protocol``, ``region`` (if there are any), ``seed``,
        ``task`` (its number), ``point``, ``episodes_before``, ``steps_before``, ``episode``, and the metrics.
        """
        from metarl.results.frame import frame_of  # pandas is slow to import

        return frame_of(self)

    def table(self) -> str:
        """Return the results as a table for the terminal."""
        return table_of(self)

    def write_csv(self, path: Path) -> None:
        """Write a row for each point: step, mean, low, high, tasks, episodes, oracle, and what else was measured."""
        write_csv(self, path)
