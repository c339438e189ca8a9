"""The face of a learner: learn, its counts and callbacks, and settings that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import NAVIGATION, SIGN, same, small
from stable_baselines3.common.callbacks import BaseCallback

import metarl
from metarl import MAML
from metarl.agents import Rollouts
from metarl.learners.registry import load_learner


def test_learning_changes_parameters_and_is_repeatable() -> None:
    one, other, third = (small(family=SIGN, seed=seed).learn(iterations=3) for seed in (1, 1, 2))
    assert same(one.parameters, other.parameters)
    assert not same(one.parameters, small(family=SIGN).parameters)
    assert not same(one.parameters, third.parameters)
    assert one.iteration == 3
    assert one.num_timesteps == 3 * 2 * 3 * 4 * 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ELU])  # by hand, and by autograd
def test_a_callers_no_grad_changes_nothing(mode: Any, activation: type[torch.nn.Module]) -> None:
    kwargs = {"activation_fn": activation}
    plain, inside = small(policy_kwargs=kwargs).learn(iterations=1), small(policy_kwargs=kwargs)
    with mode():
        inside.learn(iterations=1)
        task = np.array([0.3, -0.2])
        adapted = inside.adapt(task, steps=2)
    assert same(inside.parameters, plain.parameters)
    assert same(dict(adapted.state_dict()), dict(plain.adapt(task, steps=2).state_dict()))
    assert same(
        inside.learn(iterations=1, reset_num_timesteps=False).parameters,
        plain.learn(iterations=1, reset_num_timesteps=False).parameters,
    )


def test_learning_in_two_parts_equals_learning_in_one() -> None:
    whole, parts = (
        small().learn(iterations=4),
        small().learn(iterations=2).learn(iterations=2, reset_num_timesteps=False),
    )
    assert same(whole.parameters, parts.parameters)
    assert whole.num_timesteps == parts.num_timesteps


def test_total_timesteps_stops_after_the_iteration_that_reaches_them() -> None:
    model = small(family=SIGN, evaluation={"every": 2}).learn(total_timesteps=73)
    assert model.num_timesteps == 144
    assert model.best is not None
    assert model.best.state.iteration == 2
    # As in stable-baselines3: more steps, counted from where it stands.
    assert model.learn(total_timesteps=50, reset_num_timesteps=False).num_timesteps == 216
    assert model.learn(total_timesteps=50).num_timesteps == 72
    assert model.learn(iterations=1, total_timesteps=1000).num_timesteps == 72
    with pytest.warns(UserWarning, match="an iteration plays 72 environment steps, more than total_timesteps = 10"):
        model.learn(total_timesteps=10)


@pytest.mark.parametrize("steps", [1, 3])
def test_several_inner_steps_train(steps: int) -> None:
    model = small(family=SIGN, inner={"steps": steps}).learn(iterations=2)
    assert model.num_timesteps == 2 * (steps + 1) * 3 * 4 * 3
    assert not same(model.parameters, small(family=SIGN).parameters)


def test_where_the_line_search_fails_parameters_stay_and_it_is_counted() -> None:
    # Every candidate of so short a search with so long a first step breaks the bound or worsens the gain.
    model = small(outer={"max_kl": 1e8, "line_search_steps": 1}).learn(iterations=1)
    assert model.state.line_search_failures == 1
    assert same(model.parameters, small().parameters)
    assert model.logger.name_to_value == {} or "train/kl" not in model.logger.name_to_value


class Watched(MAML):
    """Keeps the tasks and rollouts of each collection."""

    def collect(self, *arguments: Any, **named: Any) -> Rollouts:
        rollouts = super().collect(*arguments, **named)
        self.seen = [*getattr(self, "seen", []), (arguments[2], rollouts)]
        return rollouts


def test_iterations_draw_different_tasks_and_the_environments_play_them() -> None:
    model = small(Watched, evaluation={"every": 1000}).learn(iterations=2)
    for tasks, rollouts in model.seen[:4]:
        positions = rollouts.observations[:, 0, 1].double().numpy()
        np.testing.assert_allclose(rollouts.rewards[:, 0, 0], -np.linalg.norm(positions - tasks, axis=-1), atol=1e-6)
    before_1, after_1, before_2, after_2 = (np.array(tasks) for tasks, _ in model.seen[:4])
    np.testing.assert_array_equal(before_1, after_1)
    np.testing.assert_array_equal(before_2, after_2)
    assert not np.array_equal(before_1, before_2)


class Stop(BaseCallback):
    def _on_step(self) -> bool:
        return self.num_timesteps < 300


def test_callbacks_of_stable_baselines3_are_called_and_stop() -> None:
    seen = []

    def count(local: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(local["self"].iteration)
        return True

    assert small().learn(iterations=5, callback=[Stop()]).iteration == 2
    small().learn(iterations=2, callback=count)
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
        ({"policy": "Mlp"}, "unknown policy 'Mlp'; expected one of MlpPolicy"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAML(**{"policy": "MlpPolicy", "family": NAVIGATION, **arguments})


@pytest.mark.parametrize("arguments", [{"iterations": 0}, {"total_timesteps": -1}, {"iterations": 1.5}])
def test_bad_counts_of_learn_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        small().learn(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"total_timesteps": 1.5}, {"total_timesteps": "many"}, {"total_timesteps": True}]
)
def test_environment_steps_are_whole_numbers(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"total_timesteps is .*; expected a whole number of at least 1"):
        small().learn(**arguments)


def test_environment_steps_may_be_written_as_in_stable_baselines3() -> None:
    whole, written = small().learn(total_timesteps=300), small().learn(total_timesteps=3e2)
    assert written.num_timesteps == whole.num_timesteps >= 300
    assert same(whole.parameters, written.parameters)
    with pytest.raises(ValueError, match=r"iterations is 2\.0; expected a whole number"):
        small().learn(iterations=2.0)


def test_what_learn_counts_has_to_be_named() -> None:
    model = small()
    with pytest.raises(TypeError, match=r"learn has no argument 'iteration'; the nearest is 'iterations'"):
        small().learn(iteration=2)
    with pytest.raises(TypeError, match=r"learn has no argument 'zzz'; expected iterations, tasks, total_timesteps"):
        small().learn(zzz=2)
    with pytest.raises(TypeError, match=r"write learn\(iterations=100000\) or learn\(total_timesteps=100000\)"):
        model.learn(100_000)
    assert model.iteration == 0


def test_tensorboard_runs_are_numbered(tmp_path: Path) -> None:
    for _ in range(2):
        small(tensorboard_log=str(tmp_path)).learn(iterations=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MAML_1", "MAML_2"]
    model = small(tensorboard_log=str(tmp_path))
    for name, new in (("one", True), ("one", False), ("one", True), ("two", True)):
        model.learn(iterations=1, tb_log_name=name, reset_num_timesteps=new)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MAML_1", "MAML_2", "one_1", "one_2", "two_1"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_learning_on_a_gpu_comes_close_to_the_cpu() -> None:
    one, other = small(device="cpu").learn(iterations=1), small(device="cuda").learn(iterations=1)
    for name, value in one.parameters.items():
        torch.testing.assert_close(other.parameters[name].cpu(), value, rtol=1e-2, atol=1e-3)


def test_results_count_the_steps_of_all_calls(tmp_path: Path) -> None:
    model = small(family=SIGN).learn(iterations=2).learn(iterations=1)
    model.save(tmp_path / "model")
    loaded = load_learner(tmp_path / "model").learn(iterations=1)
    assert (model.num_timesteps, loaded.num_timesteps) == (72, 72)  # stable-baselines3's count begins anew
    assert [one.evaluate(n_tasks=2).timesteps for one in (model, loaded)] == [216, 288]


def test_tasks_to_evaluate_may_come_first() -> None:
    model, tasks = small(family=SIGN), metarl.sample_tasks(SIGN, 3)
    assert np.array_equal(model.evaluate(tasks).returns, model.evaluate(tasks=tasks).returns)
