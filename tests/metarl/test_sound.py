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
from metarl import ANIL, CAVIA, MAML, MetaLearner, MetaSGD, MultiTask, Pretrained, TaskAware
from metarl.learners.registry import find_learner, load_learner

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
    model = MAML.from_pretrained(source, **SMALL).learn(iterations=1)
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
    model = MAML(policy_kwargs=extracting(own), **SMALL).learn(iterations=1)
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
    model = MAML(**TINY).learn(iterations=1)
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
        assert seed is None or seed < 2**31, "a simulator's C integer cannot hold it"
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Any:
        return 1e8 + self.np_random.normal(size=2)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(), float(action[0]), self.steps == 5, False, {}


gymnasium.register("sound/Offset-v0", entry_point=Offset)
UNCHECKED = {"check": False}  # all its tasks are the same


def test_double_precision_is_normalised_before_it_is_rounded() -> None:
    learning = {"tasks": 3, "episodes": 4, "normalize_observations": True, "workers": 1}
    model = MAML("MlpPolicy", "sound/Offset-v0", learning=learning | UNCHECKED, evaluation=SMALL["evaluation"]).learn(
        iterations=1
    )
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
    for model in (MAML(**TINY).learn(iterations=1), MetaSGD(outer={"per_step": True}, **TINY).learn(iterations=1)):
        other = copied(model)
        model.learn(iterations=1, reset_num_timesteps=False)
        other.learn(iterations=1, reset_num_timesteps=False)
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
            model = MAML(outer=outer, **TINY).learn(iterations=1)
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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callers_no_grad_does_not_reach_joint_training(mode: Any) -> None:
    outer = {"environments": 2, "minibatches": 1, "epochs": 1}
    plain = Pretrained(outer=outer, **TINY).learn(iterations=1)
    with mode():
        there = Pretrained(outer=outer, **TINY).learn(iterations=1)
    assert all(torch.equal(value, there.parameters[name]) for name, value in plain.parameters.items())


@pytest.mark.parametrize("kind", [MAML, Pretrained])
def test_seeds_of_environments_that_are_stepped_one_by_one_fit_a_c_integer(kind: Any) -> None:
    outer = {"environments": 2, "minibatches": 1} if kind is Pretrained else {}
    learning = {"tasks": 4, "episodes": 4, "workers": 1}
    model = kind(
        "MlpPolicy",
        "sound/Offset-v0",
        outer=outer,
        learning=learning | UNCHECKED,
        evaluation=SMALL["evaluation"],
    )
    assert np.isfinite(model.learn(iterations=2).evaluate().returns).all()


def test_meta_sgd_learns_with_a_double_default_type_of_torch() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = MetaSGD(**TINY).learn(iterations=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {value.dtype for value in model.state.own_tensors.values()} == {torch.float32}


class Point(gymnasium.Env[Any, Any]):
    """A number is observed and a number acts, neither of them in an array with axes."""

    task_space = spaces.Box(-1.0, 1.0, ())
    default_task = np.float32(0.5)
    observation_space = spaces.Box(-1.0, 1.0, (), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (), np.float32)
    task = default_task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.task, self.steps = (options or {}).get("task", self.task), 0
        return np.array(0.5, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.array(0.1, np.float32), -abs(float(action) - float(self.task)), self.steps == 3, False, {}


gymnasium.register("sound/Point-v0", entry_point=Point)


@pytest.mark.parametrize("kind", [MAML, ANIL, CAVIA, MultiTask, TaskAware])
def test_boxes_without_axes_are_observed_and_acted_in(kind: Any) -> None:
    outer = {"components": 2} if kind is MultiTask else {}
    settings = {**SMALL, "family_kwargs": {}, "learning": {"tasks": 3, "episodes": 3, "workers": 1}}
    model = kind("MlpPolicy", "sound/Point-v0", outer=outer, policy_kwargs={"hidden_sizes": (4,)}, **settings).learn(
        iterations=1
    )
    assert np.isfinite(model.evaluate().returns).all()
    if kind is not TaskAware:
        env = metarl.make("sound/Point-v0")
        policy = model.adapt(env)
        assert env.action_space.contains(policy.predict(env.reset(seed=1)[0])[0])


@pytest.mark.parametrize("value", [np.array(0.7), np.array("1"), np.array(True)])
def test_what_is_no_whole_number_is_no_task_of_a_choice(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0 to 3"):
        metarl.as_task(metarl.make("metarl/CornerNavigation2D-v0"), value)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: find_learner("metarl:BaseLearner"), "has no meta_iteration"),
        (lambda: MAML("metarl.agents:Policy"), "has no class method build"),
        (lambda: MAML(device="meta"), "device 'meta' holds no numbers"),
    ],
)
def test_what_cannot_learn_is_named_at_once(work: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        work()


def test_an_exported_policy_that_rounds_what_it_was_normalised_by_warns() -> None:
    learning = {"tasks": 2, "episodes": 2, "normalize_observations": True, "workers": 1}
    model = MAML("MlpPolicy", "sound/Offset-v0", learning=learning | UNCHECKED, evaluation=SMALL["evaluation"]).learn(
        iterations=1
    )
    with pytest.warns(UserWarning, match="rounds observations to single precision"):
        assert model.policy is not None
