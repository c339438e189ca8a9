"""Statistics of episodes, and bootstrap intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from samples import make_policy, make_rollouts
from small import SIGN, small
from stable_baselines3.common.logger import KVWriter, Logger

from metarl.agents import Rollouts
from metarl.learners.registry import find_learner
from metarl.statistics import STATISTICS, bootstrap_interval, episode_return, episode_success


def test_the_interval_is_repeatable_and_close_to_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_equal_values_have_no_width() -> None:
    assert bootstrap_interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_it_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = [low <= 0.0 <= high for low, high in (bootstrap_interval(rng.normal(size=40)) for _ in range(200))]
    assert 0.88 <= np.mean(hits) <= 0.99


NONE = float("nan")


def told(**infos: list[list[float]]) -> Rollouts:
    """Return two episodes of one task, of four steps each, with numbers of ``info``."""
    rollouts = make_rollouts(make_policy(), tasks=1, episodes=2, steps=4)
    return replace(rollouts, infos={name: torch.tensor([values]) for name, values in infos.items()})


def test_the_return_of_an_episode_is_that_of_the_steps_that_ran() -> None:
    rollouts = make_rollouts(make_policy())
    expected = (rollouts.rewards * rollouts.mask).sum(dim=2)
    torch.testing.assert_close(episode_return(rollouts), expected)
    torch.testing.assert_close(episode_return(rollouts).mean(dim=1), rollouts.returns())


@pytest.mark.parametrize(
    ("infos", "expected"),
    [
        ({"success": [[0, 1, 0, 0], [0, 0, 0, 0]]}, [1, 0]),  # at any step
        ({"success": [[0, 0, 0, 1], [1, NONE, NONE, NONE]]}, [1, 1]),
        ({"is_success": [[NONE, NONE, 0, NONE], [NONE, 1, NONE, NONE]]}, [0, 1]),
        ({"success": [[0, 0, 0, 0], [0, 1, 0, 0]], "is_success": [[0, 0, 1, 0], [0, 0, 0, 0]]}, [1, 1]),
        ({"success": [[0, 0, 0, 0]] * 2, "is_success": [[NONE] * 4] * 2}, [0, 0]),
        ({"success": [[NONE] * 4, [NONE, 0, NONE, NONE]]}, [0, 0]),
    ],
)
def test_an_episode_succeeds_where_info_tells_of_it_at_any_step(
    infos: dict[str, list[list[float]]], expected: list[float]
) -> None:
    found = episode_success(told(**infos))
    assert found is not None
    assert found.tolist() == [expected]


@pytest.mark.parametrize("infos", [{}, {"success": [[NONE] * 4] * 2}, {"other": [[1.0] * 4] * 2}])
def test_nothing_is_said_of_success_where_no_info_tells_of_it(infos: dict[str, list[list[float]]]) -> None:
    assert episode_success(told(**infos)) is None


class Values(KVWriter):
    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.found |= key_values

    def close(self) -> None:
        pass


def validated(model: Any) -> dict[str, Any]:
    """Return what a learner records in an iteration with validation."""
    values = Values()
    model.set_logger(Logger(None, [values]))
    model.learn(iterations=1)
    return values.found


@pytest.mark.parametrize("name", ["success", "is_success"])
def test_success_is_in_table_json_and_validation(name: str) -> None:
    model = small(family="toy_families:toy/TellsOfSuccess-v0", family_kwargs={"name": name})
    tasks = np.array([[0.5], [-0.5], [0.25]], dtype=np.float32)
    evaluation = model.evaluate(tasks=tasks, steps=1)
    np.testing.assert_array_equal(evaluation.statistics["success"], [[1, 0, 1]] * 2)
    for entry in evaluation.to_json()["adaptation"]:
        assert entry["success"]["per_task"] == [1.0, 0.0, 1.0]
        assert entry["success"]["mean"] == pytest.approx(2 / 3)
        assert entry["success"]["low"] <= 2 / 3 <= entry["success"]["high"]
        assert entry["per_task"] != entry["success"]["per_task"]
    (columns,) = [line for line in evaluation.table().splitlines() if line.startswith("adaptation steps")]
    assert columns.split()[2:] == ["return", "interval", "success", "interval"]
    assert evaluation.table().count(" 0.67 ") == 2
    recorded = validated(model)
    share = float(np.mean([task[0] > 0 for task in model.evaluate_rollouts("validation")[1]]))
    assert [recorded[f"validation/success_step_{step}"] for step in range(3)] == [share] * 3


def test_a_family_that_tells_nothing_of_success_has_no_column_for_it() -> None:
    model = small(family=SIGN)
    evaluation = model.evaluate(n_tasks=2)
    assert list(evaluation.statistics) == ["length"]
    assert "success" not in evaluation.table()
    assert all("success" not in entry for entry in evaluation.to_json()["adaptation"])
    assert not any("success" in tag for tag in validated(model))


@pytest.mark.parametrize("learner", ["maml", "scratch", "random"])
def test_a_further_statistic_is_in_table_json_and_validation(learner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATISTICS, "doubled", lambda rollouts: 2 * rollouts.mask.sum(dim=2))
    model = small(find_learner(learner), family=SIGN)
    evaluation = model.evaluate(n_tasks=2, steps=1)
    np.testing.assert_array_equal(evaluation.statistics["doubled"], np.full((2, 2), 6.0))
    assert [entry["doubled"]["mean"] for entry in evaluation.to_json()["adaptation"]] == [6.0, 6.0]
    assert "doubled" in evaluation.table()
    assert validated(model)["validation/doubled_step_0"] == 6.0
