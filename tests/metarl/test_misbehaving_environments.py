"""Environments that end the program, give huge rewards, or cannot be closed."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from small import small

import metarl
from metarl.envs import RolloutError, make_in_processes

WORKERS = pytest.mark.parametrize("workers", [1, 2])


@WORKERS
@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize(("what", "named"), [("exit", "SystemExit"), ("unheard", "Unheard"), ("error", "RuntimeError")])
def test_what_ends_a_program_is_a_failure_of_the_environment(workers: int, where: str, what: str, named: str) -> None:
    model = small(
        family="toy_faults:Leaves", family_kwargs={"where": where, "what": what}, learning={"workers": workers}
    )
    with pytest.raises(RolloutError, match=rf"toy_faults:Leaves, task \[.*\], sub-environment \d raised {named}"):
        model.learn(iterations=1)
    model.close()


def test_ctrl_c_is_no_failure_here_but_one_where_it_cannot_come_from_a_person() -> None:
    kwargs = {"where": "step", "what": "interrupt"}
    with pytest.raises(KeyboardInterrupt):
        small(family="toy_faults:Leaves", family_kwargs=kwargs, learning={"workers": 1}).learn(iterations=1)
    learning = {"workers": 2, "check": False}  # the check plays in this process
    apart = small(family="toy_faults:Leaves", family_kwargs=kwargs, learning=learning)
    with pytest.raises(RolloutError, match="raised KeyboardInterrupt"):
        apart.learn(iterations=1)


@pytest.mark.parametrize("what", ["exit", "unheard", "error"])
def test_a_constructor_that_raises_is_named(what: str) -> None:
    with pytest.raises(
        ValueError, match=r"family toy_faults:Leaves cannot be made: (SystemExit: 3|Unheard|RuntimeError)"
    ):
        metarl.make("toy_faults:Leaves", where="init", what=what)


def test_a_close_that_raises_loses_nothing() -> None:
    for kwargs in ({"what": "error"}, {"what": "exit"}):
        vector = metarl.make_vec("toy_faults:Leaves", 1, where="close", **kwargs)
        vector.reset(seed=1)
        with pytest.warns(UserWarning, match=r"toy_faults:Leaves raised \w+ in close"):
            vector.close()
    with pytest.warns(UserWarning, match="in close"):  # the one that is made to read its spaces
        apart = make_in_processes("toy_faults:Leaves", 2, workers=2, step_timeout=30.0, where="close")
    apart.reset(seed=1)
    apart.close()


@WORKERS
@pytest.mark.parametrize("reward", [1e13, -1e30, 1e300])
def test_huge_rewards_are_named(workers: int, reward: float) -> None:
    model = small(
        family="toy_faults:Huge", family_kwargs={"reward": reward}, learning={"workers": workers, "check": False}
    )
    with pytest.raises(
        RolloutError, match=r"toy_faults:Huge, task .* sub-environment 0 gave the reward -?1e\+\d+, at step 0"
    ):
        model.learn(iterations=1)


def test_large_rewards_that_fit_are_learned_from() -> None:
    model = small(family="toy_faults:Huge", family_kwargs={"reward": 1e11}, learning={"check": False})
    model.learn(iterations=2)
    assert all(np.isfinite(value.numpy()).all() for value in model.parameters.values())
    assert np.isfinite(model.evaluate().returns).all()


def test_huge_rewards_are_named_in_a_loop_of_ones_own() -> None:
    model = small(family="toy_families:toy/Sign-v0")
    adapter = model.adapter(metarl.make("toy_families:toy/Sign-v0", task=[1.0]))
    adapter.start(gymnasium.make("toy_families:toy/Sign-v0").reset()[0])
    with pytest.raises(RolloutError, match=r"gave the reward 1e\+30"):
        adapter.observe(np.zeros(1, np.float32), 1e30, terminated=False, truncated=False)
