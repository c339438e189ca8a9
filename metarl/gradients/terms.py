"""Terms of a meta-objective, beside the gain after adaptation: functions of the policies before each inner step.

The inner update goes through the policies before each inner step anyway, so what they say of the samples is at hand for
a term's value, and a term's gradient is carried back together with the meta-gradient, in the same pass through the
layers: of its own it costs the derivative by the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from metarl.agents import Distribution, Samples

Outputs = list[tuple[Distribution, Samples]]  # what a policy says, and the samples it says it of, by blocks of rows
Slopes = Sequence[Sequence[Tensor]]  # by block: the derivative of a function by each of the distribution's parameters


class Term(Protocol):
    """What a learner adds to the meta-objective, for each task and inner step.

    ``part`` is the number of a part of the tasks: of one, or of several that go together, with a leading task axis.
    """

    def value(self, part: int, step: int, outputs: Outputs) -> Tensor:
        """Return the term of the policies before inner step ``step``, to be maximised: ``[...]``."""

    def slopes(self, part: int, step: int, outputs: Outputs) -> Slopes:
        """Return its derivative by what the policies say."""
