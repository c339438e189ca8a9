"""MAML: its inner objectives, and the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import copied, played, same, small

from metarl.gradients.adaptation import Adaptation
from metarl.gradients.flat import flatten


@pytest.mark.parametrize("baseline", ["linear", "none"])
def test_dice_adapts_in_training_as_in_evaluation_and_not_as_the_policy_gradient_does(baseline: str) -> None:
    model = small("maml", inner={"objective": "dice", "baseline": baseline})
    state = model.state
    rollouts = played(model, model.training_tasks(1))
    adaptation = Adaptation(model.functional_policy, model.backend, model.meta_vector(state), model.linear_map())
    adaptation.adapt(model.inner_samples(state, rollouts), model.inner_step_size(state, 0))
    adapted = model.adapted(state, model.parameters, rollouts, 0)
    for name, value in adaptation.parameters[-1].items():
        torch.testing.assert_close(adapted[name], value)
    other = small("maml").adapted(state, model.parameters, rollouts, 0)
    assert (flatten(adapted.values()) - flatten(other.values())).norm() > 1e-3
    before = copied(model.parameters)
    assert not same(model.learn(iterations=1).parameters, before)


def test_the_number_of_torchs_threads_changes_no_bit() -> None:
    """More than 10,000 parameters: torch adds up long vectors in as many parts as it has threads."""
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = small("maml", policy_kwargs={"hidden_sizes": (128, 128)}).learn(iterations=1)
            assert torch.get_num_threads() == threads
            found.append((model.parameters, model.evaluate(n_tasks=2).returns))
    finally:
        torch.set_num_threads(before)
    assert same(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
