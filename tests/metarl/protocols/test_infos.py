"""What infos tell: success at any step or the last, entries by name, and the choice of the best parameters by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from samples import make_policy, make_rollouts
from small import SIGN, remembering, small
from stable_baselines3.common.logger import KVWriter, Logger

from metarl.agents import join_episodes
from metarl.statistics import episode_info, episode_success

SPEED = "toy_families:toy/TellsOfSpeed-v0"
SUCCESS = "toy_families:toy/TellsOfSuccess-v0"
TASKS = np.array([[0.5], [-0.5]], dtype=np.float32)
NONE = float("nan")


@pytest.mark.parametrize(
    ("values", "any_step", "last"),
    [
        ([0, 1, 0, 0], 1, 0),
        ([0, 0, 0, 1], 1, 1),
        ([0, 1, NONE, NONE], 1, 1),  # the episode ended after its second step
        ([1, 0, NONE, NONE], 1, 0),
        ([NONE, NONE, NONE, NONE], 0, 0),
    ],
)
def test_success_is_told_at_any_step_or_the_last(values: list[float], any_step: float, last: float) -> None:
    rollouts = make_rollouts(make_policy(), tasks=1, episodes=2, steps=4)
    told = replace(rollouts, infos={"success": torch.tensor([[values, [0.0, 0.0, 0.0, 0.0]]])})
    for when, expected in (("any", any_step), ("last", last)):
        found = episode_success(told, when)  # type: ignore[arg-type]
        assert found is not None
        assert found.tolist() == [[expected, 0.0]]


def test_the_mean_over_an_episode_is_over_the_steps_that_told() -> None:
    rollouts = make_rollouts(make_policy(), tasks=1, episodes=2, steps=4)
    told = replace(rollouts, infos={"speed": torch.tensor([[[1.0, 3.0, NONE, NONE], [1.0, 2.0, 3.0, 4.0]]])})
    found = episode_info(told, "speed")
    assert found is not None
    assert found.tolist() == [[2.0, 2.5]]
    assert episode_info(told, "height") is None


def test_episodes_of_other_lengths_that_are_joined_tell_the_same() -> None:
    short, long = (make_rollouts(make_policy(), tasks=1, episodes=1, steps=steps) for steps in (2, 4))
    parts = [
        replace(short, infos={"success": torch.tensor([[[0.0, 1.0]]])}),
        replace(long, infos={"success": torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])}),
    ]
    joined = join_episodes(parts)
    found, means = episode_success(joined, "last"), episode_info(joined, "success")
    assert found is not None
    assert means is not None
    assert found.tolist() == [[1.0, 1.0]]
    assert means.tolist() == [[0.5, 0.25]]


@pytest.mark.parametrize("make", [small, remembering], ids=["steps", "memory"])
def test_entries_of_info_are_recorded_by_name(make: Any) -> None:
    model = make(family=SPEED, evaluation={"record": ["speed"], "success": "last"})
    found = model.evaluate(tasks=TASKS, episodes=2, steps=1)
    # Three steps: 1, 2, 3 times the task.
    np.testing.assert_allclose(found.statistics["speed"], [[1.0, -1.0]] * 2)
    np.testing.assert_array_equal(found.statistics["success"], np.zeros((2, 2)))
    assert "speed" in found.table()
    assert found.to_json()["units"]["speed"] == "mean over an episode of 'speed' in info"
    assert found.to_json()["adaptation"][0]["speed"]["per_task"] == [1.0, -1.0]
    assert set(found.to_frame()["speed"]) == {1.0, -1.0}
    any_step = make(family=SPEED).evaluate(tasks=TASKS, episodes=2, steps=1)
    np.testing.assert_array_equal(any_step.statistics["success"], np.ones((2, 2)))
    assert "speed" not in any_step.metrics


def test_a_name_that_no_info_has_is_one_sentence_before_training() -> None:
    with pytest.raises(ValueError, match=r"evaluation\.record names 'sped', but no info of .*'speed'") as caught:
        small(family=SPEED, evaluation={"record": ["sped"]}).learn(iterations=1)
    assert "\n" not in str(caught.value)
    for name in ("word", "height"):
        model = small(family=SPEED, evaluation={"record": ["speed", name]})
        with pytest.raises(ValueError, match=f"names '{name}'"):
            model.evaluate()
    with pytest.raises(ValueError, match="names 'length', which is measured anyway"):
        small(evaluation={"record": ["length"]}).evaluate()
    with pytest.raises(ValueError, match="it tells no numbers"):
        small(family=SIGN, evaluation={"record": ["speed"]}).evaluate()
    with pytest.raises(ValueError, match=r"evaluation\.best is 'success', but no info"):
        small(family=SIGN, evaluation={"best": "success"}).learn(iterations=1)


class Values(KVWriter):
    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.found.append(dict(key_values))

    def close(self) -> None:
        pass


def trained(**evaluation: Any) -> tuple[Any, list[dict[str, Any]]]:
    model = small(family=SUCCESS, family_kwargs={"name": "is_success"}, evaluation=evaluation)
    values = Values()
    model.set_logger(Logger(None, [values]))
    model.learn(iterations=2)
    return model, values.found


def test_success_is_recorded_in_training_and_validation() -> None:
    _, found = trained()
    for values in found:
        assert {"rollout/success_step_0", "rollout/success_step_1", "validation/success_step_2"} <= set(values)
        assert 0.0 <= values["rollout/success_step_0"] <= 1.0
    _, found = trained(success="last")
    assert all(values["validation/success_step_1"] == 0.0 for values in found), "it is told in the second of three"


def test_the_best_parameters_are_chosen_by_what_is_asked() -> None:
    by_return, returns = trained()
    by_success, successes = trained(best="success")
    assert by_return.best.score == pytest.approx(
        max(np.mean([values[f"validation/return_step_{step}"] for step in (1, 2)]) for values in returns)
    )
    assert by_success.best.score == pytest.approx(
        max(np.mean([values[f"validation/success_step_{step}"] for step in (1, 2)]) for values in successes)
    )
    assert 0.0 <= by_success.best.score <= 1.0
    # Success depends on the task only, so no later iteration is better than the first.
    assert by_success.best.state.iteration == 1


def test_the_progress_tells_of_success(capsys: pytest.CaptureFixture[str]) -> None:
    model = small(family=SUCCESS)
    model.learn(iterations=1, progress_bar=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iteration 1 of 1")]
    assert "return before" in line
    assert "; success before" in line
    assert line.rstrip().endswith("%")
