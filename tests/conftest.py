"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import forked
import pytest


@pytest.fixture(scope="session", autouse=True)
def process_that_forks() -> Iterator[None]:
    """End it after the last test, where one was needed."""
    yield
    forked.close()
