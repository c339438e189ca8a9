"""A picture of a run's adaptation: paths before and after each step, and the return after each step."""

from __future__ import annotations

from pathlib import Path

from metarl.experiments.mending import load_best
from metarl.experiments.runs import Run
from metarl.experiments.training import standing
from metarl.figures import has_paths, paths_figure
from metarl.files import in_words, new_file, refuse_existing

PICTURED_TASKS = 2
DOTS_PER_INCH = 110


def draw_picture(folder: Path, out: Path, tasks: int | None) -> str:
    """Draw how a run's best parameters so far adapt to test tasks; with paths if observations are positions.

    Returns ``standing``, what is to be said of a run that is not finished.

    Args:
        folder: of a run.
        out: the file, ``.png``, ``.svg`` or ``.pdf``; an existing file is not overwritten.
        tasks: the number of test tasks for the returns; by default the run's ``evaluation.test_tasks``.

    Raises:
        ValueError: the folder is not a run, the file exists or has another suffix, or a count is not positive.
    """
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"the picture {str(out)!r} cannot be written; its name has to end in .png, .svg or .pdf")
    refuse_existing(out)
    run = Run.open(folder)
    run.sweep_evaluations()
    learner = load_best(run, run.settings(), None)
    try:
        evaluation, first, rollouts = learner.evaluate_rollouts("test", n_tasks=tasks)
        pictured = first[:PICTURED_TASKS] if has_paths(learner.env) else []
        figure = paths_figure(learner.env, pictured, rollouts, evaluation)
        words = standing(run, learner)
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
    return words
