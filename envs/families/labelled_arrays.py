"""Labelled data however they are given, as arrays that tasks can be drawn from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.sequence import Tasks

LARGEST_NUMBER = 1e100  # of X
WHOLE = 2**53  # whole numbers up to this are exact in double precision
KEPT = 1e-3  # of a feature's deviation, the most that rounding to single precision may change

Numbers = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class LabelledData:
    """Rows of numbers with the classes that they belong to.

    Attributes:
        inputs: ``[row, feature]``, float32, or float64 where single precision would lose differences.
        labels: ``[row]``, int64, the number of each row's class.
        names: of the classes.
    """

    inputs: Numbers
    labels: NDArray[np.int64]
    names: tuple[str, ...]


def are_data(given: Any) -> bool:
    """Whether an object is labelled data, as ``arrays_of`` takes them, and not tasks."""
    if hasattr(given, "data") and hasattr(given, "target"):  # a scikit-learn Bunch is a dict too
        return True
    if isinstance(given, Tasks | np.ndarray | Mapping | str):
        return False
    if isinstance(given, tuple | list):
        return len(given) == 2 and _is_table(given[0])
    return hasattr(given, "__getitem__") or (hasattr(given, "dataset") and hasattr(given, "batch_size"))


def _is_table(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) > 0 and (isinstance(value[0], tuple | list) or np.ndim(value[0]) > 0)
    return len(getattr(value, "shape", ())) > 1


def arrays_of(inputs: Any, labels: Any = None) -> tuple[Any, Any]:
    """Return the arrays X and y of data, however they are given.

    Args:
        inputs: an array ``[row, ...]``; or, without labels, a pair ``(X, y)``, a scikit-learn Bunch, or a
            ``torch.utils.data`` dataset or DataLoader of such pairs.
        labels: ``[row]``.

    Raises:
        ValueError: the data are none of these.
    """
    if labels is not None:
        return inputs, labels
    if hasattr(inputs, "data") and hasattr(inputs, "target"):
        names = getattr(inputs, "target_names", None)
        target = np.asarray(inputs.target)
        named = names is not None and target.dtype.kind in "iu" and target.size and target.max() < len(names)
        return inputs.data, np.asarray(names)[target] if named else target
    if isinstance(inputs, tuple | list) and len(inputs) == 2:
        return inputs[0], inputs[1]
    if hasattr(inputs, "dataset") and hasattr(inputs, "batch_size") and inputs.batch_size is not None:
        pairs = [_pair(batch) for batch in inputs]
        if not pairs:
            raise ValueError("the DataLoader gives no batches, and so no data to learn from")
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    if (
        hasattr(inputs, "__getitem__")
        and hasattr(inputs, "__len__")
        and not isinstance(inputs, np.ndarray | str | Mapping)
    ):
        pairs = [_pair(inputs[number]) for number in range(len(inputs))]
        return np.stack([pair[0] for pair in pairs]) if pairs else np.zeros((0, 1)), [pair[1] for pair in pairs]
    raise ValueError(
        f"the data are of type {type(inputs).__name__}; expected arrays X and y, a pair (X, y), a scikit-learn Bunch, "
        "or a torch DataLoader or Dataset of pairs"
    )


def _pair(given: Any) -> tuple[Any, Any]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(
            f"the data give {type(given).__name__} where a pair (inputs, labels) is expected; write them as pairs"
        )
    return as_array("the inputs", given[0]), as_array("the labels", given[1])


def as_array(name: str, given: Any) -> NDArray[Any]:
    """Return an array of what may be one of numpy, torch (also with a gradient), scipy or pandas.

    Args:
        name: of what is given, for messages.
        given: the array.

    Raises:
        ValueError: it is masked, or has rows of several lengths.
    """
    if np.ma.is_masked(given):
        raise ValueError(
            f"{name} has {np.ma.getmaskarray(given).sum()} masked entries; leave their rows out or fill them"
        )
    for step in ("detach", "cpu", "toarray"):
        given = getattr(given, step)() if hasattr(given, step) else given
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} cannot be turned into an array ({error}); expected rows of one length") from error


def labelled(inputs: Any, labels: Any) -> LabelledData:
    """Return arrays as labelled data; further axes of the inputs, as those of images, become features.

    Raises:
        ValueError: they have other lengths, no rows, one class only, or numbers that are not finite, too large or lost.
    """
    rows, classes = _numbers(as_array("X", inputs)), as_array("y", labels)
    if classes.shape == (len(rows), 1):  # a column of a table
        classes = classes[:, 0]
    if classes.shape != (len(rows),):
        raise ValueError(
            f"y has shape {classes.shape} and X {len(rows)} rows; expected a label for each row; y.argmax(axis=1) "
            "makes labels of one-hot rows"
        )
    names, numbers = np.unique(_texts(classes), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"all labels are {names[0]!s}; expected two classes at least, since there is nothing to tell apart"
        )
    numbers = numbers.reshape(-1).astype(np.int64)
    rows.flags.writeable = numbers.flags.writeable = False
    return LabelledData(rows, numbers, tuple(str(name) for name in names))


def _numbers(given: NDArray[Any]) -> Numbers:
    """Return the numbers of rows, ``[row, feature]``, in single precision where that loses nothing that matters."""
    if given.ndim < 1 or len(given) == 0:
        raise ValueError(f"X has shape {given.shape}; expected at least one row, [row, feature]")
    if given.size == 0:
        raise ValueError("X has no features; expected an array [row, feature]")
    if given.dtype.kind in "cmMV":
        raise ValueError(f"X is of type {given.dtype}; expected real numbers, [row, feature]; turn it into such first")
    try:
        rows = np.array(given, dtype=np.float64).reshape(len(given), -1)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"X cannot be turned into numbers ({error}); expected an array [row, feature]") from error
    faulty = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(faulty):
        raise ValueError(
            f"X is not finite in {len(faulty)} of {len(rows)} rows, first in row {faulty[0]}; leave them out or "
            "fill them"
        )
    largest = np.abs(rows).max(axis=0)
    if largest.max() > LARGEST_NUMBER:
        raise ValueError(
            f"X has a number of magnitude {largest.max():.3g}; expected at most 1e100; divide it by its scale"
        )
    if given.dtype.kind in "iuO" and largest.max() > WHOLE:
        original, own = given.reshape(rows.shape), np.abs(rows) > WHOLE
        if any(int(value) != kept for value, kept in zip(original[own].tolist(), rows[own].tolist(), strict=True)):
            raise ValueError(
                f"X has whole numbers up to {largest.max():.3g}, of which the last digits would be lost; take off what "
                "they have in common, as X - X.min(axis=0)"
            )
    with np.errstate(over="ignore"):
        single = rows.astype(np.float32)
    _, scale = standard(rows)
    lost = np.abs(single - rows).max(axis=0)
    return single if (lost <= KEPT * scale)[varies(rows, scale)].all() else rows


def _texts(classes: NDArray[Any]) -> NDArray[np.str_]:
    """Return labels as texts; the same class has the same text whatever it was given as."""
    if classes.dtype.kind == "O":
        missing = [row for row, label in enumerate(classes) if label is None or label != label]
        if missing:
            raise ValueError(f"y has no label in {len(missing)} rows, first in row {missing[0]}; leave them out")
    if classes.dtype.kind == "c":
        raise ValueError("y is of a complex type; expected classes, as whole numbers or texts")
    if classes.dtype.kind == "f":
        if not np.isfinite(classes).all():
            raise ValueError(f"y is not finite in {int((~np.isfinite(classes)).sum())} rows; leave them out")
        if (measured := classes != np.round(classes)).any():
            raise ValueError(
                f"y is {classes[measured][0]:.6g} in row {measured.argmax()}; expected classes, as whole numbers or "
                "texts; cut what is measured into classes first"
            )
        return np.array([f"{label:.0f}" for label in classes])
    if classes.dtype.kind == "S":
        return np.char.decode(classes, "utf-8", "replace")
    return classes.astype(np.str_)


def standard(rows: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the deviation of each feature, ``[feature]``, of numbers of any magnitude."""
    largest = np.abs(rows).max(axis=0).astype(np.float64)
    unit = np.where(largest > 0.0, largest, 1.0)
    shares = rows / unit
    return shares.mean(axis=0) * unit, shares.std(axis=0) * unit


def varies(rows: Numbers, scale: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which features vary by more than the rounding of their numbers, ``[feature]``."""
    found: NDArray[np.bool_] = scale > 4.0 * np.finfo(rows.dtype).eps * np.abs(rows).max(axis=0)
    return found


def in_order(data: LabelledData) -> LabelledData:
    """Return data with their rows in an order that depends on the rows alone.

    So what is held out is the same rows when the same data come in another order, as a DataLoader shuffles them.
    """
    order = np.lexsort((np.array([content(row) for row in data.inputs]), data.labels))
    return LabelledData(data.inputs[order], data.labels[order], data.names)


def content(row: Numbers) -> bytes:
    """Return a digest of a row's numbers."""
    return hashlib.blake2b(row.tobytes(), digest_size=8).digest()
