"""Pruning of channels: smaller convolutional networks, of which channels that pass nothing on leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from small import SIGN, same, small
from stable_baselines3 import PPO
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
from torch import nn

from metarl import Compress, Prune
from metarl.agents.frozen.extractors import with_extractor
from metarl.agents.frozen.narrow import NarrowExtractor
from metarl.agents.small_images import SmallCnnPolicy

IMAGES = spaces.Box(0, 255, (3, 36, 36), np.uint8)
SEEN = np.random.default_rng(1).integers(0, 256, (4, 3, 36, 36), np.uint8)


class Padded(nn.Module):
    """Three convolutions, pooling, and features that are channels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.ELU(), nn.MaxPool2d(2))
        self.rest = nn.Sequential(nn.Conv2d(width, 8, 3, stride=2), nn.Sigmoid(), nn.Conv2d(8, 4, 2), nn.Tanh())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.rest(self.first(images))
        return found


class Normed(Padded):
    """Normalises over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rest.insert(1, nn.BatchNorm2d(8))


class Shifted(Padded):
    """Adds something to what its layers return."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + 1.0


def policy_of(kind: Any, **arguments: Any) -> ActorCriticPolicy:
    """Return a policy with biases that are not 0."""
    torch.manual_seed(0)
    policy: ActorCriticPolicy = kind(IMAGES, spaces.Box(-1.0, 1.0, (2,)), lambda _: 1e-3, **arguments)
    with torch.no_grad():
        for name, part in policy.named_parameters():
            if name.endswith("bias"):
                part.uniform_(-1.0, 1.0)
    return policy


def own(kind: type[nn.Module] = Padded) -> ActorCriticPolicy:
    """Return a policy with a network of one's own."""
    return policy_of(ActorCriticPolicy, **with_extractor({"features_extractor_class": kind}))


def layers(policy: ActorCriticPolicy) -> list[Any]:
    """Return the layers of a policy's features extractor."""
    return [part for part in policy.features_extractor.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def outputs(policy: ActorCriticPolicy) -> list[torch.Tensor]:
    """Return means of actions and values."""
    seen = torch.as_tensor(SEEN)
    with torch.no_grad():
        return [policy.get_distribution(seen).distribution.mean, policy.predict_values(seen)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: policy_of(ActorCriticCnnPolicy),
        lambda: policy_of(SmallCnnPolicy, net_arch=[7]),
        own,
    ],
)
def test_channels_that_pass_nothing_on_leave_no_trace(make: Any) -> None:
    policy = make()
    found = layers(policy)
    gone = total = 0
    with torch.no_grad():
        for layer in found:
            dead = torch.arange(len(layer.weight)) % 4 == 1
            layer.weight[dead] = 0.0
            gone, total = gone + int(dead.sum()), total + len(dead)
    pruned = Prune(policy, gone / total, by="channels")
    assert [len(layer.weight) for layer in layers(pruned)] == [
        len(layer.weight) - len(range(1, len(layer.weight), 4)) for layer in found
    ]
    for one, other in zip(outputs(pruned), outputs(policy), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert len(layers(policy)[0].weight) == len(found[0].weight)
    twice = Prune(Prune(pruned, 0.3, by="channels", scope="layer"), 0.3, by="channels", scope="layer")
    assert len(layers(twice)[-1].weight) < len(layers(pruned)[-1].weight)


def test_a_model_without_channels_is_smaller_learns_and_comes_back(tmp_path: Path) -> None:
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=3, discrete=False)
    model = PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=1)
    pruned = Prune(model, 0.75, by="channels", scope="layer")
    assert [len(layer.weight) for layer in layers(pruned.policy)] == [8, 16, 16, 128]
    pruned.save(tmp_path / "full.zip")
    again = PPO.load(tmp_path / "full.zip")
    np.testing.assert_array_equal(
        again.predict(SEEN, deterministic=True)[0], pruned.predict(SEEN, deterministic=True)[0]
    )
    pruned.learn(8)
    less = Compress(pruned)
    less.save(tmp_path / "less.zip")
    again = PPO.load(tmp_path / "less.zip")
    np.testing.assert_array_equal(again.predict(SEEN, deterministic=True)[0], less.predict(SEEN, deterministic=True)[0])


@pytest.mark.parametrize("freeze", ["none", "extractor"])
def test_a_learner_without_channels_goes_on_and_comes_back(freeze: str, tmp_path: Path) -> None:
    model = small(
        "reptile", family=SIGN, family_kwargs={"observations": "image"}, policy="SmallCnnPolicy",
        policy_kwargs={"freeze": freeze},
    )  # fmt: skip
    pruned = Prune(model, 0.5, by="channels", scope="layer")
    shapes = {**pruned.functional_policy.shapes}
    shapes |= {name: value.shape for name, value in pruned.functional_policy.buffers().items()}
    assert shapes["features_extractor.inner.layers.0.weight"][0] == 8
    assert shapes["features_extractor.inner.layers.3.weight"][0] == 32
    pruned.learn(iterations=1)
    pruned.save(tmp_path / "pruned.zip")
    again = type(model).load(tmp_path / "pruned.zip")
    assert same(again.parameters, pruned.parameters)
    assert same(again.functional_policy.buffers(), pruned.functional_policy.buffers())
    adapted = again.adapt(again.env)
    assert isinstance(adapted.features_extractor, NarrowExtractor)


def test_what_has_no_channels_is_one_sentence() -> None:
    for policy, message in [
        (
            small(),
            r"^the features extractor FlattenExtractor has no convolutions, so no channels to prune",
        ),
        (own(Shifted), r"^the features extractor ModuleExtractor does not run its layers one after the other, so"),
        (policy_of(ActorCriticCnnPolicy, share_features_extractor=False), r"^the value function has a features extr"),
        (own(Normed), r"^the features extractor ModuleExtractor has a layer BatchNorm2d, whose channels are not"),
        ("ppo.zip", r"^str cannot be pruned; expected a learner, or a PPO or A2C model"),
    ]:
        with pytest.raises(ValueError, match=message):
            Prune(policy, 0.5, by="channels")
