"""Playing trials: in the same layout and with the same numbers as one environment after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small import LENGTHS_DIFFER, SIGN, remembering, small, trials_of

import metarl
from metarl import seeding
from metarl.agents import Rollouts
from metarl.envs import RolloutError
from metarl.envs import tasks as task_tools
from metarl.memory import playing

FAMILIES: dict[str, dict[str, Any]] = {
    "batched": {"family": "metarl/Navigation2D-v0", "family_kwargs": {"max_episode_steps": 4}},
    "random numbers": {"family": "metarl/TabularMDP-v0"},
    "single": {"family": LENGTHS_DIFFER, "family_kwargs": {"noise": 1.0}},
    "images": {"family": LENGTHS_DIFFER, "family_kwargs": {"observations": "image channels last"}},
    "dicts": {"family": SIGN, "family_kwargs": {"observations": "dict"}},
}


def parts(rollouts: Rollouts) -> dict[str, Any]:
    found = {name: getattr(rollouts, name) for name in ("rewards", "mask", "terminated", "truncated", "actions")}
    observations = rollouts.observations
    return {**found, **(observations if isinstance(observations, dict) else {"observations": observations})}


@pytest.mark.parametrize("name", FAMILIES)
def test_trials_are_what_single_environments_give_for_their_actions(name: str) -> None:
    """Each trial is played again in an environment of its own, with its seeds and actions."""
    model = remembering(**FAMILIES[name])
    tasks, rollouts = trials_of(model, episodes=3)
    space = metarl.make(model.settings.family, **model.settings.family_kwargs)
    batched = name in ("batched", "random numbers")
    for trial in range(4):
        env = metarl.make(
            model.settings.family, task=task_tools.take_tasks(tasks, trial), **model.settings.family_kwargs
        )
        stream = seeding.Stream(model.settings.seed, (seeding.TRAINING, 1, 0, trial))
        seeds = [seed if batched else seeding.foreign_seed(seed) for seed in stream.environment_seeds(3)]
        for episode in range(3):
            observation, _ = env.reset(seed=seeds[episode])
            length = int(rollouts.mask[trial, episode].sum())
            assert length > 0
            for step in range(length):
                assert_observed(rollouts, (trial, episode, step), observation)
                action = rollouts.actions[trial, episode, step].numpy()
                if not batched and hasattr(space.action_space, "low"):
                    action = np.clip(action, -1.0, 1.0)
                observation, reward, terminated, truncated, _ = env.step(action)
                assert float(rollouts.rewards[trial, episode, step]) == pytest.approx(reward, rel=1e-5, abs=1e-5)
                assert bool(rollouts.terminated[trial, episode, step]) == terminated
                assert bool(rollouts.truncated[trial, episode, step]) == truncated
            assert terminated or truncated
            assert_observed(rollouts, (trial, episode, length), observation)
            assert_observed(rollouts, (trial, episode, -1), observation)  # the last one repeats
            assert not rollouts.rewards[trial, episode, length:].any()
            assert not rollouts.actions[trial, episode, length:].any()


def assert_observed(rollouts: Rollouts, place: tuple[int, int, int], observation: Any) -> None:
    if isinstance(observation, dict):
        assert isinstance(rollouts.observations, dict)
        for key, part in observation.items():
            found = rollouts.observations[key][place]
            given = np.moveaxis(part, -1, 0) if np.ndim(part) == 3 else part
            np.testing.assert_allclose(found, given, rtol=1e-5, atol=1e-6)
        return
    given = np.moveaxis(observation, -1, 0) if np.ndim(observation) == 3 else observation
    np.testing.assert_allclose(rollouts.observations[place], given, rtol=1e-5, atol=1e-6)


def test_several_trials_of_a_task_lie_side_by_side() -> None:
    model = remembering()
    _, rollouts = trials_of(model, episodes=2, trials=3)
    assert rollouts.mask.shape[:2] == (18, 2)
    first, second = playing.by_episode(rollouts, 6)
    assert first.mask.shape[:2] == second.mask.shape[:2] == (6, 3)
    assert torch.equal(second.rewards[4, 1], rollouts.rewards[13, 1])
    # The noise differs from trial to trial of a task.
    assert not torch.equal(first.actions[0, 0], first.actions[0, 1])


def test_more_episodes_leave_the_earlier_ones_as_they_are() -> None:
    model = remembering(family=LENGTHS_DIFFER)
    (_, short), (_, long) = trials_of(model, episodes=2), trials_of(model, episodes=4)
    length = short.mask.shape[2]
    for name, part in parts(short).items():
        assert torch.equal(part, parts(long)[name][:, :2, : part.shape[2]]), name
    assert long.mask[:, :, length:].shape[2] >= 0


def test_several_processes_give_the_same_trials() -> None:
    one, several = (remembering(family=LENGTHS_DIFFER, learning={"workers": count}) for count in (1, 2))
    try:
        (_, first), (_, second) = trials_of(one), trials_of(several)
        for name, part in parts(first).items():
            assert torch.equal(part, parts(second)[name]), name
    finally:
        several.close()


def test_success_is_kept_by_episode() -> None:
    model = remembering(family="toy_families:toy/TellsOfSuccess-v0")
    evaluation = model.evaluate(tasks=np.array([[0.5], [-0.5]], np.float32), episodes=2, steps=2)
    assert evaluation.statistics["success"].tolist() == [[1.0, 0.0]] * 3


@pytest.mark.parametrize(
    ("family", "sentence"),
    [
        ("toy_families:toy/NanReward-v0", r"NanReward-v0, task .*gave the reward nan, at step \d+ of the trial"),
        ("toy_families:toy/Raises-v0", r"Raises-v0, task .*raised \w+: .*, at step \d+ of the trial"),
    ],
)
def test_a_failure_names_the_task_and_the_step(family: str, sentence: str) -> None:
    with pytest.raises(RolloutError, match=sentence):
        remembering(family=family, learning={"check": False}).learn(iterations=3)


def test_trials_that_do_not_fit_into_memory_are_refused_before_they_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    model = remembering(learning={"trial_episodes": 50})
    monkeypatch.setattr("metarl.memory.learner.free_bytes", lambda: 100_000)
    sentence = (
        r"6 trials of 50 episodes, up to 400 steps each, need [\d,]+ bytes of memory, and 50,000 may be used; play"
    )
    with pytest.raises(ValueError, match=sentence + ".*learning.trial_episodes, outer.trials"):
        model.learn(iterations=1)
    assert playing.free_bytes() > 2**20
    bandit = remembering(family="metarl/BernoulliBandit-v0", learning={"trial_episodes": 50})
    with pytest.raises(ValueError, match="6 trials of 50 episodes, 32 steps each so far"):  # it has no limit, so later
        bandit.learn(iterations=1)


def test_gradients_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = remembering(learning={"trial_episodes": 50})
    monkeypatch.setattr("metarl.learners.rl2.free_bytes", lambda device: 500_000)
    sentence = (
        r"the gradient through 4 trials of up to 400 steps needs about [\d,]+ bytes of memory and 500,000 are free"
    )
    with pytest.raises(ValueError, match=sentence + "; set outer.chunk to a number of steps"):
        model.learn(iterations=1)
    assert model.sampler.seconds == 0.0  # nothing was played
    assert remembering(learning={"trial_episodes": 50}, outer={"chunk": 20}).learn(iterations=1).iteration == 1
    endless = remembering(family="metarl/BernoulliBandit-v0", learning={"trial_episodes": 50})
    with pytest.raises(ValueError, match="the gradient through 4 trials of up to 500 steps"):  # seen when played
        endless.learn(iterations=1)


def test_a_learner_without_memory_plays_as_before() -> None:
    model = small("maml").learn(iterations=1)
    assert model.num_timesteps > 0
