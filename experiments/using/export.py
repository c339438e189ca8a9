"""The policy of a run in a file that acts without metarl."""

from __future__ import annotations

from pathlib import Path

from metarl.experiments.mending import load_best
from metarl.experiments.runs import Run
from metarl.experiments.training import standing
from metarl.experiments.using.tasks import in_full, named_task
from metarl.exporting import export
from metarl.exporting.formats import refuse_file


def export_run(
    folder: Path,
    task: str | None,
    out: Path | None,
    kind: str | None,
    steps: int | None,
    episodes: int | None,
    seed: int | None,
) -> str:
    """Export the policy with a run's best parameters so far; return what is to be said of it.

    Args:
        folder: the run's.
        task: the number of a test task, or a task as JSON; None for the policy before adaptation.
        out: a new file; None for ``policy.onnx`` or ``policy.pt2`` in the run's folder.
        kind: ``onnx`` or ``pt2``; None for that of ``out``, or else ``onnx``.
        steps: adaptation steps; None for the run's.
        episodes: as for ``adapt``; None for the run's.
        seed: of the episodes; None for the run's.

    Raises:
        ValueError: the folder is no run, or see ``metarl.export``.
        RolloutError: the environment failed.
    """
    suffix = None if kind is None else f".{kind}"
    path = out or folder / f"policy{suffix or '.onnx'}"
    if suffix is not None and path.suffix.lower() != suffix:
        raise ValueError(f"--out {out} ends in {path.suffix!r}, but --format is {kind!r}; give one of them")
    refuse_file(path)
    run = Run.open(folder)
    learner = load_best(run, run.settings(), None)
    try:
        found, which = None, "The policy before adaptation"
        if task is not None:
            found, number = named_task(learner, task)
            when = "before" if steps == 0 else "after"
            which = f"{in_full(found, number)}: the policy {when} adaptation"
        export(learner, path, found, steps=steps, episodes=episodes, seed=seed)
        return f"{which}\nWritten to {path}{standing(run, learner)}"
    finally:
        learner.close()
