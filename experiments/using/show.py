"""A replay of a run: into its folder and its TensorBoard events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from metarl.experiments.mending import load_best
from metarl.experiments.runs import Run
from metarl.experiments.training import standing
from metarl.experiments.using.tasks import in_full, named_task
from metarl.files import in_words
from metarl.replay import Replay, show
from metarl.replay.files import refuse_file, refuse_format
from metarl.sb3.loggers import write_moving_picture


def show_run(folder: Path, task: str | None, out: Path | None, kind: str | None, **asked: Any) -> str:
    """Write a replay of a run's best parameters so far; return what is to be said of it.

    Args:
        folder: the run's.
        task: the number of a test task, or a task as JSON; None for the first test task.
        out: a new file; None for ``replays/<n>.gif`` or ``.mp4`` in the run's folder, with the next free number.
        kind: ``gif`` or ``mp4``; None for that of ``out``, or else ``gif``.
        asked: further arguments of ``metarl.show``; None for its default.

    Raises:
        ValueError: the folder is no run, the environment does not render, the file exists or cannot be written, the
            extra [video] is missing, or another argument is wrong.
        RolloutError: the environment failed.
    """
    chosen = kind or (out.suffix.lower()[1:] if out is not None and out.suffix else "gif")
    if out is None:
        refuse_format(chosen)
    else:
        refuse_file(out)
        if out.suffix.lower()[1:] != chosen:
            raise ValueError(f"--out {out} ends in {out.suffix!r}, but --format is {chosen!r}; give one of them")
    run = Run.open(folder)
    run.sweep_evaluations()
    learner = load_best(run, run.settings(), None)
    try:
        found, number = named_task(learner, task or "0")
        tag = "given/replay" if number is None else f"test/replay_task_{number}"
        replay = show(learner, found, **{name: value for name, value in asked.items() if value is not None})
        path = _next_file(run, replay, chosen) if out is None else out
        if out is not None:
            replay.save(out)
        board = _into_tensorboard(run, replay, tag, learner.state.num_timesteps)
        words = standing(run, learner)
    finally:
        learner.close()
    return f"{in_full(found, number)}:\n{replay.table()}\n\n{_how_shown(replay)}Written to {path}{board}{words}"


def _how_shown(replay: Replay) -> str:
    """Return what is left out, if anything is."""
    sentences = []
    if replay.every > 1:
        sentences.append(
            f"Every {_ordinal(replay.every)} step is shown, so that the file stays small; --frames asks for more.\n"
        )
    if len(replay.labels) <= replay.labels[-1]:
        points = ", ".join(map(str, replay.labels))
        sentences.append(f"Of {replay.labels[-1] + 1} points these are shown: {points}.\n")
    return "".join(sentences)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _next_file(run: Run, replay: Replay, kind: str) -> Path:
    """Write the next free file of the run's folder, and return its path."""
    number = 1
    while True:
        path: Path = run.replays / f"{number}.{kind}"
        # Other formats count too, so that a number stands for one replay.
        if not any(run.replays.glob(f"{number}.*")):
            try:
                replay.save(path)
                return path
            except ValueError:
                if not os.path.lexists(path):  # else another process has written it in the meantime
                    raise
        number += 1


def _into_tensorboard(run: Run, replay: Replay, tag: str, step: int) -> str:
    """Write the replay into the run's events; return what is to be said of it.

    While another process trains in the run, its event file must stay the latest of the folder, because TensorBoard
    does not go back to earlier ones. So the replay then goes into a folder of its own.
    """
    folder = run.folder
    try:
        run.lock()
    except ValueError:
        folder = run.replays
    try:
        write_moving_picture(folder, tag, replay.to_gif(), replay.images.shape[1:3], step)
    except OSError as error:
        return f"; not to TensorBoard, since {in_words(error)}"
    finally:
        run.unlock()
    return f", and to TensorBoard as {tag}"
