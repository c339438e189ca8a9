"""Other views of training episodes: what policies see and rollouts keep, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from gymnasium import spaces

import metarl
from metarl import seeding
from metarl.augmenting.episodes import action_map, reward_factor, shifted
from metarl.augmenting.settings import Augmenting
from metarl.envs import tasks as task_tools

ALL = {"observation_noise": 0.1, "remap_actions": 0.7, "scale_rewards": 1.0, "flip_rewards": 0.5}
CHEETAH = "metarl/HalfCheetahDir-v0"


def test_a_shifted_image_repeats_its_edge_and_all_channels_move_together() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    down_left = shifted(image, np.array([[1, -1]]), channels_first=False)
    assert down_left[0, :, :, 0].tolist() == [[3, 3, 4], [3, 3, 4]]
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 9, 3), np.uint8)
    offsets = np.random.default_rng(1).integers(-2, 3, (5, 2))
    last = shifted(images, offsets, channels_first=False)
    first = shifted(np.moveaxis(images, -1, 1), offsets, channels_first=True)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)
    np.testing.assert_array_equal(shifted(images, 0 * offsets, channels_first=False), images)


def test_actions_of_a_task_are_permuted_or_have_other_signs() -> None:
    choices = action_map(spaces.Discrete(4), 1.0, np.random.default_rng(1))(np.arange(4))
    assert sorted(choices.tolist()) == [0, 1, 2, 3] != choices.tolist()
    several = np.array([[0, 0], [1, 1], [1, 2]])
    meant = action_map(spaces.MultiDiscrete([2, 3]), 1.0, np.random.default_rng(4))(several)
    assert len({tuple(row) for row in meant.tolist()}) == 3
    assert (meant < [2, 3]).all()
    assert (meant != several).any()
    box = spaces.Box(-2.0, 2.0, (8,), np.float32)
    actions = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    turned = action_map(box, 1.0, np.random.default_rng(2))(actions)
    assert turned.dtype == np.float32
    np.testing.assert_array_equal(np.abs(turned), np.abs(actions))
    assert np.unique((turned / actions).round(), axis=0).shape[0] == 1
    np.testing.assert_array_equal(action_map(box, 0.0, np.random.default_rng(2))(actions), actions)


def test_factors_of_rewards_are_within_their_limits() -> None:
    augment = Augmenting(scale_rewards=1.0, flip_rewards=0.25)
    factors = np.array([reward_factor(augment, np.random.default_rng(seed)) for seed in range(400)])
    assert np.abs(factors).min() > 0.5
    assert np.abs(factors).max() < 2.0
    assert (factors < 0).mean() == pytest.approx(0.25, abs=0.06)
    assert reward_factor(Augmenting(), np.random.default_rng(0)) == 1.0


def both(**augment: Any) -> tuple[Any, Any, Any]:
    """Return tasks, and what is played of them without and with augmentation."""
    plain, model = small.small(), small.small(augment=augment)
    tasks = plain.training_tasks(1)
    return tasks, small.played(plain, tasks), small.played(model, tasks)


def test_rollouts_keep_what_was_seen_and_the_rewards_are_of_where_the_point_is() -> None:
    tasks, _, noisy = both(observation_noise=0.02)
    path = 0.1 * noisy.actions.clamp(-1.0, 1.0).cumsum(dim=2)
    goals = torch.from_numpy(tasks)[:, None, None]
    running = noisy.mask.bool()
    torch.testing.assert_close(noisy.rewards[running], -(goals - path).norm(dim=-1)[running], atol=1e-5, rtol=0.0)
    errors = (noisy.observations[:, :, 1:] - path)[running]
    assert 0.015 < float(errors.std()) < 0.025
    assert abs(float(errors.mean())) < 0.005


def test_remapped_actions_reach_the_environment_and_rollouts_keep_the_policys_own() -> None:
    tasks, _, turned = both(remap_actions=1.0)
    moves = turned.observations[:, :, 1:] - turned.observations[:, :, :-1]
    chosen = 0.1 * turned.actions.clamp(-1.0, 1.0)
    running = turned.mask.bool()
    torch.testing.assert_close(moves.abs()[running], chosen.abs()[running], atol=1e-5, rtol=0.0)
    signs = (moves * chosen).sign().sum(dim=(1, 2)).sign()  # of each task and coordinate
    assert {-1.0, 1.0} == set(signs.flatten().tolist())
    later = small.played(small.small(augment={"remap_actions": 1.0}), tasks, step=1)
    again = later.observations[:, :, 1:] - later.observations[:, :, :-1]
    assert torch.equal((again * later.actions).sign().sum(dim=(1, 2)).sign(), signs), "another after an inner step"


def test_rewards_are_multiplied_by_one_factor_for_each_task() -> None:
    _, plain, scaled = both(scale_rewards=2.0, flip_rewards=0.5)
    assert torch.equal(plain.observations, scaled.observations)
    factors = (scaled.rewards / plain.rewards)[plain.mask.bool()].reshape(3, -1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert len(set(factors[:, 0].tolist())) == 3


@pytest.mark.parametrize("remembers", [False, True])
def test_a_tasks_episodes_do_not_depend_on_the_others(remembers: bool) -> None:
    make = small.remembering if remembers else small.small
    model = make(family=small.LENGTHS_DIFFER, family_kwargs={}, augment=ALL)
    tasks = model.training_tasks(1)

    def collect(chosen: list[int]) -> Any:
        part = task_tools.take_tasks(tasks, np.array(chosen))
        streams = [model.training_streams(tasks, 1, 0)[task] for task in chosen]
        if remembers:
            return model.collect_trials(model.state, part, streams)
        return model.collect(model.state, model.parameters, part, streams)

    count = len(model.training_streams(tasks, 1, 0))
    whole, part = collect(list(range(count))), collect([1, 2])
    steps = part.mask.shape[2]
    kept = part.mask.bool()
    for name in ("observations", "actions", "rewards"):
        ours = getattr(part, name)[:, :, :steps]
        assert torch.equal(ours[kept], getattr(whole, name)[1:3, :, :steps][kept]), name


@pytest.mark.parametrize("observations", ["image", "image channels last", "dict"])
def test_workers_give_the_same_bits(observations: str) -> None:
    def play(workers: int) -> Any:
        model = small.small(
            policy="MultiInputPolicy" if observations == "dict" else "CnnPolicy",
            family=small.SIGN,
            family_kwargs={"observations": observations, "actions": "standard box"},
            learning={"workers": workers},
            augment={"random_shift": 2, "remap_actions": 0.5, "flip_rewards": 0.5},
        )
        try:
            return small.played(model, model.training_tasks(1), episodes=2)
        finally:
            model.close()

    one, two = play(1), play(2)
    assert torch.equal(one.rewards, two.rewards)
    assert torch.equal(one.actions, two.actions)


@pytest.mark.parametrize("learner", ["maml", "rl2"])
def test_an_augmented_run_goes_on_with_the_same_bits(learner: str, tmp_path: Path) -> None:
    make = small.remembering if learner == "rl2" else small.small
    settings = {"augment": {**ALL, "mix": 0.5, "perturb": 0.1, "mirror": 0.5}, "learning": {"train_tasks": 3}}
    whole, part = make(**settings), make(**settings)
    whole.learn(iterations=3)
    part.learn(iterations=1)
    part.save(tmp_path / "part")
    loaded = type(part).load(tmp_path / "part")
    assert loaded.settings.augment == whole.settings.augment
    loaded.learn(iterations=2, reset_num_timesteps=False)
    assert small.same(loaded.parameters, whole.parameters)
    plain = make(learning={"train_tasks": 3}).learn(iterations=3)
    assert not small.same(plain.parameters, whole.parameters)


def test_evaluation_and_adaptation_are_not_augmented() -> None:
    plain, model = small.small(), small.small(augment={**ALL, "observation_noise": 5.0})
    np.testing.assert_array_equal(model.evaluate().metrics["return"], plain.evaluate().metrics["return"])
    adapted, other = (one.adaptation([0.1, 0.2])[-1] for one in (model, plain))
    assert small.same(adapted, other)
    assert [stream.is_training for stream in seeding.streams(1, seeding.EVALUATION, 0, 0, tasks=range(2))] == [
        False
    ] * 2


@pytest.mark.parametrize(
    ("learner", "settings", "words"),
    [
        ("maml", {"augment": {"random_shift": 2}}, "augment.random_shift is 2, which needs images of three axes"),
        ("maml", {"augment": {"mirror": 1.0}, "family": CHEETAH}, "augment.mirror is 1.0, but .* declares no symmetry"),
        ("maml", {"augment": {"mix": 1.0}, "family": "metarl/CornerNavigation2D-v0"}, "augment.mix .* a single choice"),
        ("maml", {"augment": {"mix": 1.0}, "learning": {"train_tasks": 1}}, "learning.train_tasks = 1 leaves no other"),
        (
            "maml",
            {"augment": {"perturb": 0.1}, "family": "metarl/CornerNavigation2D-v0"},
            "augment.perturb is 0.1, but tasks of .* have no real numbers",
        ),
        (
            "maml",
            {"augment": {"remap_actions": 1.0}, "family": small.SIGN, "family_kwargs": {"actions": "some ends"}},
            "augment.remap_actions is 1.0, which needs choices",
        ),
        (
            "maml",
            {
                "augment": {"observation_noise": 1.0},
                "family": small.SIGN,
                "family_kwargs": {"observations": "discrete"},
            },
            "augment.observation_noise is 1.0, but observations of .* have no real numbers",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused_before_training(
    learner: str, settings: dict[str, Any], words: str
) -> None:
    model = small.small(learner, **settings)
    with pytest.raises(ValueError, match=words) as caught:
        model.learn(iterations=1)
    assert "\n" not in str(caught.value)
    assert "leave" in str(caught.value)


@pytest.mark.parametrize(
    ("learner", "settings", "words"),
    [
        (
            "pretrained",
            {"augment": {"mix": 0.5}},
            "augment.mix is 0.5, but learner pretrained trains with stable-basel",
        ),
        ("pretrained", {"learning": {"train_tasks": 5}}, "learning.train_tasks is 5, but learner pretrained"),
        (
            "multi-task",
            {"augment": {"mirror": 1.0}, "outer": {"components": 2}},
            "augment.mirror is 1.0, but learner mul",
        ),
        (
            "task-aware",
            {"augment": {"flip_rewards": 0.5}},
            "augment.flip_rewards is 0.5, but learner task-aware is told",
        ),
        ("maml", {"augment": {"mix": 1.5}}, "augment.mix is 1.5"),
        ("maml", {"augment": {"mixing": 0.5}}, "augment.mixing.* 'augment.mix'"),
    ],
)
def test_learners_refuse_what_they_cannot_do(learner: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small.small(learner, **settings)


def test_the_observations_of_other_learners_may_be_noisy() -> None:
    for learner in ("task-aware", "multi-task", "reptile"):
        outer = {"components": 2} if learner == "multi-task" else {}
        model = small.small(learner, outer=outer, augment={"observation_noise": 0.1}, evaluation={"every": 5})
        plain = small.small(learner, outer=outer, evaluation={"every": 5})
        model.learn(iterations=1)
        plain.learn(iterations=1)
        assert not small.same(model.parameters, plain.parameters), learner
    assert metarl.MAML(family=small.NAVIGATION).settings.augment == Augmenting()
