"""Tabular MDPs: transitions and rewards as the task says, and the optimum by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import metarl
from metarl.envs.families.mdp import best_return

FAMILY = "metarl/TabularMDP-v0"


def chain(**rewards: float) -> dict[str, Any]:
    """Return a task in which action 0 goes to the next state and the others to state 0; rewards by ``s<i>a<j>``."""
    transitions = np.zeros((10, 5, 10), dtype=np.float32)
    for state in range(10):
        transitions[state, 0, (state + 1) % 10] = 1.0
        transitions[state, 1:, 0] = 1.0
    means = np.zeros((10, 5), dtype=np.float32)
    for name, value in rewards.items():
        means[int(name[1]), int(name[3])] = value
    return {"transitions": transitions, "rewards": means}


def test_tasks_follow_their_distributions() -> None:
    tasks = metarl.sample_tasks(FAMILY, 200)
    assert tasks["transitions"].shape == (200, 10, 5, 10)
    np.testing.assert_allclose(tasks["transitions"].sum(axis=-1), 1.0, atol=1e-5)
    # Dirichlet(1, ..., 1) over ten: mean 0.1, variance 0.09 / 11.
    assert tasks["transitions"].var() == pytest.approx(0.09 / 11, rel=0.05)
    assert tasks["rewards"].mean() == pytest.approx(1.0, abs=0.03)
    assert tasks["rewards"].std() == pytest.approx(1.0, abs=0.03)


def test_states_follow_the_transitions_and_are_one_hot() -> None:
    env = metarl.make(FAMILY, task=chain())
    observation, _ = env.reset()
    states = [observation]
    for action in [0, 0, 0, 3, 0, 0, 1, 0, 0, 0]:
        observation, _, terminated, truncated, _ = env.step(action)
        states.append(observation)
    assert (terminated, truncated) == (False, True)
    assert [int(state.argmax()) for state in states] == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3]
    assert all(state.sum() == 1.0 and state.max() == 1.0 for state in states)


def test_transitions_are_drawn_with_their_probabilities() -> None:
    task = chain()
    chances = np.array([0.4, 0.0, 0.1, 0.0, 0.05, 0.0, 0.25, 0.0, 0.0, 0.2], np.float32)
    task["transitions"][0, 2] = chances
    vector = metarl.make_vec(FAMILY, 20_000)
    vector.reset(seed=0, options={"tasks": {key: np.stack([part] * 20_000) for key, part in task.items()}})
    observations, *_ = vector.step(np.full(20_000, 2))
    counts = observations.mean(axis=0)
    np.testing.assert_allclose(counts, chances, atol=0.015)
    assert (counts[chances == 0.0] == 0.0).all()


def test_rewards_have_the_mean_of_state_and_action_and_unit_noise() -> None:
    vector = metarl.make_vec(FAMILY, 5000, max_episode_steps=25)
    task = chain(s0a0=-3.0, s1a0=5.0)
    vector.reset(seed=0, options={"tasks": {key: np.stack([part] * 5000) for key, part in task.items()}})
    rewards = np.stack([vector.step(np.zeros(5000, dtype=int))[1] for _ in range(25)])
    expected = np.zeros(25)
    expected[[0, 10, 20]] = -3.0
    expected[[1, 11, 21]] = 5.0
    np.testing.assert_allclose(rewards.mean(axis=1), expected, atol=0.06)
    np.testing.assert_allclose(rewards.std(axis=1), 1.0, atol=0.05)
    # The noise of later steps, drawn on the way, is as independent as that of the first ones.
    assert (rewards - expected[:, None]).sum(axis=0).var() == pytest.approx(25.0, rel=0.1)


def test_the_optimum_counts_what_the_horizon_still_allows() -> None:
    task = chain(s0a1=1.0, s2a0=2.5)
    oracle = {steps: metarl.make(FAMILY, max_episode_steps=steps) for steps in (1, 2, 3, 6, 10)}
    best = {steps: env.get_wrapper_attr("oracle_return")(task) for steps, env in oracle.items()}
    # Staying in state 0 pays 1 a step. Walking to state 2 and on pays 2.5 for three steps; going back costs one more.
    assert best == {1: 1.0, 2: 2.0, 3: 3.0, 6: 6.0, 10: 10.0}
    rich = chain(s0a1=1.0, s2a0=7.5)
    values = [metarl.make(FAMILY, max_episode_steps=n).get_wrapper_attr("oracle_return")(rich) for n in (1, 2, 3, 4, 7)]
    # Three steps to be paid 7.5; with seven: 7.5, back to 0 by one, and 7.5 again.
    assert values == [1.0, 2.0, 7.5, 8.5, 15.0]


def test_the_optimum_averages_over_chances() -> None:
    means = np.array([[0.0, 0.5], [1.0, 0.0]])
    transitions = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    # One step: 0.5. Two: gamble for max(0.5, 1) on average 0.75, or take 0.5 and 0.5 again.
    assert best_return(transitions, means, 1) == 0.5
    assert best_return(transitions, means, 2) == 1.0
    # Three: gamble: (1 + 2) / 2 = 1.5; take: 0.5 + 1.0 = 1.5. Four: gamble: (1.5 + 3) / 2 = 2.25.
    assert best_return(transitions, means, 3) == 1.5
    assert best_return(transitions, means, 4) == 2.25


def test_transitions_that_are_no_probabilities_are_refused() -> None:
    task = chain()
    task["transitions"][3, 1] *= 0.5
    message = "state 3 and action 1 sum up to 0.5; expected 1"
    with pytest.raises(ValueError, match=message):
        metarl.make(FAMILY, task=task)
    with pytest.raises(ValueError, match=message):
        metarl.make(FAMILY).reset(options={"task": task})
    batch = {key: np.stack([part] * 2) for key, part in task.items()}
    with pytest.raises(ValueError, match=message):
        metarl.make_vec(FAMILY, 2).reset(options={"tasks": batch})


def test_without_a_time_limit_there_is_no_optimum() -> None:
    from metarl.envs.families.mdp import TabularMDPVectorEnv

    with pytest.raises(ValueError, match="no time limit"):
        TabularMDPVectorEnv(2, max_episode_steps=None).oracle_return(chain())
