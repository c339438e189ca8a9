"""Types of settings: numbers with the ranges that pydantic checks, for all dataclasses of settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Inside = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]  # inside (0, 1), without its ends
Unit = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]

FORBID = ConfigDict(extra="forbid")  # the ``__pydantic_config__`` of dataclasses of settings: refuse unknown keys
