"""The adaptation loop of training, evaluation and ``adapt``, and the check that updates are finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metarl.agents import Parameters, Rollouts
from metarl.envs import tasks as task_tools


def adapt_on_rollouts(
    parameters: Parameters,
    collect: Callable[[Parameters, int], Rollouts],
    update: Callable[[Parameters, Rollouts, int], Parameters],
    steps: int,
    *,
    play_adapted: bool = True,
) -> tuple[Parameters, list[Rollouts]]:
    """Collect rollouts and update parameters in turn.

    Args:
        parameters: before adaptation.
        collect: parameters and number of steps so far -> rollouts.
        update: parameters, the rollouts collected with them and number of steps so far -> updated parameters.
        steps: the number of adaptation steps.
        play_adapted: whether to collect once more after the last step.

    Returns:
        the adapted parameters, and the rollouts after 0, 1, ... steps.
    """
    rollouts = []
    for step in range(steps + 1):
        if step < steps or play_adapted:
            rollouts.append(collect(parameters, step))
        if step < steps:
            parameters = update(parameters, rollouts[-1], step)
    return parameters, rollouts


def refuse_not_finite(what: str, faulty: float, tasks: Any, iteration: int) -> None:
    """Raise an error if the numbers of some task are not finite.

    Args:
        what: the name of the numbers, for the message.
        faulty: the number of the first such task, -1 if there is none (``task_axis.first_not_finite``).
        tasks: the iteration's batch of tasks.
        iteration: the iteration's number.

    Raises:
        FloatingPointError: there is such a task; the message names it.
    """
    if faulty >= 0:
        task = task_tools.plain(task_tools.take_tasks(tasks, int(faulty)))
        raise FloatingPointError(
            f"iteration {iteration}: the {what} of task {task} is not finite; smaller steps (inner.step_size, "
            "outer.learning_rate) or a higher policy.log_std_min may help"
        )
