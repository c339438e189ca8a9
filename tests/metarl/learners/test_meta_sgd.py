"""Meta-SGD: learned step sizes, of parameters, layers or inner steps."""

from __future__ import annotations

import torch
from adaptations import adapt_all, adapt_with_learned_sizes
from samples import make_policy, make_samples
from small import NAVIGATION, played, same, small

import metarl
from metarl.gradients.adaptation import inner_update
from metarl.gradients.curvature import Curvature


def test_a_constant_step_size_makes_meta_sgd_maml() -> None:
    plain = adapt_all()
    query = make_samples(make_policy(), seed=9)
    found = Curvature(adapt_with_learned_sizes(equal=True), query).gradient[: len(plain.vector)]
    torch.testing.assert_close(found, Curvature(plain, query).gradient)


def test_it_adapts_with_the_step_sizes_it_learned() -> None:
    model = small("meta-sgd", inner={"steps": 2}, outer={"step_sizes": "layer", "per_step": True}).learn(iterations=2)
    sizes = model.state.own_tensors["step_sizes"]
    assert sizes.shape == (2, len(model.parameters))
    assert (sizes != 0.1).all()
    rollouts = played(model, metarl.sample_tasks(NAVIGATION, 1, seed=1))
    for step, size in enumerate([sizes[0], sizes[1], 0.5 * sizes[1]]):
        each = dict(zip(model.parameters, size, strict=True))
        expected = inner_update(
            model.functional_policy,
            model.parameters,
            model.samples(model.state, rollouts),
            {name: each[name].expand_as(value) for name, value in model.parameters.items()},
        )
        assert same(model.adapted(model.state, model.parameters, rollouts, step), expected)


def test_plain_steps_leave_step_sizes_alone_and_have_no_moments() -> None:
    model = small("meta-sgd", outer={"update": "vpg", "optimizer": "sgd"}).learn(iterations=2)
    assert list(model.state.own_tensors) == ["step_sizes"]
