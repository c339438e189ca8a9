"""Nothing silently wrong: buffers, threads, double precision, copies, and modules that no update can go through."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

import metarl
from metarl import MAML, MetaLearner, MetaSGD
from metarl.learners.registry import load_learner

SMALL: dict[str, Any] = {
    "family_kwargs": {"max_episode_steps": 10},
    "learning": {"tasks": 3, "episodes": 3},
    "evaluation": {"tasks": 2, "test_tasks": 2, "episodes": 2, "steps": 1},
}
TINY: dict[str, Any] = {**SMALL, "policy_kwargs": {"hidden_sizes": (8,)}}


class Extractor(BaseFeaturesExtractor):
    """A layer of one kind between two linear ones."""

    kind: Any = nn.Identity

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 4)
        self.first, self.between, self.last = nn.Linear(2, 4), self.kind(), nn.Linear(4, 4)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(observations)))


class Projection(BaseFeaturesExtractor):
    """Features drawn at random and never trained."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 6)
        self.register_buffer("drawn", torch.randn(2, 6))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tanh(observations @ self.drawn)


def extracting(kind: type[BaseFeaturesExtractor]) -> dict[str, Any]:
    return {"features_extractor_class": kind, "hidden_sizes": (4,)}


def test_buffers_are_in_checkpoints(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        kwargs = {"features_extractor_class": Projection, "net_arch": [4]}
        env = metarl.RandomTask(metarl.make("metarl/Navigation2D-v0"))
        source = PPO("MlpPolicy", env, policy_kwargs=kwargs, n_steps=8, batch_size=8)
    model = MAML.from_pretrained(source, **SMALL).learn(1)
    model.save(tmp_path / "drawn")
    given = {"features_extractor_class": Projection}
    loaded = MAML.load(tmp_path / "drawn", policy_kwargs=given)
    buffers = model.functional_policy.buffers()
    assert buffers
    assert all(torch.equal(value, loaded.functional_policy.buffers()[name]) for name, value in buffers.items())
    assert np.array_equal(model.evaluate().returns, loaded.evaluate().returns)
    observation = np.array([0.3, -0.2], np.float32)
    own, other = model.predict(observation, deterministic=True), loaded.predict(observation, deterministic=True)
    assert np.array_equal(own[0], other[0])
    assert torch.equal(source.policy.features_extractor.drawn.cpu(), next(iter(buffers.values())))
    assert np.array_equal(
        load_learner(tmp_path / "drawn", policy_kwargs=given).evaluate().returns, model.evaluate().returns
    )
    short = MetaLearner.load(tmp_path / "drawn", policy_kwargs=given)
    assert np.array_equal(short.learner.evaluate().returns, model.evaluate().returns)


class Counting(nn.Module):
    """Remembers how often it was used."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("uses", torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.uses += 1
        return inputs


class Branching(nn.Module):
    """Does one thing or the other, by the values."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if inputs.sum() > 0 else -inputs


class Recurrent(nn.Module):
    """A layer with memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.GRU(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.memory(inputs)[0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (lambda: nn.BatchNorm1d(4), "BatchNorm1d, which makes an output depend on the other samples"),
        (lambda: nn.Dropout(0.5), "Dropout, which draws at random at each pass"),
        (Recurrent, "GRU; layers with memory are not supported"),
        (Branching, "branches on values"),
        (Counting, r"changes (when the policy is used|something in place)|in place"),
    ],
    ids=["batch norm", "dropout", "recurrent", "branches", "counts"],
)
def test_modules_that_no_update_can_go_through_are_refused_before_any_rollout(kind: Any, message: str) -> None:
    own = type("Own", (Extractor,), {"kind": staticmethod(kind)})
    with pytest.raises(ValueError, match=message):
        MAML(policy_kwargs=extracting(own), **SMALL)


def test_layer_norm_and_no_dropout_are_fine() -> None:
    own = type("Own", (Extractor,), {"kind": staticmethod(lambda: nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.0)))})
    model = MAML(policy_kwargs=extracting(own), **SMALL).learn(1)
    assert model.iteration == 1


def in_threads(count: int, work: Any) -> list[Any]:
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: work(i)})) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(count)]


@pytest.mark.parametrize("extractor", [None, Projection], ids=["perceptron", "drawn projection"])
def test_learners_made_in_threads_have_the_weights_of_their_seeds(extractor: Any) -> None:
    kwargs = {"hidden_sizes": (8,)} if extractor is None else extracting(extractor)

    def make(_: int) -> list[dict[str, torch.Tensor]]:
        made = [MAML(seed=5, policy_kwargs=kwargs, **SMALL) for _ in range(3)]
        return [{**model.parameters, **model.functional_policy.buffers()} for model in made]

    (expected,) = {id(part): part for part in make(0)[:1]}.values()
    for made in in_threads(4, make):
        for parameters in made:
            assert all(torch.equal(value, parameters[name]) for name, value in expected.items())


def test_making_a_learner_leaves_torchs_stream_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        MAML(policy_kwargs=extracting(Projection), **SMALL)
        assert torch.equal(torch.rand(3), expected)


def test_evaluating_and_adapting_one_learner_from_threads_gives_the_numbers_of_one() -> None:
    model = MAML(**TINY).learn(1)
    tasks = metarl.sample_tasks("metarl/Navigation2D-v0", 4)

    def work(i: int) -> tuple[Any, dict[str, torch.Tensor]]:
        return model.evaluate(n_tasks=3).returns, model.adapt(tasks[i], steps=2).state_dict()

    expected = [work(i) for i in range(4)]
    for _ in range(3):
        for (returns, adapted), (own_returns, own) in zip(in_threads(4, work), expected, strict=True):
            assert np.array_equal(returns, own_returns)
            assert all(torch.equal(adapted[name], value) for name, value in own.items())


class Offset(gymnasium.Env[Any, Any]):
    """Observations in double precision, far from 0 beside their differences."""

    task_space = spaces.Box(-1.0, 1.0, ())
    default_task = np.float32(0.5)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return 1e8 + self.np_random.normal(size=2)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), float(action[0]), self.steps == 5, False, {}


gymnasium.register("sound/Offset-v0", entry_point=Offset)


def test_double_precision_is_normalised_before_it_is_rounded() -> None:
    learning = {"tasks": 3, "episodes": 4, "normalize_observations": True, "workers": 1}
    model = MAML("MlpPolicy", "sound/Offset-v0", learning=learning, evaluation=SMALL["evaluation"]).learn(1)
    state, tasks = model.state, model.training_tasks(2)
    rollouts = model.collect(state, state.parameters, tasks, model.training_streams(tasks, 2, 0))
    samples = model.samples(state, rollouts)
    assert samples.observations.dtype == torch.float32
    assert 0.3 < float(samples.observations.std()) < 3.0
    for task in range(3):
        own = samples.task(task)
        again = model.functional_policy.distribution(state.parameters, own).log_prob(own.actions)
        torch.testing.assert_close(again, own.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
def test_a_learner_and_an_adapter_can_be_copied_and_go_on_alike(copied: Any) -> None:
    for model in (MAML(**TINY).learn(1), MetaSGD(outer={"per_step": True}, **TINY).learn(1)):
        other = copied(model)
        model.learn(1, reset_num_timesteps=False)
        other.learn(1, reset_num_timesteps=False)
        assert all(torch.equal(value, other.parameters[name]) for name, value in model.parameters.items())
        assert model.num_timesteps == other.num_timesteps
    adapter = model.adapter(metarl.make("metarl/Navigation2D-v0", max_episode_steps=10), episodes=2)
    adapter.play()
    twin = copied(adapter)
    assert [adapter.play(), adapter.play()] == [twin.play(), twin.play()]


def test_a_double_default_type_of_torch_changes_nothing_but_the_draw_of_weights(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        for outer in ({}, {"path": "general"}):
            model = MAML(outer=outer, **TINY).learn(1)
            assert {value.dtype for value in model.parameters.values()} == {torch.float32}
            assert np.isfinite(model.evaluate().returns).all()
        task = metarl.sample_tasks("metarl/Navigation2D-v0", 1)[0]
        model.to_sb3(PPO, task, episodes=2, n_steps=16, batch_size=16).learn(16)
        model.save(tmp_path / "double")
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(MAML.load(tmp_path / "double").evaluate().returns, model.evaluate().returns)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callers_no_grad_does_not_reach_the_value_function(mode: Any) -> None:
    model = MAML(**TINY)
    task = metarl.sample_tasks("metarl/Navigation2D-v0", 1)[0]
    with mode():
        there = model.to_sb3(PPO, task, episodes=2)
    plain = model.to_sb3(PPO, task, episodes=2)
    for one, other in zip(there.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)
