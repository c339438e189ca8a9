"""Types of settings: what pydantic checks of a number, in one place for every dataclass of settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Inside = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]  # of (0, 1)
Unit = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Switch = Annotated[bool, Field(strict=True)]

FORBID = ConfigDict(extra="forbid")  # of unknown keys: the ``__pydantic_config__`` of a dataclass of settings
