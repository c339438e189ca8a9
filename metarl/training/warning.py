"""Warnings at the line of the program that called metarl."""

from __future__ import annotations

import inspect
import warnings


def warn_caller(sentence: str) -> None:
    """Give a ``UserWarning`` that names the line outside metarl from which it was called."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "metarl":
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, UserWarning, stacklevel=level + 1)
