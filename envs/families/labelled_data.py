"""Labelled data as a text that a configuration can hold, and as arrays; three data sets that come with packages."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.families.labelled_arrays import LabelledData, labelled

INLINE = "npz:"  # what the text of arrays begins with
LARGEST = 30_000_000  # numbers that may be kept in a configuration and in each checkpoint
FEATURES = 96  # of a word
LEAST_LETTERS = 4
WORDS = 120  # of a language
NEEDS_EXTRA = "needs the extra [data]: pip install 'metarl-suite[data]'"


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
