"""The Rollouts type: shapes are checked, returns are counted, episodes are joined; samples are means."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from samples import make_policy, make_rollouts
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.agents import (
    Rollouts,
    dice_loss,
    discounted_returns,
    join_episodes,
    likelihood_ratio_gain,
    mean_kl,
    policy_gradient_loss,
    to_samples,
)


def test_a_wrong_shape_is_named() -> None:
    rollouts = make_rollouts(make_policy())
    with pytest.raises(ValueError, match="rewards has the leading shape"):
        dataclasses.replace(rollouts, rewards=rollouts.rewards[:, :, 1:])
    with pytest.raises(ValueError, match="observations have the leading shape"):
        dataclasses.replace(rollouts, observations=rollouts.observations[:, :, 1:])
    with pytest.raises(ValueError, match=r"expected \[task, episode, time\]"):
        dataclasses.replace(rollouts, mask=rollouts.mask[0])


class Moves(TorchDispatchMode):
    """Counts the copies to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.count += func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None
        return func(*args, **kwargs)


@pytest.mark.parametrize("device", ["meta", "cpu:0"])
def test_a_move_to_another_device_is_one_copy_and_keeps_every_number(device: str) -> None:
    rollouts = make_rollouts(make_policy("categorical"), steps=5)
    image = torch.arange(3 * 4 * 6 * 7).reshape(3, 4, 6, 7).to(torch.uint8)
    infos = {"success": torch.rand(3, 4, 5, dtype=torch.float64)}
    rollouts = dataclasses.replace(rollouts, observations={"state": rollouts.observations, "image": image}, infos=infos)
    with Moves() as moves:
        moved = rollouts.to(torch.device(device))
    assert moves.count == 1
    assert moved.observations.keys() == rollouts.observations.keys()
    assert moved.infos.keys() == infos.keys()
    before, after = ({**vars(part), **part.observations, **part.infos} for part in (rollouts, moved))
    for name in before.keys() - {"observations", "infos"}:
        assert after[name].device.type == torch.device(device).type
        assert (after[name].dtype, after[name].shape) == (before[name].dtype, before[name].shape)
        assert device == "meta" or torch.equal(after[name], before[name])


def test_returns_and_steps_count_what_ran() -> None:
    rollouts = make_rollouts(make_policy())
    lengths = rollouts.mask.sum(dim=2)
    assert rollouts.steps() == int(lengths.sum())
    expected = [
        sum(float(rollouts.rewards[0, e, : int(lengths[0, e])].sum()) for e in range(4)) / 4,
    ]
    assert rollouts.returns()[0].item() == pytest.approx(expected[0])


def test_joined_episodes_are_padded_at_the_end() -> None:
    policy = make_policy()
    long, short = make_rollouts(policy, steps=6), make_rollouts(policy, steps=3, seed=1)
    joined = join_episodes([long, short])
    assert joined.mask.shape == (3, 8, 6)
    assert torch.equal(joined.rewards[:, 4:, :3], short.rewards)
    assert (joined.mask[:, 4:, 3:] == 0).all()
    assert torch.equal(joined.observations[:, 4:, 5], short.observations[:, :, -1])


def padded(rollouts: Rollouts, by: int) -> Rollouts:
    tasks, episodes, _ = rollouts.mask.shape
    none = torch.zeros(tasks, episodes, by, dtype=torch.float64)
    return Rollouts(
        observations=torch.cat([rollouts.observations, torch.full((tasks, episodes, by, 3), 3.0)], dim=2),
        actions=torch.cat([rollouts.actions, torch.full((tasks, episodes, by, 2), 50.0)], dim=2),
        log_probs=torch.cat([rollouts.log_probs, none - 5000.0], dim=2),
        rewards=torch.cat([rollouts.rewards, none], dim=2),
        mask=torch.cat([rollouts.mask, none], dim=2),
        terminated=torch.cat([rollouts.terminated, none.bool()], dim=2),
        truncated=torch.cat([rollouts.truncated, none.bool()], dim=2),
    )


def test_padding_changes_no_objective() -> None:
    policy = make_policy()
    parameters = {name: value.double() for name, value in policy.parameters().items()}
    values = []
    for rollouts in (make_rollouts(policy), padded(make_rollouts(policy), by=5)):
        samples = to_samples(rollouts, rollouts.observations, gamma=0.9, gae_lambda=0.8).task(1)
        distribution = policy.distribution(parameters, samples)
        shifted = policy.distribution({k: v + 0.1 for k, v in parameters.items()}, samples)
        values.append(
            [
                policy_gradient_loss(distribution, samples).item(),
                likelihood_ratio_gain(distribution, samples).item(),
                dice_loss(distribution, samples).item(),
                mean_kl(distribution, shifted, samples).item(),
            ]
        )
    assert values[1] == pytest.approx(values[0], rel=1e-9)


def test_without_a_baseline_advantages_are_scaled_returns_and_discounted_by_time() -> None:
    rollouts = make_rollouts(make_policy(), steps=6)
    gamma = 0.9
    returns = discounted_returns(rollouts.rewards, rollouts.mask, gamma)
    arguments: dict[str, Any] = {"gamma": gamma, "gae_lambda": 0.8}
    for task in range(3):
        found = to_samples(rollouts, rollouts.observations, **arguments, baseline="none", discounted=True).task(task)
        size = (returns[task].square().sum() / rollouts.mask[task].sum()).sqrt()
        times = gamma ** torch.arange(6, dtype=torch.float64)
        torch.testing.assert_close(found.by_episode(found.advantages), returns[task] / size * times)
    plain, discounted = (to_samples(rollouts, rollouts.observations, **arguments, discounted=d) for d in (False, True))
    torch.testing.assert_close(discounted.by_episode(discounted.advantages), plain.by_episode(plain.advantages) * times)


def test_a_subsample_keeps_a_mean() -> None:
    policy = make_policy()
    rollouts = make_rollouts(policy, steps=50)
    samples = to_samples(rollouts, rollouts.observations, gamma=0.9, gae_lambda=0.8)
    fewer = samples.subsample(0.25)
    assert fewer.weights.shape == (3, 50)
    torch.testing.assert_close(fewer.weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(samples.subsample(1.0).observations, samples.observations)
    torch.testing.assert_close(samples.subsample(1.0).weights, samples.weights)
    assert (samples.episode_rows, fewer.episode_rows) == (50, 1)
