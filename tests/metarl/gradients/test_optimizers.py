"""Adam as a function, against torch's."""

from __future__ import annotations

import torch

from metarl.gradients.optimizers import ascend, first_moments


def test_adam_takes_the_steps_of_torchs() -> None:
    generator = torch.Generator().manual_seed(3)
    ours = torch.randn(7, generator=generator, dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimizer, moments = torch.optim.Adam([theirs], lr=0.1, maximize=True), first_moments("adam", ours)
    for _ in range(4):
        theirs.grad = torch.randn(7, generator=generator, dtype=torch.float64)
        ours, moments = ascend(ours, theirs.grad, moments, 0.1)
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach())
