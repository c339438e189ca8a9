"""The meta-learners by name; the module of one is imported when it is first asked for."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.learner import BaseLearner

LEARNERS = {
    "maml": "metarl.learners.maml:MAML",
    "fomaml": "metarl.learners.fomaml:FOMAML",
    "e-maml": "metarl.learners.e_maml:EMAML",
    "promp": "metarl.learners.promp:ProMP",
    "reptile": "metarl.learners.reptile:Reptile",
    "meta-sgd": "metarl.learners.meta_sgd:MetaSGD",
    "anil": "metarl.learners.anil:ANIL",
    "cavia": "metarl.learners.cavia:CAVIA",
    "pretrained": "metarl.learners.pretrained:Pretrained",
    "multi-task": "metarl.learners.multi_task:MultiTask",
    "task-aware": "metarl.learners.task_aware:TaskAware",
    "scratch": "metarl.learners.scratch:Scratch",
    "random": "metarl.learners.scratch:Random",
}


def find_learner(name: str) -> type[BaseLearner]:
    """Return a learner's class.

    Args:
        name: one of ``LEARNERS``, or ``module:Class`` for one of one's own.

    Raises:
        ValueError: there is none of that name.
    """
    entry = LEARNERS.get(name, name)
    module, separator, attribute = entry.partition(":")
    if not separator:
        near = difflib.get_close_matches(name, LEARNERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown learner {name!r}; the nearest is {near!r}, expected one of {', '.join(LEARNERS)}, or module:Class"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"learner {name!r} cannot be imported: {error}") from error
    if not hasattr(found, "outer_settings"):
        raise ValueError(f"learner {name!r} is no meta-learner; expected a subclass of metarl.learner.BaseLearner")
    return found  # type: ignore[no-any-return]


def load_learner(path: str | Path, *, device: str | None = None) -> BaseLearner:
    """Return the learner of a checkpoint, whichever it is.

    Raises:
        ValueError: no checkpoint, a damaged one, or one of an unknown learner.
    """
    from metarl.checkpoints import checkpoint_path, read_checkpoint

    _, state = read_checkpoint(checkpoint_path(path))
    return find_learner(str(state.get("learner"))).load(path, device=device)


def describe_learners() -> list[dict[str, Any]]:
    """Return name, class and purpose of each learner that metarl brings, in plain Python."""
    found = []
    for name in LEARNERS:
        kind = find_learner(name)
        updates = [update for outer in kind.outer_settings if (update := getattr(outer, "update", None)) is not None]
        summary = (kind.__doc__ or "").partition("\n")[0]
        found.append(
            {"name": name, "class": kind.__name__, "summary": summary, "source": kind.source, "updates": updates}
        )
    return found
