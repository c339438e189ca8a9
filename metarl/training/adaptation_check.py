"""Whether adaptation helps: a judgement of the validations so far, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metarl.statistics import bootstrap_interval

Returns = NDArray[np.float64]
Finding = Literal["no need", "no change", "harm"]

VALIDATIONS = 3  # in a row that have to agree
LEAST_TASKS = 5  # for intervals over tasks
LEAST_DONE = 0.25  # the share of the training before which nothing is concluded
_SMALL, _AT_MOST = 0.05, 0.2  # shares of what training gained
_SAME = 0.1  # of the noise

SENTENCES: dict[Finding, str] = {
    "no need": (
        "the policy before adaptation has become better in training ({start:.2f} to {before:.2f}), and on the "
        "validation tasks adaptation adds nothing ({after:.2f}), so the tasks may not need adaptation: check that what "
        "varies between them changes what is best to do and is hidden from the policy, widen its range, and compare "
        "with learner=pretrained; learning.check = false turns this check off"
    ),
    "no change": (
        "neither training nor adaptation has changed the return on the validation tasks ({before:.2f} before and "
        "{after:.2f} after adaptation): check that rewards are not the same whatever the policy does, and try larger "
        "steps ({steps}); learning.check = false turns this check off"
    ),
    "harm": (
        "adaptation makes the return on the validation tasks worse ({before:.2f} before, {after:.2f} after it): try "
        "{remedy}; learning.check = false turns this check off"
    ),
}
REMEDY = "smaller steps (inner.step_size) or more episodes for each (learning.episodes, evaluation.episodes)"
REMEDY_OF_MEMORY = "smaller steps ({outer}) or more trials (outer.trials)"


@dataclass
class AdaptationCheck:
    """What a judgement needs of the training so far.

    Attributes:
        start: ``[task]``, the returns before adaptation on the training tasks of the first iteration; None if the
            learner does not tell them.
        validations: the last validations, each ``[step, task]`` with the same tasks and episodes; first the oldest.
        said: whether a finding was said.
    """

    start: Returns | None = None
    validations: list[Returns] = field(default_factory=list)
    said: bool = False

    def add(self, returns: Returns) -> None:
        """Add a validation; of the earlier ones the first and the latest are kept."""
        kept = self.validations
        self.validations = [*kept[:1], *kept[1:][-VALIDATIONS:], returns]

    def finding(self) -> tuple[Finding, dict[str, float]] | None:
        """Return what the validations so far show, with the returns to tell, or None if nothing is certain."""
        found = None if self.start is None else judge(self.start, self.validations)
        if found is None or self.start is None:
            return None
        last = self.validations[-1]
        step = int(np.argmax(last[1:].mean(axis=1))) + 1
        told = {"start": self.start.mean(), "before": last[0].mean(), "after": last[step].mean()}
        return found, {name: float(value) for name, value in told.items()}


def judge(start: Returns, validations: Sequence[Returns]) -> Finding | None:
    """Return what validations show about adaptation; None if it helps, or if nothing is certain.

    All intervals are 95 % bootstrap intervals over tasks. Those of the gain of adaptation are of the differences of
    each task's returns after k steps and before, for each k of 1 and more. The last ``VALIDATIONS`` have to agree:

    - ``no need``: training has improved the return before adaptation, and no number of steps gains a twentieth of
      that; where the interval includes 0, its end may be at a fifth.
    - ``no change``: since the first validation, the returns of the tasks before adaptation have changed by less than a
      tenth of their noise (all validations play the same tasks with the same random numbers, so that an unchanged
      policy has the same returns), and no number of steps has a gain whose interval is above 0.
    - ``harm``: every number of steps has a gain whose interval is below 0, and loses more than training has gained.

    Args:
        start: ``[task]``, the returns before adaptation and training, on other tasks.
        validations: each ``[step, task]``, the oldest first.
    """
    latest = list(validations)[-VALIDATIONS:]
    if len(latest) < VALIDATIONS or min(len(start), latest[0].shape[1]) < LEAST_TASKS or len(latest[0]) < 2:
        return None
    findings = {_judge_one(start, validations[0][0], returns) for returns in latest}
    return findings.pop() if len(findings) == 1 else None


def _judge_one(start: Returns, first: Returns, returns: Returns) -> Finding | None:
    before = returns[0]
    gains = [after - before for after in returns[1:]]
    intervals = [bootstrap_interval(gain) for gain in gains]
    improvement = float(before.mean() - start.mean())
    # Of independent tasks: the squares of the distances from the means to the ends add up.
    below = float(np.hypot(before.mean() - bootstrap_interval(before)[0], bootstrap_interval(start)[1] - start.mean()))
    if all(high < 0.0 and gain.mean() < -improvement for gain, (_, high) in zip(gains, intervals, strict=True)):
        return "harm"
    if improvement > below and all(
        high <= _SMALL * improvement or (low <= 0.0 and high <= _AT_MOST * improvement) for low, high in intervals
    ):
        return "no need"
    noise = min(float(np.sqrt(np.mean(np.square(gain)))) for gain in gains)
    change = float(np.sqrt(np.mean(np.square(before - first))))
    if change <= _SAME * noise and all(low <= 0.0 for low, _ in intervals):
        return "no change"
    return None
