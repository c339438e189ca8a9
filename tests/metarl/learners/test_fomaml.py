"""First-order MAML: the gradient after adaptation as it is, and what it cannot do."""

from __future__ import annotations

import pytest
import torch
from adaptations import adapt_all, credit
from samples import make_policy, make_samples

from metarl.agents import POLICY_GRADIENT
from metarl.gradients.curvature import Curvature
from metarl.gradients.meta_update import meta_gradients
from metarl.learners.promp import KLPenalty


def test_first_order_is_the_gradient_after_adaptation_as_it_is() -> None:
    query = make_samples(make_policy(), seed=9)
    whole, first = adapt_all(), adapt_all(first_order=True)
    for name, value in whole.parameters[-1].items():
        torch.testing.assert_close(first.parameters[-1][name], value)
    identity = torch.stack([part for one in whole.adapted(whole.groups, query) for part in one.gradient])
    torch.testing.assert_close(Curvature(first, query).gradients, identity)
    assert (Curvature(whole, query).gradients - identity).norm() > 0.01 * identity.norm()


def test_first_order_updates_refuse_a_term_of_the_policies_before_them() -> None:
    adaptation, query = adapt_all(first_order=True), make_samples(make_policy(), seed=9)
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        meta_gradients(adaptation, query, POLICY_GRADIENT, credit(adaptation))
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        Curvature(adaptation, query, term=credit(adaptation))
    with pytest.raises(ValueError, match="first-order inner updates keep nothing"):
        KLPenalty(adaptation, 0.5)
