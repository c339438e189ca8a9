"""Trials as sequences: what a policy is told, how they are packed, and advantages over whole trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents import Rollouts
from metarl.agents.trials import encode_actions, pack, trial_advantages, trial_steps

# Two trials of two episodes: of 2 and 3 steps, and of 1 and 1; the second episode of the first is truncated.
LENGTHS = [[2, 3], [1, 1]]
CHOICES = spaces.Discrete(3)


def rollouts() -> Rollouts:
    mask = torch.zeros(2, 2, 3)
    terminated, truncated = (torch.zeros(2, 2, 3, dtype=torch.bool) for _ in range(2))
    for trial, lengths in enumerate(LENGTHS):
        for episode, length in enumerate(lengths):
            mask[trial, episode, :length] = 1.0
            terminated[trial, episode, length - 1] = True
    terminated[0, 1, 2], truncated[0, 1, 2] = False, True
    numbers = torch.arange(12.0).reshape(2, 2, 3)
    return Rollouts(
        observations=torch.arange(16.0).reshape(2, 2, 4, 1),
        actions=torch.tensor([[[0, 1, 0], [2, 1, 0]], [[1, 0, 0], [2, 0, 0]]]),
        log_probs=-numbers,
        rewards=(numbers + 1.0) * mask,
        mask=mask,
        terminated=terminated,
        truncated=truncated,
    )


def test_a_policy_is_told_the_last_action_reward_and_end() -> None:
    steps = trial_steps(CHOICES, rollouts(), rollouts().rewards)
    assert steps.lengths.tolist() == [5, 2]
    assert steps.starts.tolist() == [0, 5]
    assert steps.observations.flatten().tolist() == [0, 1, 4, 5, 6, 8, 12]
    assert steps.actions.tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert steps.told.tolist() == [
        [0, 0, 0, 0, 0],  # a trial begins with nothing
        [1, 0, 0, 1, 0],
        [0, 1, 0, 2, 1],  # the first step of the second episode
        [0, 0, 1, 4, 0],
        [0, 1, 0, 5, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 0, 7, 1],
    ]
    assert steps.cut.places.tolist() == [[0, 1]]
    assert steps.cut.rows.tolist() == [4]
    assert steps.cut.observations.tolist() == [[7]]
    assert steps.cut.told.tolist() == [[1, 0, 0, 6, 0]]  # for its value the episode has not ended


def test_actions_as_vectors() -> None:
    box = spaces.Box(np.array([-1.0, -np.inf], np.float32), np.array([1.0, 0.5], np.float32))
    assert encode_actions(box, np.array([[-3.0, -3.0], [0.25, 3.0]])).tolist() == [[-1.0, -3.0], [0.25, 0.5]]
    several = spaces.MultiDiscrete([2, 3])
    assert encode_actions(several, np.array([[1, 2], [0, 0]])).tolist() == [[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]
    assert encode_actions(CHOICES, np.array([2])).tolist() == [[0, 0, 1]]


def test_trials_are_packed_without_padding() -> None:
    steps = trial_steps(CHOICES, rollouts(), rollouts().rewards)
    packing = pack(steps, torch.tensor([1, 0]))
    assert packing.rows.tolist() == [0, 5, 1, 6, 2, 3, 4]
    assert packing.sizes.tolist() == [2, 2, 1, 1, 1]
    parts = packing.chunks(3)
    assert [part.rows.tolist() for part in parts] == [[0, 5, 1, 6, 2], [3, 4]]
    assert [part.sizes.tolist() for part in parts] == [[2, 2, 1], [1, 1]]


def by_hand(rewards: list[float], values: list[float], beyond: float, gamma: float, decay: float) -> list[float]:
    """Advantages of one sequence whose last step is followed by the value ``beyond``."""
    found, following = [], 0.0
    for step in reversed(range(len(rewards))):
        after = values[step + 1] if step + 1 < len(values) else beyond
        following = rewards[step] + gamma * after - values[step] + gamma * decay * following
        found.append(following)
    return found[::-1]


@pytest.mark.parametrize("across", [True, False])
def test_advantages_of_trials_are_those_of_their_sequences(across: bool) -> None:
    """Across episodes a trial is one sequence; otherwise each episode is, and a truncated one is bootstrapped."""
    given = rollouts()
    values = torch.tensor([0.5, -1.0, 2.0, 0.25, 1.0, 3.0, -2.0])
    beyond = torch.tensor([[0.0, 10.0], [0.0, 0.0]])
    found = trial_advantages(given, given.rewards, values, beyond, gamma=0.9, gae_lambda=0.8, across=across)
    rewards, v = given.rewards[given.mask.bool()].tolist(), values.tolist()
    sequences = [(0, 5, 10.0), (5, 7, 0.0)] if across else [(0, 2, 0.0), (2, 5, 10.0), (5, 6, 0.0), (6, 7, 0.0)]
    expected = [
        advantage
        for low, high, end in sequences
        for advantage in by_hand(rewards[low:high], v[low:high], end, 0.9, 0.8)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_episode_that_was_cut_within_a_trial_is_followed_by_the_next_one() -> None:
    given = rollouts()
    cut = given.terminated.clone(), given.truncated.clone()
    cut[0][0, 0, 1], cut[1][0, 0, 1] = False, True
    values, none = torch.arange(7.0), torch.zeros(2, 2)

    def advantages(some: Rollouts, beyond: Tensor, across: bool) -> list[float]:
        return trial_advantages(some, some.rewards, values, beyond, gamma=0.9, gae_lambda=0.8, across=across).tolist()

    other = replace(given, terminated=cut[0], truncated=cut[1])
    beyond = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
    assert advantages(other, beyond, True) == advantages(given, none, True)
    assert advantages(other, beyond, False)[1] == pytest.approx(advantages(given, none, False)[1] + 90.0)
