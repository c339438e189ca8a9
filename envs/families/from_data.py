"""From labelled data to a family of tasks."""

from __future__ import annotations

import os
from typing import Any

from metarl.envs.families.labelled import LabelledVectorEnv
from metarl.envs.families.labelled_arrays import arrays_of, in_order, labelled
from metarl.envs.families.labelled_data import DATA_SETS, as_text
from metarl.envs.references import Family

LABELLED = "metarl/Labelled-v0"
DRAWING = ("ways", "shots", "held_out", "shift")  # the arguments beside the data


def tasks_from_data(
    inputs: Any, labels: Any = None, *, ways: int = 5, shots: int = 5, held_out: str = "auto", shift: float = 0.0
) -> Family:
    """Return the family of few-shot tasks of labelled data, for everything that takes a family.

    A task is a draw of classes whose labels are hidden; the data sheet is that of ``metarl/Labelled-v0``. The data are
    kept in the family's arguments, and so in configurations and checkpoints.

    Args:
        inputs: ``[row, ...]``; or, without labels, a pair ``(X, y)``, a scikit-learn Bunch, a ``torch.utils.data``
            dataset or DataLoader of pairs, the path of an ``.npz`` file with X and y, or the name of a data set
            (``digits``, ``languages``, ``diagnosis``).
        labels: ``[row]``, numbers or texts.
        ways: how many classes a task has.
        shots: how many rows of each class an episode shows.
        held_out: ``classes`` holds classes out for testing, ``rows`` rows of all classes; ``auto`` holds classes out if
            there are twice ``ways`` of them.
        shift: the deviation of each task's gain and offset of every feature; 0 for none.

    Raises:
        ValueError: the data have one class, numbers that are not finite, other lengths, too few classes or rows, or
            other arguments are wrong.
    """
    inputs = os.fspath(inputs) if isinstance(inputs, os.PathLike) else inputs
    if isinstance(inputs, str) and labels is None:
        text = inputs
    else:
        text = as_text(in_order(labelled(*arrays_of(inputs, labels))))
    if isinstance(inputs, str) and inputs not in DATA_SETS and not inputs.endswith(".npz"):
        raise ValueError(f"the data are {inputs!r}; expected arrays, {', '.join(DATA_SETS)}, or an .npz file")
    kwargs = {"data": text, "ways": ways, "shots": shots, "held_out": held_out, "shift": shift}
    LabelledVectorEnv(1, **kwargs)  # type: ignore[arg-type]  # so that what is wrong is said here
    return Family(LABELLED, kwargs)
