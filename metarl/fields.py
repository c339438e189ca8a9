"""Types of settings: numbers with the ranges that pydantic checks, for all dataclasses of settings."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=1)]
NoneOrCount = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Inside = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]  # inside (0, 1), without its ends
Unit = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(strict=True, min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(lambda names: [names] if isinstance(names, str) else names)]
Patterns = Annotated[
    tuple[Name, ...],
    Field(min_length=1),
    BeforeValidator(lambda names: [names] if isinstance(names, str) else names),
]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]
Sizes = Annotated[tuple[Count, ...], BeforeValidator(lambda sizes: [sizes] if type(sizes) is int else sizes)]


def setting(default: Any, meaning: str, unit: str = "") -> Any:
    """Return a dataclass's field with a default, its meaning, and its unit if it has one, for help and documents."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "unit": unit})


FORBID = ConfigDict(extra="forbid")  # the ``__pydantic_config__`` of dataclasses of settings: refuse unknown keys
