"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import forked
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def process_that_forks() -> Iterator[None]:
    """End it after the last test, where one was needed."""
    yield
    forked.close()
