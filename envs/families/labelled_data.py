"""Labelled data as a text that a configuration can hold, and as arrays; three data sets that come with packages."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.sequence import Tasks

INLINE = "npz:"  # what the text of arrays begins with
LARGEST = 30_000_000  # numbers that may be kept in a configuration and in each checkpoint
FEATURES = 96  # of a word
LEAST_LETTERS = 4
WORDS = 120  # of a language
NEEDS_EXTRA = "needs the extra [data]: pip install 'metarl-suite[data]'"


@dataclass(frozen=True)
class LabelledData:
    """Rows of numbers with the classes that they belong to.

    Attributes:
        inputs: ``[row, feature]``, float32.
        labels: ``[row]``, int64, the number of each row's class.
        names: of the classes.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]


def digits() -> tuple[Any, Any]:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""
    found = _scikit_learn("digits").load_digits()
    return found.data, found.target


def diagnosis() -> tuple[Any, Any]:
    """Return scikit-learn's 569 breast tumours (Wolberg et al. 1995), 30 measures each, malignant or benign."""
    found = _scikit_learn("diagnosis").load_breast_cancer()
    return found.data, [found.target_names[number] for number in found.target]


def languages() -> tuple[Any, Any]:
    """Return ``WORDS`` names of countries and languages in each of the Latin-script languages of the package babel.

    Names that two languages share are left out. A word becomes the hashed counts of its runs of one to three letters.
    """
    try:
        from babel import Locale, localedata
    except ImportError as error:
        raise ImportError(f"the data set 'languages' {NEEDS_EXTRA}") from error
    spoken: dict[str, list[str]] = {}
    for identifier in localedata.locale_identifiers():
        if "_" not in identifier:
            locale = Locale(identifier)
            found = {name.lower() for names in (locale.territories, locale.languages) for name in names.values()}
            for word in sorted(found):
                if word.isalpha() and len(word) >= LEAST_LETTERS and all(ord(letter) < 0x250 for letter in word):
                    spoken.setdefault(word, []).append(identifier)
    rng = np.random.default_rng(0)
    own: dict[str, list[str]] = {}
    for word, where in spoken.items():
        if len(where) == 1:  # names that several languages share do not tell them apart
            own.setdefault(where[0], []).append(word)
    kept = {name: rng.permutation(words)[:WORDS] for name, words in sorted(own.items()) if len(words) >= WORDS}
    return letters(word for words in kept.values() for word in words), np.repeat(list(kept), WORDS)


def letters(words: Iterable[str]) -> NDArray[np.float32]:
    """Return words as hashed counts of their runs of one to three letters, ``[word, FEATURES]``, of length 1 each.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError as error:
        raise ImportError(f"hashing words {NEEDS_EXTRA}") from error
    vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=FEATURES, alternate_sign=True)
    counts: NDArray[np.float32] = vectorizer.transform(words).toarray().astype(np.float32)
    return counts


def _scikit_learn(name: str) -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ImportError(f"the data set {name!r} {NEEDS_EXTRA}") from error
    return sklearn.datasets


DATA_SETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "digits": digits,
    "languages": languages,
    "diagnosis": diagnosis,
}


def load_data(data: str) -> LabelledData:
    """Return the data that a text stands for, with read-only arrays; they are read again only where a file changed.

    Args:
        data: the name of a data set, the path of an ``.npz`` file with the arrays ``X`` and ``y``, or the text that
            ``as_text`` returned.

    Raises:
        ValueError: it is none of these, or the data cannot be learned from; see ``labelled``.
        ImportError: the data set needs an extra.
    """
    if not isinstance(data, str):
        raise ValueError(
            f"data is of type {type(data).__name__}; expected {_expected()}; metarl.tasks_from_data(X, y) takes arrays"
        )
    if data in DATA_SETS or data.startswith(INLINE):
        return _loaded(data, None)
    if not data.endswith(".npz"):
        raise ValueError(f"data is {data[:80]!r}; expected {_expected()}")
    path = Path(data).resolve()
    if not path.exists():
        raise ValueError(f"the file {data!r} does not exist; np.savez({data!r}, X=X, y=y) writes it")
    found = path.stat()
    return _loaded(str(path), (found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=8)
def _loaded(data: str, version: tuple[int, int] | None) -> LabelledData:
    """Return data, of a file in one of its versions."""
    if version is not None:
        return _read(data, f"the file {data!r}")
    if data in DATA_SETS:
        return labelled(*DATA_SETS[data]())
    try:
        content = io.BytesIO(base64.b85decode(data.removeprefix(INLINE)))
    except ValueError as error:
        raise ValueError(f"the text of the data is damaged: {error}") from error
    return _read(content, "the text of the data")


def _expected() -> str:
    return f"one of {', '.join(DATA_SETS)}, or the path of an .npz file with the arrays X and y"


def _read(file: Any, what: str) -> LabelledData:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{what} cannot be read: {error}") from error
    if not {"X", "y"} <= set(found):
        raise ValueError(f"{what} has the arrays {sorted(found)}; expected X and y")
    return labelled(found["X"], found["y"])


def as_text(data: LabelledData) -> str:
    """Return data as a text that a configuration and a checkpoint can hold.

    Raises:
        ValueError: they are too many.
    """
    if data.inputs.size > LARGEST:
        raise ValueError(
            f"the data have {data.inputs.size:,} numbers, and up to {LARGEST:,} are kept in a configuration; write "
            "them with np.savez('data.npz', X=X, y=y), and give family_kwargs={'data': 'data.npz'}"
        )
    file = io.BytesIO()
    np.savez_compressed(file, X=data.inputs, y=np.array(data.names)[data.labels])
    return INLINE + base64.b85encode(file.getvalue()).decode("ascii")


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
        and not isinstance(inputs, np.ndarray | str | dict)
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
    return np.asarray(given[0]), np.asarray(given[1])


def labelled(inputs: Any, labels: Any) -> LabelledData:
    """Return arrays as labelled data; further axes of the inputs, as those of images, become features.

    Raises:
        ValueError: they have other lengths, no rows, one class only, or numbers that are not finite.
    """
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            rows = np.asarray(inputs.toarray() if hasattr(inputs, "toarray") else inputs, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"X cannot be turned into numbers ({error}); expected an array [row, feature]") from error
    classes = np.asarray(labels)
    if rows.ndim < 1 or len(rows) == 0:
        raise ValueError(f"X has shape {rows.shape}; expected at least one row, [row, feature]")
    if classes.shape != (len(rows),):
        raise ValueError(f"y has shape {classes.shape} and X {len(rows)} rows; expected a label for each row")
    if classes.dtype.kind == "O":
        missing = [row for row, label in enumerate(classes) if label is None or label != label]
        if missing:
            raise ValueError(f"y has no label in {len(missing)} rows, first in row {missing[0]}; leave them out")
        classes = classes.astype(np.str_)
    if classes.dtype.kind == "f" and not np.isfinite(classes).all():
        raise ValueError(f"y is not finite in {int((~np.isfinite(classes)).sum())} rows; leave them out")
    if classes.dtype.kind == "f" and (measured := classes != np.round(classes)).any():
        raise ValueError(
            f"y is {classes[measured][0]:.6g} in row {measured.argmax()}; expected classes, as whole numbers or texts; "
            "cut what is measured into classes first"
        )
    rows = rows.reshape(len(rows), -1)
    if rows.shape[1] == 0:
        raise ValueError("X has no features; expected an array [row, feature]")
    faulty = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(faulty):
        raise ValueError(
            f"X is not finite in {len(faulty)} of {len(rows)} rows, first in row {faulty[0]}; leave them out or "
            "fill them"
        )
    names, numbers = np.unique(classes, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"all labels are {names[0]!s}; expected two classes at least, since there is nothing to tell apart"
        )
    numbers = numbers.reshape(-1).astype(np.int64)
    rows = np.array(rows)
    rows.flags.writeable = numbers.flags.writeable = False
    return LabelledData(rows, numbers, tuple(str(name) for name in names))
