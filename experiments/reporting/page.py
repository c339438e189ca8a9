"""The page of a report, and the files that are written with it."""

from __future__ import annotations

import importlib.resources
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from metarl.experiments.reporting.cautions import cautions, facts
from metarl.experiments.reporting.drawing import Picture
from metarl.experiments.reporting.experience import curves, experience_picture
from metarl.experiments.reporting.gather import read_run, run_folders
from metarl.experiments.reporting.rows import Chapter, Row, chapters
from metarl.experiments.reporting.tables import (
    Table,
    costs_table,
    differences_table,
    results_table,
    settings_tables,
)
from metarl.experiments.reporting.tasks import task_picture
from metarl.experiments.reporting.training import Axis, trained, training_picture
from metarl.files import new_file, replacing
from metarl.version import __version__

FORMATS = ("png", "svg", "csv")
STANDARD = Path("report.html")
_MAPS = 6  # rows of a chapter whose tasks are drawn


@dataclass(frozen=True, kw_only=True)
class Written:
    """What ``write_report`` wrote.

    Attributes:
        page: the page's file.
        files: the other files.
        faults: a sentence for everything that could not be shown.
    """

    page: Path
    files: tuple[Path, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A chapter with its figures and tables."""

    name: str
    chapter: Chapter
    pictures: tuple[Picture, ...]
    results: Table | None
    differences: Table | None
    differing: Table
    common: Table
    costs: Table

    @property
    def tables(self) -> list[Table]:
        known = (self.differing, self.results, self.differences, self.costs, self.common)
        return [table for table in known if table is not None]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    formats: Sequence[str] = (),
    *,
    replace: bool = False,
) -> Written:
    """Write a report of runs, one HTML file that needs no other.

    What cannot be read or compared is named in the report, and the rest is shown. The same runs give the same bytes.

    Args:
        runs: folders of runs; a folder of runs, as ``metarl compare`` makes, stands for all of its runs.
        out: the page's file; default: ``report.html``, or if there is one, ``report-2.html``, ...
        formats: of ``png`` and ``svg`` (the figures) and ``csv`` (the tables), which of these are written as files
            beside the page, with its name before theirs.
        replace: whether files that exist are replaced.

    Raises:
        ValueError: none of the runs can be read, a format is unknown, the name does not end in ``.html``, or a file
            exists already.
        OSError: a file cannot be written.
    """
    unknown = next((name for name in formats if name not in FORMATS), None)
    if unknown is not None:
        raise ValueError(f"the format {unknown!r} is unknown; expected some of {', '.join(FORMATS)}")
    if out is not None and Path(out).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"the report {str(out)!r} is an HTML file; give it a name that ends in .html")
    if out is not None and not replace and os.path.lexists(out):
        raise ValueError(f"{str(out)!r} exists already; choose another --out, or leave it out for a new name")
    faults: list[str] = []
    folders = run_folders([Path(run) for run in runs])
    found = [run for folder in folders if (run := read_run(folder, faults)) is not None]
    if not found:
        raise ValueError(" ".join(faults) or "no run is given; name the folders of runs, as runs/navigation")
    parts = [_part(f"part{number}", chapter, faults) for number, chapter in enumerate(chapters(found, faults), start=1)]
    page = _page(parts, [Path(run) for run in runs], faults)
    contents = dict(_files(parts, formats))
    target = Path(out) if out is not None else _free(contents)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = {target.with_name(f"{target.stem}-{name}"): data for name, data in contents.items()}
    taken = next((path for path in beside if os.path.lexists(path)), None)
    if taken is not None and not replace:
        raise ValueError(f"{str(taken)!r} exists already; choose another --out, or leave it out for a new name")
    for path, data in {**beside, target: page.encode("utf-8")}.items():
        with (replacing if replace else new_file)(path) as temporary:
            temporary.write_bytes(data)
    return Written(page=target, files=tuple(beside), faults=tuple(faults))


def _free(contents: dict[str, bytes]) -> Path:
    """Return a name for the page with which neither it nor a file beside it exists."""
    number = 1
    while True:
        target = STANDARD if number == 1 else STANDARD.with_name(f"{STANDARD.stem}-{number}{STANDARD.suffix}")
        names = [target, *(target.with_name(f"{target.stem}-{name}") for name in contents)]
        if not any(os.path.lexists(path) for path in names):
            return target
        number += 1


def _part(name: str, chapter: Chapter, faults: list[str]) -> _Part:
    differing, common = settings_tables(name, chapter.rows)
    return _Part(
        name=name,
        chapter=chapter,
        pictures=tuple(_pictures(name, chapter, faults)),
        results=results_table(name, chapter),
        differences=differences_table(name, chapter, faults),
        differing=differing,
        common=common,
        costs=costs_table(name, chapter.rows),
    )


def _pictures(name: str, chapter: Chapter, faults: list[str]) -> Iterator[Picture]:
    tested = chapter.tested
    for kind, words, metric in (("return", "return", None), ("success", "success rate", "success")):
        found = curves(tested, metric)
        if found:
            yield experience_picture(f"{name}-{kind}", words, found)
    axes: tuple[tuple[str, Axis], ...] = (("steps", "environment steps"), ("time", "seconds"))
    for kind, axis in axes:
        shown, without = trained(chapter.rows, axis)
        if shown:
            yield training_picture(f"{name}-{kind}", axis, shown, without)
    for number, (label, evaluation) in enumerate(tested[:_MAPS], start=1):
        picture = task_picture(f"{name}-tasks-{number}", label, evaluation)
        if picture is not None:
            yield picture
    if len(tested) > _MAPS:
        faults.append(f"Single tasks are drawn of the first {_MAPS} of {len(tested)} rows of {chapter.family}.")


def _files(parts: Sequence[_Part], formats: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for part in parts:
        for kind in dict.fromkeys(formats):
            if kind == "csv":
                yield from ((f"{table.name}.csv", table.csv.encode("utf-8")) for table in part.tables)
            else:
                yield from ((f"{picture.name}.{kind}", picture.file(kind)) for picture in part.pictures)


def _page(parts: Sequence[_Part], runs: Sequence[Path], faults: Sequence[str]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = importlib.resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    chapters = [part.chapter for part in parts]
    return environment.from_string(source).render(
        parts=parts,
        title=f"Report on {', '.join(part.chapter.family for part in parts)}",
        warnings=[*faults, *cautions(chapters)],
        commands=[*_commands(chapters), shlex.join(["metarl", "report", *map(str, runs)])],
        facts=facts(chapters),
        version=__version__,
    )


def _commands(chapters: Sequence[Chapter]) -> Iterator[str]:
    rows: list[Row] = [row for chapter in chapters for row in chapter.rows]
    taken: dict[str, int] = {}
    for run in (run for row in rows for run in row.runs):
        name = f"{run.folder.resolve().name}-again"
        taken[name] = taken.get(name, 0) + 1
        numbered = name if taken[name] == 1 else f"{name}-{taken[name]}"
        words = ["metarl", "train", str(run.folder / "config.toml"), "--name", numbered]
        yield shlex.join([*words, *([] if run.origin is None else ["--from", run.origin])])
