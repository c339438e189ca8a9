"""The adaptation loop of training, evaluation and ``adapt``: collect rollouts and update, in turn."""

from __future__ import annotations

from collections.abc import Callable

from metarl.agents import Parameters, Rollouts


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
        parameters: what it begins with.
        collect: parameters and number of steps made -> rollouts.
        update: parameters, the rollouts collected with them and number of steps made -> parameters.
        steps: adaptation steps.
        play_adapted: collect once more after the last step.

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
