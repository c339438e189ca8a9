"""What ANIL and CAVIA share: MAML whose inner steps change some of the parameters only."""

from __future__ import annotations

from torch import Tensor

from metarl.inner import StepSize
from metarl.maml import MAML


class PartlyAdapting(MAML):
    """MAML with inner steps on a part; a subclass sets ``_adapts [parameter]``, 1 for what adapts and else 0."""

    _adapts: Tensor

    def training_step_size(self, step: int) -> StepSize:
        """Return the step size of each parameter, flat: 0 for what does not adapt."""
        return self._adapts * self.settings.inner.step_size

    def step_size(self, step: int) -> StepSize:
        """Return the step size of each parameter at evaluation, flat: 0 for what does not adapt."""
        size = super().step_size(step)
        assert not isinstance(size, dict | Tensor)
        return self._adapts * size
