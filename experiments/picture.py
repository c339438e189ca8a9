"""A picture of a finished run's adaptation: paths before and after each step, and the return after each step."""

from __future__ import annotations

from pathlib import Path

from metarl.experiments.mending import load_best
from metarl.experiments.runs import Run
from metarl.figures import has_paths, paths_figure
from metarl.files import in_words, new_file

PICTURED_TASKS = 2
DOTS_PER_INCH = 110


def draw_picture(folder: Path, out: Path, tasks: int | None) -> None:
    """Draw how a run's best parameters adapt to test tasks; with paths if the family's observations are positions.

    Args:
        folder: of a finished run.
        out: the file, ``.png``, ``.svg`` or ``.pdf``; an existing file is not overwritten.
        tasks: the number of test tasks for the returns; by default the run's ``evaluation.test_tasks``.

    Raises:
        ValueError: the folder is not a finished run, the file exists or has another suffix, or a count is not positive.
    """
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"the picture {str(out)!r} cannot be written; its name has to end in .png, .svg or .pdf")
    if out.exists():
        raise ValueError(f"{str(out)!r} exists and is not overwritten; name another file or delete it")
    run = Run.open(folder)
    if not run.best.exists():
        raise ValueError(f"the run {str(folder)!r} is not finished; go on with 'metarl train --resume {folder}'")
    learner = load_best(run, run.settings(), None)
    try:
        evaluation, first, rollouts = learner.evaluate_rollouts("test", n_tasks=tasks)
        pictured = first[:PICTURED_TASKS] if has_paths(learner.env) else []
        figure = paths_figure(learner.env, pictured, rollouts, evaluation)
    finally:
        learner.close()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the picture {str(out)!r} cannot be written: {in_words(error)}") from error
    # No date, so that the same run gives the same file.
    metadata = {"Date": None} if out.suffix == ".svg" else None
    with new_file(out) as beside:
        figure.savefig(beside, dpi=DOTS_PER_INCH, metadata=metadata, format=out.suffix[1:])
