"""Schedules of step sizes: their values, the same spelling everywhere, and the same bits after an interruption."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import same, small
from stable_baselines3.common.callbacks import BaseCallback

from metarl import MAML
from metarl.experiments.configuration import parse_override, read_configuration, to_toml
from metarl.learners.registry import load_learner, read_settings
from metarl.training.schedules import Horizon, Schedule

LINEAR = {"start": 0.2, "end": 0.05, "schedule": "linear"}
RATE = {"start": 0.02, "end": 0, "schedule": "cosine"}


def halving(remaining: float) -> float:
    return 0.1 * 0.5 ** (1.0 - remaining)


class Values(BaseCallback):
    """Keeps the step sizes in force in each iteration, and stops after some."""

    def __init__(self, stop_after: int = 1000) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.inner: list[float] = []
        self.outer: list[float] = []

    def _on_step(self) -> bool:
        settings = self.model.settings  # type: ignore[attr-defined]
        self.inner.append(settings.inner.step_size)
        self.outer.append(getattr(settings.outer, "learning_rate", 0.0))
        return len(self.inner) < self.stop_after


def test_a_schedule_goes_from_start_to_end() -> None:
    linear = Schedule(start=1e-3, end=1e-5, schedule="linear")
    cosine = Schedule(start=1.0, end=0.0, schedule="cosine")
    assert [linear.value(1.0), linear.value(0.0)] == [1e-3, 1e-5]
    assert linear.value(0.75) == pytest.approx(1e-5 + 0.75 * (1e-3 - 1e-5))
    assert [cosine.value(1.0), cosine.value(0.0)] == [1.0, 0.0]
    assert cosine.value(0.75) == pytest.approx((1 + np.cos(np.pi / 4)) / 2)


def test_what_remains_of_the_training() -> None:
    horizon = Horizon().following(0, 0, 5, None, new=True)
    assert [horizon.remaining(iteration, 0) for iteration in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    steps = Horizon().following(3, 100, None, 500, new=True)
    assert [steps.remaining(9, timesteps) for timesteps in (100, 200, 500, 600)] == [1.0, 0.75, 0.0, 0.0]
    both = Horizon().following(0, 0, 5, 100, new=True)
    assert both.remaining(1, 90) == pytest.approx(0.1)
    again, further = (horizon.following(5, 0, 10, None, new=new) for new in (True, False))
    assert again.remaining(5, 0) == 1.0
    assert further.remaining(5, 0) == pytest.approx(4 / 9)
    assert horizon.following(2, 0, 5, None, new=True) == horizon, "an interrupted call goes on"


@pytest.mark.parametrize(
    ("learner", "sections"),
    [
        ("maml", {"inner": {"step_size": LINEAR}, "outer": {"update": "vpg", "learning_rate": RATE}}),
        ("promp", {"inner": {"step_size": LINEAR}, "outer": {"learning_rate": RATE, "epochs": 2}}),
        ("reptile", {"inner": {"step_size": halving, "steps": 2}, "outer": {"learning_rate": RATE}}),
        ("pretrained", {"outer": {"learning_rate": RATE}}),
        ("multi-task", {"outer": {"learning_rate": RATE, "weight_step_size": LINEAR, "components": 2}}),
        ("task-aware", {"outer": {"learning_rate": RATE}}),
    ],
)
def test_an_interrupted_training_ends_with_the_same_bits(learner: str, sections: Any, tmp_path: Path) -> None:
    values = Values()
    whole = small(learner, **sections).learn(iterations=4, callback=values)
    constant = {
        name: {key: value if isinstance(value, int | str) else 0.02 for key, value in section.items()}
        for name, section in sections.items()
    }
    assert not same(whole.parameters, small(learner, **constant).learn(iterations=4).parameters), "it has no effect"
    assert values.outer[0] == 0.02
    assert values.outer[-1] == 0.0
    assert values.outer == sorted(values.outer, reverse=True)
    half = small(learner, **sections).learn(iterations=4, callback=Values(stop_after=2))
    half.save(tmp_path / "half")
    for options in ({}, {"reset_num_timesteps": False}):
        resumed = load_learner(tmp_path / "half")
        assert resumed.settings.outer.learning_rate == half.settings.outer.learning_rate == values.outer[1]
        resumed.learn(iterations=2, **options)
        assert same(resumed.parameters, whole.parameters)
        assert resumed.given_settings == whole.given_settings


def test_environment_steps_can_be_the_limit(tmp_path: Path) -> None:
    values = Values()
    model = small(inner={"step_size": LINEAR}).learn(total_timesteps=700, callback=values)
    assert values.inner[0] == 0.2
    assert values.inner == sorted(values.inner, reverse=True)
    assert 0.05 < values.inner[-1] < values.inner[1]
    model.save(tmp_path / "model")
    assert MAML.load(tmp_path / "model").settings == model.settings


def test_adaptation_and_evaluation_use_the_step_size_of_the_iteration(tmp_path: Path) -> None:
    model = small(inner={"step_size": LINEAR}).learn(iterations=3)
    assert model.step_size(model.state, 0) == 0.05
    plain = small(inner={"step_size": 0.05})
    plain.state = model.state
    np.testing.assert_array_equal(model.evaluate().returns, plain.evaluate().returns)
    model.save_best(tmp_path / "best")
    best = MAML.load(tmp_path / "best")
    expected = LINEAR["start"] - (best.iteration - 1) / 2 * 0.15  # type: ignore[operator]
    assert best.settings.inner.step_size == pytest.approx(expected)
    adapter = model.adapter(model.env, episodes=2)
    for _ in range(2):
        adapter.play()
    moved = adapter.policy.action_net.weight
    other = model.adapter(model.env, episodes=2)
    model.learn(iterations=1)  # begins a new schedule, with the step size 0.2
    for _ in range(2):
        other.play()
    assert (moved == other.policy.action_net.weight).all(), "later training affects an adapter"


def test_the_spelling_is_the_same_everywhere(tmp_path: Path) -> None:
    text = 'inner.step_size={start = 0.2, end = 0.05, schedule = "linear"}'
    _, settings = read_configuration("navigation", [parse_override(text)])
    assert settings.inner.step_size == small(inner={"step_size": LINEAR}).given_settings.inner.step_size
    path = tmp_path / "again.toml"
    path.write_text(to_toml(settings))
    assert read_configuration(str(path), [])[1] == settings
    named = small(inner={"step_size": "math:exp"}).given_settings
    assert read_settings({"inner": {"step_size": "math:exp"}}).inner == named.inner
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings


def test_a_function_is_kept_by_its_place(tmp_path: Path) -> None:
    values = Values()
    small(inner={"step_size": np.exp2}).close()  # a callable that is no Python function
    model = small(inner={"step_size": "small:falling"}).learn(iterations=3, callback=values)
    assert values.inner == pytest.approx([0.2, 0.15, 0.1])
    model.save(tmp_path / "model")
    assert MAML.load(tmp_path / "model").settings.inner.step_size == pytest.approx(0.1)


class OwnCalls:
    def rate(self, remaining: float) -> float:
        return remaining + 0.1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda remaining: 0.1, r"inner.step_size is '<lambda>|inner.step_size is '.*<lambda>'"),
        (OwnCalls().rate, "which a checkpoint cannot keep"),
        ({"start": 0.1, "schedule": "linear"}, "a schedule with no 'end'"),
        ({**LINEAR, "stop": 1.0}, "an unknown 'stop'"),
        ({**LINEAR, "schedule": "step"}, "inner.step_size.schedule is 'step'; expected 'linear' or 'cosine'"),
        ({**LINEAR, "end": 0.0}, "is 0 where 0 of the training remains"),
        ({**LINEAR, "start": -1}, "inner.step_size.start is -1"),
        ({**LINEAR, "end": float("nan")}, "inner.step_size.end is nan"),
        ({**LINEAR, "end": True}, "inner.step_size.end is True"),
        ("no_such_module:rate", "cannot be imported"),
        ("math:pi", "which is a float; expected a function"),
        ("operator:index", "the step size operator:index cannot be computed where 1 of the training remains"),
        ("small:negative", "is -0.5 where 0.5 of the training remains"),
        ("large", "inner.step_size is 'large'; expected a number above 0, or a schedule"),
    ],
)
def test_what_is_no_schedule_is_refused_in_a_sentence(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(inner={"step_size": value})


def test_all_faults_are_named_together_and_other_settings_take_no_schedule() -> None:
    with pytest.raises(ValueError, match=r"inner.step_size.end is -1.*learning.tasks is 0"):
        small(inner={"step_size": {**LINEAR, "end": -1}}, learning={"tasks": 0})
    with pytest.raises(ValueError, match=r"outer.max_kl is"):
        small(outer={"max_kl": LINEAR})
    with pytest.raises(ValueError, match="meta-sgd learns its step sizes"):
        small("meta-sgd", inner={"step_size": LINEAR})


def test_the_values_in_force_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    small(inner={"step_size": LINEAR}, verbose=1).learn(iterations=2)
    lines = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines() if "inner_step_size" in line]
    assert [float(line) for line in lines] == [0.2, 0.05]
    small(verbose=1).learn(iterations=1)
    assert "step_size" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["linear", "{start=0.1,end=0.05,schedule=cosine}", "0.1"])
def test_a_text_that_is_no_schedule_is_told_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number above 0, or a schedule as \{start = .*single quotes"):
        small(inner={"step_size": text})
