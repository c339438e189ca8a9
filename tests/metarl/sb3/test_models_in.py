"""A model of stable-baselines3 as the start: the same policy, read without running anything."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small import SECTIONS, SIGN
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import metarl
from metarl import MAML

# What a policy is for is said where it is tested (sb3/test_own_actions.py).
pytestmark = pytest.mark.filterwarnings("ignore:this policy acts in:UserWarning")

SMALL: dict[str, Any] = {name: SECTIONS[name] for name in ("learning", "evaluation")}


class Own(FlattenExtractor):
    """A features extractor of one's own."""

    def __init__(self, space: Any, scale: float = 0.5) -> None:
        super().__init__(space)
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(observations)


def raw(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    metarl.envs.find_family(SIGN)
    return gymnasium.make("toy/Sign-v0", **kwargs)


def outputs(model: Any, observation: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (or logits) and value of a stable-baselines3 policy."""
    batch, _ = model.obs_to_tensor(observation)
    distribution = model.get_distribution(batch).distribution
    if isinstance(distribution, torch.distributions.Normal):
        actor = torch.cat([distribution.mean, distribution.stddev], dim=-1)
    else:
        actor = torch.cat([part.logits for part in np.atleast_1d(distribution)], dim=-1)
    return actor.detach(), model.predict_values(batch).detach()


POLICIES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "shared net_arch": {"net_arch": [12, 6]},
    "separate, relu": {"net_arch": {"pi": [7], "vf": [5, 4]}, "activation_fn": torch.nn.ReLU},
    "separate extractors": {"share_features_extractor": False, "net_arch": [6]},
    "gelu": {"activation_fn": torch.nn.GELU},
}


@pytest.mark.parametrize("arguments", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("how", ["model", "file"])
@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_it_does_what_the_model_did(arguments: dict[str, Any], how: str, algorithm: Any, tmp_path: Path) -> None:
    source = algorithm("MlpPolicy", raw(), seed=3, policy_kwargs={**arguments, "log_std_init": -1.0})
    source.save(tmp_path / "model")
    model = MAML.from_pretrained(source if how == "model" else tmp_path / "model.zip", SIGN, **SMALL)
    observation = np.array([2.0, 1.0], np.float32)
    expected, value = outputs(source.policy, observation)
    found, own_value = outputs(model.policy, observation)
    # The family's box is [-2, 2]; ours is [-1, 1].
    torch.testing.assert_close(2.0 * found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own_value, value)
    acted = metarl.make(SIGN, task=[0.7])
    acted.reset()
    action = model.predict(observation, deterministic=True)[0]
    reward = float(acted.step(action)[1])
    theirs = source.predict(observation, deterministic=True)[0]
    assert reward == pytest.approx(0.7 * float(np.sum(theirs)), abs=1e-5)
    model.learn(iterations=1)
    model.save(tmp_path / "again")
    again = MAML.load(tmp_path / "again")
    for one, other in zip(outputs(model.policy, observation), outputs(again.policy, observation), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("actions", "observations", "policy"),
    [
        ("discrete", "box", "MlpPolicy"),
        ("multi", "discrete", "MlpPolicy"),
        ("box", "image channels last", "CnnPolicy"),
        ("box", "dict", "MultiInputPolicy"),
    ],
)
@pytest.mark.parametrize("how", ["model", "file"])
def test_every_kind_of_space_is_taken_over(
    actions: str, observations: str, policy: str, how: str, tmp_path: Path
) -> None:
    kinds = {"actions": actions, "observations": observations}
    # stable-baselines3 knows no discrete space that does not start at 0; metarl.make maps it.
    source = A2C(policy, metarl.make(SIGN, **kinds), seed=3)
    source.save(tmp_path / "model")
    model = MAML.from_pretrained(
        source if how == "model" else str(tmp_path / "model"), SIGN, family_kwargs=kinds, **SMALL
    )
    observation, _ = raw(**kinds).reset(seed=1)
    for one, other in zip(outputs(source.policy, observation), outputs(model.policy, observation), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    model.learn(iterations=1)


def test_a_class_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    source = PPO("MlpPolicy", raw(), seed=3, policy_kwargs={"features_extractor_class": Own})
    source.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"policy_kwargs=\{'features_extractor_class': \.\.\.\}"):
        MAML.from_pretrained(tmp_path / "model", SIGN)
    given = {"features_extractor_class": Own}
    observation = np.array([2.0, 1.0], np.float32)
    for model in (
        MAML.from_pretrained(tmp_path / "model", SIGN, policy_kwargs=given),
        MAML.from_pretrained(source, SIGN),
    ):
        torch.testing.assert_close(2.0 * outputs(model.policy, observation)[0], outputs(source.policy, observation)[0])


@pytest.mark.parametrize("beside", [True, False])
def test_statistics_of_vec_normalize_are_taken_over(beside: bool, tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([raw]), clip_obs=1.5)
    source = PPO("MlpPolicy", env, seed=3, n_steps=32, batch_size=32).learn(64)
    source.save(tmp_path / "model")
    model = (
        MAML.from_pretrained(tmp_path / "model", SIGN, vec_normalize=env, **SMALL)
        if beside
        else MAML.from_pretrained(source, SIGN, **SMALL)
    )
    for observation in ([1.0, 1.0], [9.0, 1.0]):
        given = np.array(observation, np.float32)
        expected = source.predict(env.normalize_obs(given), deterministic=True)[0]
        np.testing.assert_allclose(2.0 * model.predict(given, deterministic=True)[0], expected, atol=1e-5)
    count = model.normalizer.observations[""].count
    model.learn(iterations=1)
    assert model.normalizer.observations[""].count == count + model.num_timesteps


def test_what_cannot_be_taken_is_refused_with_the_reason(tmp_path: Path) -> None:
    noisy = PPO("MlpPolicy", raw(), use_sde=True)
    noisy.save(tmp_path / "noisy")
    other = PPO("MlpPolicy", "CartPole-v1")
    other.save(tmp_path / "other")
    value_based = DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
    value_based.save(tmp_path / "dqn")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    for source, message in [
        (noisy, "state-dependent noise"),
        (tmp_path / "noisy.zip", "state-dependent noise"),
        (other, "was trained with the observation space"),
        (tmp_path / "other", "was trained with the observation space"),
        (tmp_path / "dqn", "holds no actor-critic policy"),
        (value_based, "expected a PPO or A2C model"),
        (tmp_path / "broken.zip", "damaged or no model of stable-baselines3"),
        (tmp_path / "none", "there is no file"),
        (3, "int cannot be taken over"),
    ]:
        with pytest.raises(ValueError, match=message):
            MAML.from_pretrained(source, SIGN)
    fine = PPO("MlpPolicy", raw())
    with pytest.raises(ValueError, match="was trained with the action space"):
        MAML.from_pretrained(fine, SIGN, family_kwargs={"actions": "discrete"})
    fine.save(tmp_path / "fine")
    with pytest.raises(ValueError, match="do not fit a MlpPolicy"):
        MAML.from_pretrained(tmp_path / "fine", SIGN, policy_kwargs={"net_arch": [3]})


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    PPO("MlpPolicy", raw(), policy_kwargs={"net_arch": [4], "activation_fn": torch.nn.ReLU}).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(content["data"])
    planted = tmp_path / "planted"
    bomb = base64.b64encode(pickle.dumps(Bomb(planted))).decode()
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = bomb
    with zipfile.ZipFile(tmp_path / "crafted.zip", "w") as archive:
        for name, body in content.items():
            archive.writestr(name, json.dumps(data) if name == "data" else body)
    MAML.from_pretrained(tmp_path / "crafted.zip", SIGN)
    assert not planted.exists()
    with zipfile.ZipFile(tmp_path / "worse.zip", "w") as archive:
        for name, body in content.items():
            archive.writestr(name, pickle.dumps(Bomb(planted)) if name == "policy.pth" else body)
    with pytest.raises(ValueError, match="damaged or no model"):
        MAML.from_pretrained(tmp_path / "worse.zip", SIGN)
    assert not planted.exists()
