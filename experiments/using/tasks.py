"""Tasks as they are named on the command line."""

from __future__ import annotations

import json
from typing import Any

from gymnasium import spaces

from metarl.envs import tasks as task_tools
from metarl.learner import BaseLearner
from metarl.replay import test_task


def named_task(learner: BaseLearner, text: str) -> tuple[Any, int | None]:
    """Return a task, and its number if it is a test task.

    Args:
        learner: of the run.
        text: the number of a test task, or a task as JSON.

    Raises:
        ValueError: it is neither, or no task of the family.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"--task {text!r} is no task; expected the number of a test task, from 0, or a task as JSON, as in "
            "'[0.3, -0.1]' or '{\"gravity\": 9.8}'"
        ) from error
    if isinstance(given, int) and not isinstance(given, bool):
        return test_task(learner, given), given
    if isinstance(given, float) and isinstance(task_tools.task_space(learner.env), spaces.Discrete):
        given = int(given) if given.is_integer() else given  # 3.0 is task 3, as 3 is the test task of this number
    return task_tools.as_task(learner.env, given), None


def in_full(task: Any, number: int | None) -> str:
    """Return a task in words: ``Test task 3, [0.1, 0.2]``."""
    told = json.dumps(task_tools.plain(task), ensure_ascii=False)
    return f"Test task {number}, {told}" if number is not None else f"Task {told}"
