"""``metarl.export``: files that act as the policy does, run without metarl."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

import metarl

onnxruntime = pytest.importorskip("onnxruntime")

NAVIGATION = "metarl/Navigation2D-v0"
SMALL: dict[str, Any] = {
    "seed": 1,
    "learning": {"tasks": 2, "episodes": 2},
    "evaluation": {"episodes": 2, "steps": 1},
    "family_kwargs": {"max_episode_steps": 5},
}
PENDULUM = metarl.parameterized("Pendulum-v1", g=(5.0, 15.0))


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def small(**learning: Any) -> dict[str, Any]:
    return {**SMALL, "learning": {**SMALL["learning"], **learning}}


def trained(model: Any) -> Any:
    """Return a learner whose normaliser has seen observations."""
    return model.learn(iterations=1)


def test_the_file_has_normalisation_and_the_environments_own_actions_inside(tmp_path: Path) -> None:
    model = trained(metarl.MAML(family=PENDULUM, **small(normalize_observations=True)))
    path = metarl.export(model, tmp_path / "new" / "policy.onnx", {"g": 7.0})
    seen = np.random.default_rng(0).uniform(-3.0, 3.0, (40, 3)).astype(np.float32)
    actions, mean, log_std = session(path).run(["action", "mean", "log_std"], {"observation": seen})
    with pytest.warns(UserWarning, match="this policy acts in Box"):
        adapted = model.adapt({"g": 7.0})  # which acts in [-1, 1]; the pendulum takes [-2, 2]
    expected, _ = adapted.predict(seen, deterministic=True)
    assert actions.shape == (40, 1)
    np.testing.assert_allclose(actions, 2.0 * expected, atol=1e-5)
    distribution = adapted.get_distribution(torch.from_numpy(seen)).distribution
    np.testing.assert_allclose(mean, 2.0 * distribution.mean.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(np.exp(log_std), 2.0 * distribution.stddev.detach().numpy(), rtol=1e-5)
    other = metarl.export(model, tmp_path / "before.onnx")
    assert np.abs(session(other).run(["action"], {"observation": seen})[0] - actions).max() > 1e-4
    model.close()


def test_torch_export_gives_the_same_as_onnx(tmp_path: Path) -> None:
    model = trained(metarl.MAML(family=NAVIGATION, **SMALL))
    seen = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    onnx = session(metarl.export(model, tmp_path / "a.onnx", [0.1, 0.2], steps=2, episodes=3, seed=4))
    pt2 = torch.export.load(metarl.export(model, tmp_path / "a.pt2", [0.1, 0.2], steps=2, episodes=3, seed=4)).module()
    found = [part.detach().numpy() for part in pt2(torch.from_numpy(seen))]
    for one, other in zip(onnx.run(None, {"observation": seen}), found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    policy = model.adapt([0.1, 0.2], steps=2, episodes=3, seed=4)
    np.testing.assert_allclose(found[0], policy.predict(seen, deterministic=True)[0], atol=1e-6)
    assert onnx.get_modelmeta().custom_metadata_map["task"] == "[0.10000000149011612, 0.20000000298023224]"
    model.close()


@pytest.mark.parametrize("family", [NAVIGATION, "metarl/CartPoleParams-v0"])
def test_a_mixture_acts_as_its_policy(family: str, tmp_path: Path) -> None:
    model = metarl.MultiTask(family=family, outer={"components": 2}, **SMALL)
    policy = model.policy
    rows = np.random.default_rng(0).normal(size=(30, *model.observation_space.shape)).astype(np.float32)
    (found,) = session(metarl.export(policy, tmp_path / "policy.onnx")).run(None, {"observation": rows})
    np.testing.assert_allclose(found, policy.predict(rows, deterministic=True)[0], atol=1e-5)
    model.close()


def test_a_policy_with_memory_takes_and_returns_its_state(tmp_path: Path) -> None:
    kwargs = {"family": PENDULUM, "learning": {"trial_episodes": 2, "normalize_rewards": True}, "seed": 1}
    model = metarl.RL2(**kwargs, family_kwargs={"max_episode_steps": 5}, outer={"trials": 4, "minibatch_trials": 2})
    trained(model)
    task = {"g": 8.0}
    run = session(metarl.export(model, tmp_path / "policy.onnx", task))
    env = metarl.Trial(gymnasium.make("Pendulum-v1", g=8.0, max_episode_steps=5), 2)
    # The policy for the pendulum's own actions, which starts from the same memory.
    policy = model.as_policy(model.parameters, model.state, model.remembered(task), env.unwrapped)
    observation, _ = env.reset(seed=3)
    state, given = None, np.zeros((1, policy.memory_size), np.float32)
    begins, ended = np.array([True]), False
    while not ended:
        action, state = policy.predict(observation, state, begins, deterministic=True)
        named = {key: np.asarray(part, np.float32)[None] for key, part in observation.items()}
        found, given = run.run(["action", "next_state"], {**named, "state": given, "episode_start": begins})
        np.testing.assert_allclose(found[0], action, atol=1e-4)
        assert state is not None
        np.testing.assert_allclose(given, state[0][0], atol=1e-4)
        observation, _, terminated, truncated, _ = env.step(action)
        begins, ended = np.array([False]), terminated or truncated
    assert env.action_space.high[0] == 2.0
    model.close()


class Many(gymnasium.Env[Any, Any]):
    """Observes whole numbers, bits, an image and a box; several discrete actions that start at other numbers."""

    def __init__(self) -> None:
        parts = {
            "number": spaces.Discrete(3),
            "bits": spaces.MultiBinary(2),
            "box": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
            "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        }
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.MultiDiscrete([2, 3], start=[1, -1])
        self.task_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), float(action[0]), True, False, {}


@pytest.mark.parametrize("kind", ["maml", "rl2"])
def test_observations_of_every_kind_and_choices_from_any_start(kind: str, tmp_path: Path) -> None:
    if kind == "maml":
        model: Any = metarl.MAML("MultiInputPolicy", Many, seed=1, learning={"tasks": 2, "episodes": 1})
    else:
        model = metarl.RL2(family=Many, seed=1, learning={"trial_episodes": 2})
    run = session(metarl.export(model, tmp_path / "policy.onnx"))
    shapes = {part.name: part.shape[1:] for part in run.get_inputs()}
    assert shapes["image"] == [1, 36, 36]
    assert {part.name: part.type for part in run.get_inputs()}["number"] == "tensor(int64)"
    actions = [
        run.run(["action"], {name: example(part, seed) for name, part in inputs(run).items()})[0] for seed in range(20)
    ]
    values = np.concatenate(actions)
    assert values.shape == (20, 2)
    assert set(values[:, 0]) <= {1, 2}
    assert set(values[:, 1]) <= {-1, 0, 1}
    model.close()


def inputs(run: Any) -> dict[str, Any]:
    return {part.name: part for part in run.get_inputs()}


def example(part: Any, seed: int) -> Any:
    kinds = {"tensor(int64)": np.int64, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}
    values = np.random.default_rng(seed).integers(0, 2, (1, *part.shape[1:]))
    return values.astype(kinds.get(part.type, np.float32))


def test_what_cannot_be_exported_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = metarl.MAML(family=NAVIGATION, **SMALL)
    with pytest.raises(ValueError, match=r"policy\.txt.* has to end in \.onnx \(ONNX\) or \.pt2"):
        metarl.export(model, tmp_path / "policy.txt")
    with pytest.raises(ValueError, match=r"steps is given, but no task to adapt to"):
        metarl.export(model, tmp_path / "policy.pt2", steps=2)
    with pytest.raises(ValueError, match=r"task, steps cannot be given with a policy, which has adapted already"):
        metarl.export(model.policy, tmp_path / "policy.pt2", [0.1, 0.2], steps=2)
    with pytest.raises(ValueError, match=r"the model is of type int; expected a learner"):
        metarl.export(3, tmp_path / "policy.pt2")
    with pytest.raises(ValueError, match="is outside its space"):
        metarl.export(model, tmp_path / "policy.pt2", [7.0, 0.0])
    (tmp_path / "there.pt2").write_text("mine")
    with pytest.raises(ValueError, match=r"there\.pt2' exists and is not overwritten"):
        metarl.export(model, tmp_path / "there.pt2")
    assert (tmp_path / "there.pt2").read_text() == "mine"
    with pytest.raises(ValueError, match="learner random acts uniformly"):
        metarl.export(metarl.Random(family=NAVIGATION), tmp_path / "policy.pt2")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    with pytest.raises(ValueError, match=r"needs the package onnxruntime.*pip install 'metarl-suite\[export\]'"):
        metarl.export(model, tmp_path / "policy.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.pt2"]
    model.close()


class Averages(BaseFeaturesExtractor):
    """Has an operation with the name of an output."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 2)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations - observations.mean(dim=1, keepdim=True)


def test_an_operation_may_have_the_name_of_an_output(tmp_path: Path) -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    policy = ActorCriticPolicy(box, box, lambda _: 1e-3, features_extractor_class=Averages)
    policy.set_training_mode(False)
    seen = np.random.default_rng(0).uniform(-1.0, 1.0, (5, 2)).astype(np.float32)
    found = session(metarl.export(policy, tmp_path / "policy.onnx")).run(["action"], {"observation": seen})[0]
    np.testing.assert_allclose(found, policy.predict(seen, deterministic=True)[0], atol=1e-5)


def test_an_observation_with_the_name_of_an_output_is_refused_for_onnx(tmp_path: Path) -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    policy = MultiInputActorCriticPolicy(spaces.Dict({"action": box, "other": box}), box, lambda _: 1e-3)
    policy.set_training_mode(False)
    with pytest.raises(ValueError, match=r"the key 'action', which is the name of an output.* or write a \.pt2"):
        metarl.export(policy, tmp_path / "policy.onnx")
    assert metarl.export(policy, tmp_path / "policy.pt2").exists()


class Branches(BaseFeaturesExtractor):
    """Looks at numbers to decide what to compute, which torch cannot export."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 2)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if float(observations.sum()) > 0.0 else -observations


class Noisy(Branches):
    """Draws random numbers."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations + torch.randn_like(observations)


@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (Branches, r"torch cannot export this policy to torch\.export .*no branches that depend on numbers"),
        (Noisy, r"gives the action numbers that differ by up to .* so nothing was written"),
    ],
)
def test_layers_that_cannot_be_exported_are_named(extractor: Any, message: str, tmp_path: Path) -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    policy = ActorCriticPolicy(box, box, lambda _: 1e-3, features_extractor_class=extractor)
    policy.set_training_mode(False)
    with pytest.raises(ValueError, match=message):
        metarl.export(policy, tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())
