"""Whether meta-updates have stopped changing anything, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ZERO_GRADIENTS = 3  # from the first one on, after which it is said that nothing is learned
FAILED_SEARCHES = 10  # in a row


@dataclass
class Standstill:
    """Counts meta-updates in a row that changed nothing.

    Attributes:
        zero_gradients: the first meta-gradients, up to the first one that was not exactly 0. Later ones that are 0 may
            only say that the policy is as good as it gets.
        any_gradient: whether a meta-gradient was not 0.
        failed_searches: the latest line searches that accepted no step.
        said: whether a sentence was returned.
    """

    zero_gradients: int = 0
    any_gradient: bool = False
    failed_searches: int = 0
    said: bool = False

    def sentence(self, metrics: Mapping[str, float | str], failed_search: bool) -> str | None:
        """Count a meta-update; return a sentence, once, if nothing has been learned for several of them.

        Args:
            metrics: of the meta-iteration; ``train/gradient_norm`` is looked at.
            failed_search: whether its line search accepted no step.
        """
        self.any_gradient = self.any_gradient or metrics.get("train/gradient_norm") != 0.0
        self.zero_gradients = 0 if self.any_gradient else self.zero_gradients + 1
        self.failed_searches = self.failed_searches + 1 if failed_search else 0
        if self.said or max(self.zero_gradients - ZERO_GRADIENTS, self.failed_searches - FAILED_SEARCHES) < 0:
            return None
        self.said = True
        if self.zero_gradients >= ZERO_GRADIENTS:
            return (
                f"the meta-gradient has been exactly 0 for {self.zero_gradients} iterations, so nothing is learned: "
                "the rewards of a task may be the same whatever the policy does, or its actions may not reach the "
                "environment"
            )
        return (
            f"the line search of the meta-update has accepted no step for {self.failed_searches} iterations, so "
            "nothing is learned: the estimate may be too noisy (more learning.tasks or learning.episodes), the inner "
            "update too large (inner.step_size), or the policy as good as it gets"
        )
