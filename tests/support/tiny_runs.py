"""The smallest runs of the command that have all that a run has, and what TensorBoard reads of one."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = [
    "learning.iterations=3",
    "learning.tasks=3",
    "learning.episodes=3",
    "family_kwargs.max_episode_steps=8",
    "policy.hidden_sizes=[8]",
    "evaluation.every=2",
    "evaluation.tasks=3",
    "evaluation.test_tasks=4",
    "evaluation.episodes=2",
    "outer.fisher_fraction=1.0",
]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return all series of a run's folder: by tag, the steps and values."""
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def copy_toy_families(folder: Path) -> Path:
    """Put the modules of the toy families into a folder, as a user's own; return it."""
    for source in Path(__file__).parent.glob("toy_*.py"):
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return folder
