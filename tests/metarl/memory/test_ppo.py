"""The update over whole trials: its gradient, by finite differences, and in chunks."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from small import LENGTHS_DIFFER, remembering, trials_of
from torch import Tensor

from metarl.agents import Parameters
from metarl.agents.policies import GruPolicy
from metarl.agents.policies.gru import Scratch
from metarl.agents.trials import pack
from metarl.memory import by_hand
from metarl.memory.ppo import Batch, Weights, loss_gradient, loss_parts, memories
from metarl.memory.value_head import CENTRE, SCALE, new_value_head, rescaled, standard_values

WEIGHTS = Weights(clip=0.2, entropy=0.05, value=0.7)
CASES: dict[str, dict[str, Any]] = {
    "different lengths": {"family": LENGTHS_DIFFER},
    "choices": {"family": LENGTHS_DIFFER, "family_kwargs": {"actions": "multi"}},
    "floor, layers": {
        "family": LENGTHS_DIFFER,
        "policy_kwargs": {"hidden_sizes": (5, 3, 4), "activation": "relu", "log_std_min": 0.0},
    },
    "plain": {"family": "metarl/BernoulliBandit-v0", "family_kwargs": {"pulls": 4}, "outer": {"critic": "plain"}},
}


@functools.cache
def problem(case: str) -> tuple[Any, Parameters, Batch]:
    """Return a policy, all parameters in double precision, moved a little, and what they learn from."""
    model = remembering(**CASES[case])
    _, rollouts = trials_of(model, episodes=2)
    steps, _ = model.as_seen(model.state, rollouts)
    generator = torch.Generator().manual_seed(0)
    count = len(steps.told)
    numbers = 0 if case == "plain" else 2
    head = new_value_head(model.functional_policy.memory_size, numbers, 1)
    shared = {
        name: value.double() + 0.05 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in {**model.parameters, **head}.items()
    }
    batch = Batch(
        steps=steps,
        tasks=torch.randn(6, numbers, generator=generator, dtype=torch.float64),
        advantages=torch.randn(count, generator=generator, dtype=torch.float64),
        targets=torch.randn(count, generator=generator, dtype=torch.float64),
    )
    return model.functional_policy, shared, batch


def mean_loss(policy: Any, shared: Parameters, batch: Batch, trials: Tensor) -> float:
    own = {name: value for name, value in shared.items() if name in policy.shapes}
    head = {name: value for name, value in shared.items() if name not in policy.shapes}
    packing = pack(batch.steps, trials)
    ((rows, memory),) = list(memories(policy, own, batch.steps, packing, None))
    return float(loss_parts(policy, own, head, batch, rows, memory, WEIGHTS)[0]) / len(rows)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_finite_differences(case: str) -> None:
    policy, shared, batch = problem(case)
    own = {name: value for name, value in shared.items() if name in policy.shapes}
    trials = torch.tensor([4, 0, 3])
    gradient, _, count = loss_gradient(policy, shared, batch, trials, WEIGHTS, None)
    assert own.keys() < gradient.keys() == shared.keys()
    assert count == int(batch.steps.lengths[trials].sum())
    generator = torch.Generator().manual_seed(5)
    for name in shared:
        direction = torch.randn(shared[name].shape, generator=generator, dtype=torch.float64)
        moved = [
            mean_loss(policy, {**shared, name: shared[name] + sign * 1e-6 * direction}, batch, trials)
            for sign in (1.0, -1.0)
        ]
        slope = (moved[0] - moved[1]) / 2e-6
        assert float((gradient[name] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-9), name


def test_chunks_give_the_whole_gradient_where_they_hold_whole_trials_and_of_what_has_no_past() -> None:
    policy, shared, batch = problem("different lengths")
    trials = torch.arange(6)
    whole, sums, _ = loss_gradient(policy, shared, batch, trials, WEIGHTS, None)
    longest = int(batch.steps.lengths.max())
    assert longest > 4
    as_long, _, _ = loss_gradient(policy, shared, batch, trials, WEIGHTS, longest)
    chunked, in_chunks, _ = loss_gradient(policy, shared, batch, trials, WEIGHTS, 2)
    for name, value in whole.items():
        torch.testing.assert_close(as_long[name], value, rtol=1e-12, atol=1e-14)
        same = torch.allclose(chunked[name], value, rtol=1e-9, atol=1e-12)
        past = name.startswith(("weight", "bias", "embedding"))
        assert same != past, name  # only what acts through the memory has a longer way back
    for name, value in sums.items():
        torch.testing.assert_close(in_chunks[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8, deadline=None)
@given(
    trials=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True),
    chunk=st.one_of(st.none(), st.integers(1, 7)),
    weights=st.builds(
        Weights, clip=st.floats(0.01, 0.5), entropy=st.sampled_from([0.0, 0.3]), value=st.sampled_from([0.1, 2.0])
    ),
)
def test_the_gradient_by_hand_is_that_of_automatic_differentiation(
    case: str, trials: list[int], chunk: int | None, weights: Weights
) -> None:
    policy, shared, batch = problem(case)
    assert by_hand.applies(policy, torch.device("cpu"))
    expected, parts, count = loss_gradient(policy, shared, batch, torch.tensor(trials), weights, chunk)
    scratch = Scratch()
    for _ in range(2):  # the second time with what the first left behind
        found, sums, rows = by_hand.loss_gradient(policy, shared, batch, torch.tensor(trials), weights, chunk, scratch)
        assert rows == count
        assert list(found) == list(expected)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(sums, parts, rtol=1e-10, atol=1e-12)


def test_policies_with_trained_features_keep_to_automatic_differentiation() -> None:
    class Own(GruPolicy):
        pass

    policy = remembering(family=LENGTHS_DIFFER).functional_policy
    assert by_hand.applies(policy, torch.device("cpu"))
    assert not by_hand.applies(policy, torch.device("meta"))
    assert not by_hand.applies(Own(policy.network, policy.action_space, None), torch.device("cpu"))
    of_dict = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Box(-1.0, 1.0, (1,))})
    other = GruPolicy.build(of_dict, policy.action_space, seed=0)
    assert not by_hand.applies(other, torch.device("cpu"))


def test_the_gradient_of_trials_is_the_mean_over_their_steps() -> None:
    policy, shared, batch = problem("different lengths")
    both, _, count = loss_gradient(policy, shared, batch, torch.tensor([1, 2]), WEIGHTS, None)
    parts = [loss_gradient(policy, shared, batch, torch.tensor([trial]), WEIGHTS, None) for trial in (1, 2)]
    for name, value in both.items():
        expected = sum(part[0][name] * part[2] for part in parts) / count
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_other_units_leave_the_values_as_they_are() -> None:
    head = new_value_head(4, 3, 1)
    generator = torch.Generator().manual_seed(0)
    memory, tasks = torch.randn(50, 4, generator=generator), torch.randn(50, 3, generator=generator)
    units = {CENTRE: torch.tensor(0.5), SCALE: torch.tensor(2.0)}
    before = units[CENTRE] + units[SCALE] * standard_values(head, memory, tasks)
    returns = 100.0 + 30.0 * torch.randn(1000, generator=generator)
    moved, after = rescaled(head, units, returns, 1.0)
    assert float(after[CENTRE]) == pytest.approx(float(returns.mean()), rel=1e-5)
    assert float(after[SCALE]) == pytest.approx(float(returns.std(correction=0)), rel=1e-4)
    np.testing.assert_allclose(after[CENTRE] + after[SCALE] * standard_values(moved, memory, tasks), before, atol=1e-3)
    constant, same = rescaled(head, units, torch.full((9,), 5.0), 1.0)
    assert torch.isfinite(standard_values(constant, memory, tasks)).all()
    assert float(same[SCALE]) > 0.0
