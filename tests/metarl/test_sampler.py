"""The sampler: tasks reach the environments, rollouts are what was played, grouping changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from samples import observed
from small import NAVIGATION, SHORT, SIGN, copied, same, small
from stable_baselines3.common.evaluation import evaluate_policy

from metarl import MAML, as_task, make, sample_tasks, seeding
from metarl.agents import Rollouts, Samples
from metarl.envs import RolloutError
from metarl.envs import tasks as task_tools
from metarl.sampler import Sampler
from metarl.state import State

# What a policy is for is said where it is tested (sb3/test_own_actions.py).
pytestmark = pytest.mark.filterwarnings("ignore:this policy acts in:UserWarning")


def collect(tasks: Any, numbers: range, episodes: int = 2, model: MAML | None = None) -> Rollouts:
    model = model or small()
    sampler = Sampler(model.settings.family, model.settings.family_kwargs)
    streams = seeding.streams(5, seeding.TRAINING, 1, 0, tasks=numbers)
    return sampler.collect(model.functional_policy, model.parameters, model.normalizer, tasks, episodes, streams)


def test_rewards_are_those_of_each_tasks_goal() -> None:
    tasks = sample_tasks(NAVIGATION, 4, seed=3)
    rollouts = collect(tasks, range(4))
    for task in range(4):
        positions = rollouts.observations[task, :, 1:].double().numpy()
        expected = -np.linalg.norm(positions - tasks[task].astype(np.float64), axis=-1)
        np.testing.assert_allclose(rollouts.rewards[task], expected, atol=1e-6)
    assert (rollouts.truncated[:, :, -1]).all()
    assert not rollouts.terminated.any()
    assert rollouts.steps() == 4 * 2 * 8


def test_grouping_changes_no_bit() -> None:
    tasks = sample_tasks(NAVIGATION, 4, seed=3)
    together = collect(tasks, range(4))
    alone = collect(tasks[2:3], range(2, 3))
    assert torch.equal(together.observations[2:3], alone.observations)
    assert torch.equal(together.log_probs[2:3], alone.log_probs)


def test_log_probabilities_are_those_of_the_policy_that_acted() -> None:
    model = small()
    rollouts = collect(sample_tasks(NAVIGATION, 2), range(2), model=model)
    seen = observed(rollouts.observations[:, :, :-1].flatten(0, 2))
    distribution = model.functional_policy.distribution(model.parameters, seen)
    torch.testing.assert_close(
        distribution.log_prob(rollouts.actions.flatten(0, 2)), rollouts.log_probs.flatten(), atol=1e-5, rtol=1e-5
    )


def test_a_goal_that_is_reached_ends_the_episode() -> None:
    model = small(family_kwargs={}, policy_kwargs={"output_gain": 1e-6, "log_std_init": -20.0, "log_std_min": -20.0})
    tasks = np.array([[0.0, 0.0], [0.4, 0.4]], dtype=np.float32)
    rollouts = collect(tasks, range(2), model=model)
    assert rollouts.terminated[0, :, 0].all()
    assert rollouts.mask[0].sum() == 2
    assert (rollouts.rewards[0, :, 1:] == 0).all()
    assert rollouts.mask[1].sum() == 200


@pytest.mark.parametrize("actions", ["box", "discrete", "multi", "matrix", "number"])
@pytest.mark.parametrize("observations", ["box", "discrete", "image", "image channels last", "dict"])
def test_every_kind_of_space_passes_through_a_meta_iteration(actions: str, observations: str) -> None:
    policy = {"box": "MlpPolicy", "discrete": "MlpPolicy", "dict": "MultiInputPolicy"}.get(observations, "CnnPolicy")
    kinds = {"actions": actions, "observations": observations}
    model = small(policy=policy, family=SIGN, family_kwargs=kinds, learning={"tasks": 2, "episodes": 3})
    before = copied(model.parameters)
    tried = collect(np.ones((2, 1), np.float32), range(2), model=model)
    samples = model.samples(model.state, tried)
    for task in range(2):
        one = samples.task(task)
        again = model.functional_policy.distribution(model.parameters, one).log_prob(one.actions)
        torch.testing.assert_close(again, one.log_probs, atol=1e-4, rtol=1e-4)
    model.learn(iterations=2)
    assert not same(before, model.parameters)
    assert model.num_timesteps == 2 * 2 * 2 * 3 * 3
    rollouts = collect(np.ones((2, 1), np.float32), range(2), model=model)
    types = {"box": torch.float32, "discrete": torch.int64}
    if observations == "dict":
        assert isinstance(rollouts.observations, dict)
        found = {key: (part.dtype, tuple(part.shape)) for key, part in rollouts.observations.items()}
        assert found == {
            "count": (torch.int64, (2, 2, 4)),
            "image": (torch.uint8, (2, 2, 4, 3, 36, 40)),
            "vector": (torch.float32, (2, 2, 4, 2)),
        }
    else:
        assert isinstance(rollouts.observations, torch.Tensor)
        assert rollouts.observations.dtype == types.get(observations, torch.uint8)
    # What comes out goes on in stable-baselines3, on the environment as it is.
    adapted = model.adapt([0.5], episodes=2)
    env = make(SIGN, task=[0.5], **kinds)
    assert len(evaluate_policy(adapted, env, n_eval_episodes=2, return_episode_rewards=True, warn=False)[0]) == 2


def test_actions_outside_the_box_never_reach_the_environment() -> None:
    # The environment refuses them, and unit noise on a box of [-1, 1] leaves it in one of three samples.
    model = small(family=SIGN, family_kwargs={"actions": "standard box"})
    rollouts = collect(np.ones((2, 1), np.float32), range(2), episodes=6, model=model)
    assert rollouts.actions.abs().max() > 1.0
    torch.testing.assert_close(rollouts.rewards, rollouts.actions.clamp(-1.0, 1.0)[..., 0])
    model.learn(iterations=1)


def test_what_a_policy_cannot_take_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="use a space whose values start at 0"):
        small(family="toy_families:toy/CountsFromOne-v0")
    with pytest.raises(ValueError, match="use MultiDiscrete for whole numbers"):
        small(family=SIGN, family_kwargs={"actions": "whole numbers"})


def test_a_familys_own_check_of_tasks_is_asked() -> None:
    env = make("toy_families:toy/Refuses-v0")
    assert as_task(env, [-0.4]) == pytest.approx(-0.4)
    with pytest.raises(ValueError, match=r"give one of at least -0\.5"):
        as_task(env, [-0.6])


def test_only_the_latest_environments_are_kept() -> None:
    sampler = Sampler(NAVIGATION, SHORT)
    first, second = sampler.vector(3), sampler.vector(4)
    assert sampler.vector(3) is first
    sampler.vector(5)
    assert sampler.vector(3) is first
    assert sampler.vector(4) is not second


def test_episodes_of_different_lengths_pass_through() -> None:
    model = small(family="toy_families:toy/LengthsDiffer-v0", learning={"episodes": 8}).learn(iterations=2)
    rollouts = collect(np.ones((2, 1), np.float32), range(2), episodes=12, model=model)
    lengths = rollouts.mask.sum(dim=2)
    assert lengths.min() < lengths.max()
    ends = rollouts.terminated.sum(dim=2) + rollouts.truncated.sum(dim=2)
    assert (ends == 1).all()
    assert (rollouts.terminated.any(dim=2) == (lengths % 2 == 0)).all()
    assert all(torch.isfinite(value).all() for value in model.parameters.values())


def test_wrappers_around_a_family_work() -> None:
    model = small(family="toy_families:toy/Wrapped-v0", learning={"tasks": 2, "episodes": 3}).learn(iterations=1)
    assert model.observation_space.shape == (3, 2)
    assert model.num_timesteps == 2 * 2 * 3 * 2
    env = RecordEpisodeStatistics(TimeLimit(make("toy_families:toy/Wrapped-v0", task=[0.5]), max_episode_steps=1))
    adapter = model.adapter(env, episodes=2)
    assert adapter.play() == pytest.approx(env.return_queue[-1])


def test_numbers_that_are_not_finite_are_named() -> None:
    model = small(family="toy_families:toy/NanReward-v0", learning={"check": False})
    with pytest.raises(
        RolloutError,
        match=r"iteration 1: .*NanReward-v0, task \[.*\], sub-environment 0 gave the reward nan, at step 0",
    ):
        model.learn(iterations=1)


def test_an_error_of_an_environment_is_named_and_leaves_the_parameters() -> None:
    model = small(family="toy_families:toy/Raises-v0")
    before = copied(model.parameters)
    with pytest.raises(
        RolloutError, match=r"iteration 1: .*task \[-?\d.*\], sub-environment 0 raised OSError: broken, at step 1"
    ):
        model.learn(iterations=1)
    assert same(before, model.parameters)


def test_parameters_that_leave_the_finite_numbers_are_named() -> None:
    model = small()
    parameters = {**model.parameters, "action_net.bias": torch.full((2,), torch.nan)}
    model.state = replace(model.state, parameters=parameters)
    with pytest.raises(RolloutError, match=r"iteration 1: .*task .* got the action \[nan nan\], at step 0"):
        model.learn(iterations=1)


class InfiniteAfterAdaptation(MAML):
    """Finds the second task's advantages infinite in the rollouts after adaptation."""

    def samples(self, state: State, rollouts: Rollouts) -> Samples:
        samples = super().samples(state, rollouts)
        advantages = samples.advantages.clone()
        advantages[1] = float("inf")
        return replace(samples, advantages=advantages)

    def inner_samples(self, state: State, rollouts: Rollouts) -> Samples:
        return super().samples(state, rollouts)


@pytest.mark.parametrize("update", ["trpo", "ppo"])
def test_a_meta_gradient_that_is_not_finite_names_iteration_and_task(update: str) -> None:
    model = small(InfiniteAfterAdaptation, learning={"tasks": 2, "episodes": 2}, outer={"update": update})
    before = copied(model.parameters)
    tasks = task_tools.draw_tasks(make(NAVIGATION), 2, task_tools.task_rng(1, "train", 1), "train")
    with pytest.raises(FloatingPointError, match=r"iteration 1: the meta-gradient of task .* is not finite;") as caught:
        model.learn(iterations=1)
    assert f"of task {task_tools.plain(tasks[1])} is not finite" in str(caught.value)
    assert same(before, model.parameters)


def test_tasks_of_iterations_differ_and_those_of_splits_too() -> None:
    env = make(NAVIGATION)
    drawn = [task_tools.draw_tasks(env, 3, task_tools.task_rng(1, "train", i), "train") for i in (1, 2)]
    held_out = [task_tools.draw_tasks(env, 3, task_tools.task_rng(1, split), split) for split in task_tools.SPLITS]
    batches = [*drawn, *held_out]
    for i, one in enumerate(batches):
        for other in batches[i + 1 :]:
            assert not np.array_equal(one, other)
