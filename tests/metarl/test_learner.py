"""The face of a learner: learn, adapt, evaluate, predict, save, load."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

import metarl
from metarl import MAML

NAVIGATION = "metarl/Navigation2D-v0"
SMALL: dict[str, Any] = {
    "family_kwargs": {"max_episode_steps": 10},
    "learning": {"tasks": 3, "episodes": 4},
    "evaluation": {"every": 2, "tasks": 2, "test_tasks": 3, "episodes": 2, "steps": 2},
    "policy_kwargs": {"hidden_sizes": (8,)},
}


def small(**changes: Any) -> MAML:
    return MAML("MlpPolicy", NAVIGATION, **{**SMALL, **changes})


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_learning_changes_parameters_and_is_repeatable() -> None:
    one, other, third = small().learn(3), small().learn(3), small(seed=2).learn(3)
    assert same(one.parameters, other.parameters)
    assert not same(one.parameters, small().parameters)
    assert not same(one.parameters, third.parameters)
    assert one.iteration == 3
    assert one.num_timesteps == 3 * 2 * 3 * 4 * 10


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ELU])  # by hand, and by autograd
def test_a_callers_no_grad_changes_nothing(mode: Any, activation: type[torch.nn.Module]) -> None:
    kwargs = {"hidden_sizes": (8,), "activation_fn": activation}
    plain, inside = small(policy_kwargs=kwargs).learn(1), small(policy_kwargs=kwargs)
    with mode():
        inside.learn(1)
        task = np.array([0.3, -0.2])
        adapted = inside.adapt(task, steps=2)
    assert same(inside.parameters, plain.parameters)
    assert same(dict(adapted.state_dict()), dict(plain.adapt(task, steps=2).state_dict()))
    assert same(
        inside.learn(1, reset_num_timesteps=False).parameters, plain.learn(1, reset_num_timesteps=False).parameters
    )


def test_learning_in_two_parts_equals_learning_in_one() -> None:
    whole, parts = small().learn(4), small().learn(2).learn(2, reset_num_timesteps=False)
    assert same(whole.parameters, parts.parameters)
    assert whole.num_timesteps == parts.num_timesteps


def test_total_timesteps_stops_after_the_iteration_that_reaches_them() -> None:
    model = small().learn(total_timesteps=241)
    assert model.num_timesteps == 480
    assert model.best is not None
    assert model.best.iteration == 2
    # As in stable-baselines3: more steps, counted from where it stands.
    assert model.learn(total_timesteps=200, reset_num_timesteps=False).num_timesteps == 720
    assert model.learn(total_timesteps=200).num_timesteps == 240


@pytest.mark.parametrize("steps", [1, 3])
def test_several_inner_steps_train(steps: int) -> None:
    model = small(inner={"steps": steps}).learn(2)
    assert model.num_timesteps == 2 * (steps + 1) * 3 * 4 * 10
    assert not same(model.parameters, small().parameters)


def test_where_the_line_search_fails_parameters_stay_and_it_is_counted() -> None:
    # Every candidate of so short a search with so long a first step breaks the bound or worsens the gain.
    model = small(outer={"max_kl": 1e8, "line_search_steps": 1}).learn(1)
    assert model.line_search_failures == 1
    assert same(model.parameters, small().parameters)
    assert model.logger.name_to_value == {} or "train/kl" not in model.logger.name_to_value


def test_iterations_draw_different_tasks_and_the_environments_play_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    played = []
    collect = model._sampler.collect

    def spy(policy: Any, parameters: Any, normalizer: Any, tasks: Any, *rest: Any) -> Any:
        rollouts = collect(policy, parameters, normalizer, tasks, *rest)
        positions = rollouts.observations[:, 0, 1].double().numpy()
        np.testing.assert_allclose(rollouts.rewards[:, 0, 0], -np.linalg.norm(positions - tasks, axis=-1), atol=1e-6)
        played.append(np.array(tasks))
        return rollouts

    monkeypatch.setattr(model._sampler, "collect", spy)
    monkeypatch.setattr(model, "_validate", lambda: None)
    model.learn(2)
    before_1, after_1, before_2, after_2 = played
    np.testing.assert_array_equal(before_1, after_1)
    np.testing.assert_array_equal(before_2, after_2)
    assert not np.array_equal(before_1, before_2)


def test_adapt_returns_a_policy_of_stable_baselines3_and_leaves_the_learner_alone() -> None:
    model = small().learn(1)
    before = {name: value.clone() for name, value in model.parameters.items()}
    task = metarl.sample_tasks(NAVIGATION, 1, seed=5)[0]
    adapted = model.adapt(task)
    assert same(before, model.parameters)
    env = metarl.make(NAVIGATION, task=task, max_episode_steps=10)
    mean, _ = evaluate_policy(adapted, env, n_eval_episodes=3, deterministic=False, warn=False)
    assert -20.0 < mean < 0.0
    moved = dict(adapted.named_parameters())
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    again, other = model.adapt(task), model.adapt(task, seed=9)
    assert torch.equal(again.action_net.weight, adapted.action_net.weight)
    assert not torch.equal(other.action_net.weight, adapted.action_net.weight)


def test_adapt_uses_the_step_size_and_halves_it_from_the_second_step_on() -> None:
    model = small()
    task = [0.4, -0.2]

    def moves(step_size: float) -> list[torch.Tensor]:
        learner = small(inner={"step_size": step_size})
        weights = [dict(learner.adapt(task, steps=k).named_parameters())["action_net.weight"] for k in range(2)]
        return [weights[1] - weights[0]]

    torch.testing.assert_close(moves(0.2)[0], 2 * moves(0.1)[0], rtol=1e-3, atol=1e-6)
    assert [model.step_size(k) for k in range(3)] == pytest.approx([0.1, 0.05, 0.05])


def test_adapt_takes_an_environment_whose_task_is_unknown() -> None:
    model = small()
    env = metarl.make(NAVIGATION, task=[0.5, 0.5], max_episode_steps=10)
    adapted = model.adapt(env, episodes=5, steps=2)
    assert not torch.equal(adapted.action_net.weight, model.policy.action_net.weight)
    with pytest.raises(ValueError, match="observation_space"):
        model.adapt(metarl.make("toy_families:toy/Sign-v0"))


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_an_adapted_policy_goes_on_learning_in_stable_baselines3(algorithm: Any) -> None:
    model = small().learn(1)
    task = [0.3, 0.2]
    ours = model.adapt(task)
    theirs = model.to_sb3(algorithm, task, n_steps=64)
    observation = np.array([0.1, 0.2], dtype=np.float32)
    expected, _ = ours.predict(observation, deterministic=True)
    np.testing.assert_array_equal(theirs.predict(observation, deterministic=True)[0], expected)
    assert torch.equal(theirs.policy.log_std, ours.log_std)
    theirs.learn(128)
    assert not np.array_equal(theirs.predict(observation, deterministic=True)[0], expected)
    env = metarl.make(NAVIGATION, task=task, max_episode_steps=10)
    assert -20.0 < evaluate_policy(theirs, env, n_eval_episodes=2, warn=False)[0] < 0.0
    start = model.to_sb3(algorithm, task, steps=0)
    np.testing.assert_array_equal(
        start.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
    with pytest.raises(ValueError, match="expected PPO or A2C"):
        model.to_sb3(SAC, task)
    with pytest.raises(ValueError, match="'net_arch', but the architecture is that of the adapted policy"):
        model.to_sb3(algorithm, task, policy_kwargs={"net_arch": [3]})
    other = model.to_sb3(algorithm, task, policy_kwargs={"optimizer_class": torch.optim.SGD})
    assert isinstance(other.policy.optimizer, torch.optim.SGD)


def test_the_value_function_that_goes_to_stable_baselines3_fits() -> None:
    model = small(family_kwargs={}, learning={"tasks": 3, "episodes": 20})
    task = [0.4, 0.4]
    ppo = model.to_sb3(PPO, task)
    again = model.to_sb3(PPO, task)
    assert torch.equal(ppo.policy.value_net.weight, again.policy.value_net.weight)
    env = metarl.make(NAVIGATION, task=task)
    values, returns = [], []
    for episode in range(5):
        observation, _ = env.reset(seed=episode)
        rewards: list[float] = []
        ended = False
        while not ended:
            values.append(float(ppo.policy.predict_values(ppo.policy.obs_to_tensor(observation)[0]).detach()))
            observation, reward, terminated, truncated, _ = env.step(ppo.predict(observation)[0])
            rewards.append(float(reward))
            ended = terminated or truncated
        # Truncated, not ended: the return goes on with the value, as in stable-baselines3.
        last = ppo.policy.obs_to_tensor(observation)[0]
        rewards[-1] += 0.99 * float(ppo.policy.predict_values(last).detach()) * truncated
        returns += [sum(0.99**k * reward for k, reward in enumerate(rewards[t:])) for t in range(len(rewards))]
    errors = np.square(np.array(returns) - np.array(values)).mean()
    assert errors < 0.15 * np.square(returns).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": [3.0, 0.0]}, "outside its space"),
        ({"task": [0.1]}, "has shape"),
        ({"task": [0.1, 0.1], "steps": -1}, "steps is -1"),
        ({"task": [0.1, 0.1], "episodes": 0}, "episodes is 0"),
    ],
)
def test_bad_arguments_of_adapt_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().adapt(arguments.pop("task"), **arguments)


def test_predict_is_the_policy_before_adaptation() -> None:
    model = small()
    observation = np.array([0.1, 0.2], dtype=np.float32)
    action, state = model.predict(observation, deterministic=True)
    expected = model._policy.distribution(model.parameters, torch.as_tensor(observation[None])).parameters[0]
    np.testing.assert_allclose(action, np.clip(expected.detach().numpy()[0], -1, 1), rtol=1e-5)
    assert state is None


def test_evaluate_does_not_depend_on_how_tasks_are_grouped() -> None:
    one = small().evaluate(n_tasks=7, steps=2)
    other = small(learning={"tasks": 5, "episodes": 4}).evaluate(n_tasks=7, steps=2)
    np.testing.assert_array_equal(one.returns, other.returns)
    assert one.returns.shape == (3, 7)
    assert not np.array_equal(one.returns, small().evaluate(n_tasks=7, steps=2, seed=8).returns)


def test_evaluation_reports_means_intervals_and_the_optimum() -> None:
    tasks = metarl.sample_tasks(NAVIGATION, 6, seed=1, split="test")
    evaluation = small().evaluate(n_tasks=6)
    results = evaluation.to_json()
    assert json.loads(json.dumps(results)) == results
    env = metarl.make(NAVIGATION, max_episode_steps=10)
    optimum = np.mean([env.get_wrapper_attr("oracle_return")(task) for task in tasks])
    assert results["oracle"] == pytest.approx(optimum)
    for entry in results["adaptation"]:
        assert entry["mean"] == pytest.approx(np.mean(entry["per_task"]))
        assert entry["low"] <= entry["mean"] <= entry["high"]
        assert entry["low"] < entry["high"]
    assert [entry["step"] for entry in results["adaptation"]] == [0, 1, 2]
    assert f"{results['oracle']:.2f}" in evaluation.table()


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    model = small().learn(2)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    assert (tmp_path / "model.zip").is_file()
    assert same(model.parameters, loaded.parameters)
    assert loaded.settings == model.settings
    assert (loaded.iteration, loaded.num_timesteps) == (2, model.num_timesteps)
    assert loaded.best is not None
    assert model.best is not None
    assert loaded.best.score == model.best.score
    assert same(model.learn(2).parameters, loaded.learn(2).parameters)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    small().save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert sorted(archive.namelist()) == ["state.json", "tensors.safetensors"]


def test_policy_arguments_of_stable_baselines3_are_kept(tmp_path: Path) -> None:
    kwargs = {"net_arch": {"pi": [6], "vf": [3]}, "activation_fn": torch.nn.GELU}
    model = small(policy_kwargs=kwargs).learn(1)
    model.save(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model")
    assert same(model.parameters, loaded.parameters)
    assert isinstance(loaded.policy.mlp_extractor.policy_net[1], torch.nn.GELU)


class Swish(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


def test_a_class_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    small(policy_kwargs={"activation_fn": Swish, "net_arch": [4]}).save(tmp_path / "model")
    with pytest.raises(ValueError, match="cannot keep activation_fn"):
        MAML.load(tmp_path / "model")
    loaded = MAML.load(tmp_path / "model", policy_kwargs={"activation_fn": Swish})
    assert isinstance(loaded.policy.mlp_extractor.policy_net[1], Swish)


def test_damaged_and_foreign_checkpoints_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with pytest.raises(ValueError, match="there is no checkpoint"):
        MAML.load(path)
    path.write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        MAML.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(ValueError, match="no checkpoint of metarl"):
        MAML.load(path)
    small().save(path)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            MAML.load(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        state, tensors = json.loads(archive.read("state.json")), archive.read("tensors.safetensors")
    for change, message in [
        ({"learner": "other"}, "learner 'other'"),
        ({"version": 99}, "version 99"),
        ({"settings": 3}, "damaged"),
        ({"format": "x"}, "no checkpoint"),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("state.json", json.dumps({**state, **change}))
            archive.writestr("tensors.safetensors", tensors)
        with pytest.raises(ValueError, match=message):
            MAML.load(path)
    state["settings"]["policy"]["hidden_sizes"] = [9]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.json", json.dumps(state))
        archive.writestr("tensors.safetensors", tensors)
    with pytest.raises(ValueError, match="do not fit"):
        MAML.load(path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        model.learn(1).save(tmp_path / "model")
    assert (tmp_path / "model.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


class Stop(BaseCallback):
    def _on_step(self) -> bool:
        return self.num_timesteps < 400


def test_callbacks_of_stable_baselines3_are_called_and_stop() -> None:
    seen = []

    def count(local: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(local["self"].iteration)
        return True

    assert small().learn(5, callback=[Stop()]).iteration == 2
    small().learn(2, callback=count)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inner": {"stepsize": 0.1}}, "'inner.step_size'"),
        ({"learning": {"tasks": 0}}, "learning.tasks is 0"),
        ({"learning": {"episodes": -3}}, "learning.episodes is -3"),
        ({"learning": 3}, "learning is 3; expected a table of settings"),
        ({"inner": {"step_size": float("nan")}}, "inner.step_size is nan"),
        ({"outer": {"max_kl": "much"}}, "outer.max_kl is 'much'"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "cuda:77"}, "device 'cuda:77' is not available"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"family": "metarl/Navigation2-v0"}, "metarl/Navigation2D-v0"),
        ({"family_kwargs": {"speed": 3}}, "speed"),
        (
            {"family_kwargs": {"speed": print}},
            "speed is <built-in function print>; expected numbers, text",
        ),
        ({"policy_kwargs": {"log_std_init": -2.0}}, "log_std_init is -2.0, below its floor"),
        ({"policy_kwargs": {"hidden_sizes": (0,)}}, "hidden_sizes.0 is 0"),
        ({"policy": "Mlp"}, "policy.name is 'Mlp'"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(**{"policy": "MlpPolicy", "family": NAVIGATION, **arguments})


@pytest.mark.parametrize("arguments", [{"iterations": 0}, {"total_timesteps": -1}, {"iterations": 1.5}])
def test_bad_counts_of_learn_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        small().learn(**arguments)


def test_tensorboard_runs_are_numbered(tmp_path: Path) -> None:
    for _ in range(2):
        small(tensorboard_log=str(tmp_path)).learn(1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MAML_1", "MAML_2"]
    model = small(tensorboard_log=str(tmp_path))
    for name, new in (("one", True), ("one", False), ("one", True), ("two", True)):
        model.learn(1, tb_log_name=name, reset_num_timesteps=new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MAML_1", "MAML_2", "one_1", "one_2", "two_1"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_learning_on_a_gpu_comes_close_to_the_cpu() -> None:
    one, other = small(device="cpu").learn(1), small(device="cuda").learn(1)
    for name, value in one.parameters.items():
        torch.testing.assert_close(other.parameters[name].cpu(), value, rtol=1e-2, atol=1e-3)
