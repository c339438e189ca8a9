"""What an evaluation keeps: every episode, and what was seen of each task before; files, tables, several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import LENGTHS_DIFFER, NAVIGATION, SHORT, remembering, small

import metarl
from metarl.results import Evaluation, combine
from metarl.results.document import text_of
from metarl.results.selection import region


@pytest.fixture(scope="module")
def one() -> Evaluation:
    found: Evaluation = small(family=LENGTHS_DIFFER, learning={"tasks": 2}).evaluate(n_tasks=5, episodes=3, steps=2)
    return found


def test_every_episode_is_kept_and_the_returns_are_their_means() -> None:
    model = small(family=LENGTHS_DIFFER)
    evaluation, _, rollouts = model.evaluate_rollouts("test", n_tasks=3, episodes=4, steps=2)
    assert {name: values.shape for name, values in evaluation.metrics.items()} == {
        "return": (1, 3, 3, 4), "length": (1, 3, 3, 4),
    }  # fmt: skip
    for point, part in enumerate(rollouts):
        np.testing.assert_array_equal(evaluation.metrics["return"][0, :, point], part.episode_returns().numpy())
        np.testing.assert_array_equal(evaluation.returns[point], part.returns().double().numpy())
        np.testing.assert_array_equal(evaluation.metrics["length"][0, :, point], part.mask.sum(dim=2).numpy())


def test_what_was_seen_before_is_counted_in_episodes_and_steps(one: Evaluation) -> None:
    np.testing.assert_array_equal(one.episodes_before, np.broadcast_to([0.0, 3.0, 6.0], (1, 5, 3)))
    lengths = one.metrics["length"].sum(axis=3)
    assert len(np.unique(lengths)) > 1
    assert one.steps_before is not None
    np.testing.assert_array_equal(one.steps_before[..., 0], np.zeros((1, 5)))
    np.testing.assert_array_equal(one.steps_before[..., 1], lengths[..., 0])
    np.testing.assert_array_equal(one.steps_before[..., 2], lengths[..., 0] + lengths[..., 1])


def test_with_memory_experience_is_that_of_a_trial() -> None:
    evaluation = remembering(family=LENGTHS_DIFFER).evaluate(n_tasks=3, episodes=4, steps=2)
    np.testing.assert_array_equal(evaluation.episodes_before, np.broadcast_to([0.0, 1.0, 2.0], (1, 3, 3)))
    lengths = evaluation.metrics["length"].astype(np.float64).mean(axis=3)
    assert evaluation.steps_before is not None
    np.testing.assert_allclose(evaluation.steps_before[..., 2], lengths[..., 0] + lengths[..., 1])


def test_the_tasks_are_written_down() -> None:
    evaluation = small().evaluate(n_tasks=4, seed=9)
    (run,) = evaluation.runs
    drawn = metarl.sample_tasks(NAVIGATION, 4, seed=9, split="test", **SHORT)
    assert run.tasks is not None
    np.testing.assert_array_equal(np.array(run.tasks, dtype=np.float32), np.stack(list(drawn)))
    assert (run.seed, run.evaluation_seed) == (1, 9)


def test_a_file_gives_the_same_evaluation_to_the_bit(one: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text_of(one.to_json()))
    for again in (Evaluation.read(path), Evaluation.read(tmp_path)):
        assert again.to_json() == one.to_json()
        for name, values in one.metrics.items():
            np.testing.assert_array_equal(again.metrics[name], values)
            assert again.metrics[name].dtype == np.float32
        np.testing.assert_array_equal(again.returns, one.returns)
        assert again.table() == one.table()
        assert (again.runs[0].tasks, again.trained, again.points) == (one.runs[0].tasks, one.trained, one.points)
    assert max(map(len, path.read_text().splitlines())) < 2000, "a person can look at the file"


def test_a_frame_has_a_row_for_each_episode(one: Evaluation) -> None:
    frame = one.to_frame()
    assert len(frame) == 5 * 3 * 3
    assert set(frame["seed"]) == {1}
    row = frame[(frame["task"] == 3) & (frame["point"] == 2) & (frame["episode"] == 1)].iloc[0]
    assert row["return"] == one.metrics["return"][0, 3, 2, 1]
    assert row["length"] == one.metrics["length"][0, 3, 2, 1]
    assert one.steps_before is not None
    assert (row["episodes_before"], row["steps_before"]) == (6, one.steps_before[0, 3, 2])
    means = frame.groupby("point")["return"].mean()
    np.testing.assert_allclose(means, one.returns.mean(axis=1), rtol=1e-6)


def seeds(*numbers: int, **changes: Any) -> list[Evaluation]:
    return [small(seed=number, **changes).evaluate(n_tasks=4) for number in numbers]


def test_seeds_are_put_together(tmp_path: Path) -> None:
    parts = seeds(1, 2, 3, evaluation={"seed": "run"})
    together = combine(parts)
    assert together.seeds == (1, 2, 3)
    assert together.metrics["return"].shape == (3, 4, 3, 2)
    np.testing.assert_array_equal(together.means()[1], parts[1].means()[0])
    np.testing.assert_array_equal(together.returns, np.concatenate([part.returns for part in parts], axis=1))
    results = together.to_json()
    assert results["seeds"] == [1, 2, 3]
    assert "over seeds and tasks" in results["statistic"]
    assert results["adaptation"][0]["tasks"] == 12
    assert "3 seeds and their tasks" in together.table()
    (tmp_path / "results.json").write_text(text_of(results))
    assert Evaluation.read(tmp_path).to_json() == results
    assert combine(parts[:1]) is parts[0]
    assert set(together.to_frame()["seed"]) == {1, 2, 3}
    assert not together.has_same_tasks


def test_a_single_seed_says_so() -> None:
    (one,) = seeds(1)
    assert "over tasks of one seed" in one.table()
    assert "over tasks of one seed" in one.to_json()["statistic"]


def test_seeds_on_the_same_tasks_have_the_interval_of_common_tasks() -> None:
    together = combine(seeds(1, 2, evaluation={"seed": 7}))
    assert together.has_same_tasks
    assert {run.evaluation_seed for run in together.runs} == {7}
    own = combine(seeds(1, 2, evaluation={"seed": "run"}))
    assert own.runs[0].tasks != own.runs[1].tasks


def test_only_what_differs_by_seeds_is_put_together() -> None:
    one, again = seeds(1, 1)
    with pytest.raises(ValueError, match="two of the evaluations are of seed 1"):
        combine([one, again])
    with pytest.raises(ValueError, match="the learner of one evaluation is 'maml' and that of another 'scratch'"):
        combine([one, small("scratch", seed=2).evaluate(n_tasks=4)])
    with pytest.raises(ValueError, match="4 and 3 tasks"):
        combine([one, small(seed=2).evaluate(n_tasks=3)])
    with pytest.raises(ValueError, match="no evaluation to combine"):
        combine([])
    with pytest.raises(ValueError, match=r"no tasks of region 'moon'; its regions are: none"):
        region(one, "moon")


OLDER = {
    "schema": "metarl-results-1",
    "family": "metarl/Navigation2D-v0",
    "learner": "maml",
    "split": "test",
    "statistic": "mean undiscounted return of the stochastic policy; interval by bootstrap over tasks; tasks and "
    "episodes drawn with seed 4",
    "level": 0.95,
    "seeds": [2],
    "iteration": 60,
    "counted": "adaptation steps",
    "timesteps": 1000,
    "oracle": -1.5,
    "adaptation": [
        {"step": 0, "mean": -6.0, "low": -8.0, "high": -4.0, "tasks": 2, "episodes": 20, "per_task": [-8.0, -4.0],
         "success": {"mean": 0.25, "low": 0.0, "high": 0.5, "per_task": [0.0, 0.5]}},
        {"step": 1, "mean": -3.0, "low": -4.0, "high": -2.0, "tasks": 2, "episodes": 20, "per_task": [-4.0, -2.0],
         "success": {"mean": 0.75, "low": 0.5, "high": 1.0, "per_task": [0.5, 1.0]}},
    ],
}  # fmt: skip


def test_results_of_the_older_schema_are_read() -> None:
    found = Evaluation.from_json(OLDER)
    np.testing.assert_array_equal(found.returns, [[-8.0, -4.0], [-4.0, -2.0]])
    np.testing.assert_array_equal(found.statistics["success"], [[0.0, 0.5], [0.5, 1.0]])
    assert (found.seeds, found.iteration, found.timesteps, found.episodes) == ((2,), 60, 1000, 20)
    assert found.runs[0].evaluation_seed == 4
    assert found.oracle is not None
    assert found.oracle.mean() == -1.5
    np.testing.assert_array_equal(found.episodes_before[0, 0], [0.0, 20.0])
    assert found.steps_before is None
    assert [entry["mean"] for entry in found.to_json()["adaptation"]] == [-6.0, -3.0]
    assert "-6.00" in found.table()
    assert len(found.to_frame()) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is missing"),
        ("", "is empty"),
        ('{"schema": "metarl', "is damaged"),
        ("[]", "is damaged"),
        ("{}", "its schema is None, expected 'metarl-results-2'"),
        ('{"schema": "metarl-results-9"}', "its schema is 'metarl-results-9'"),
        ('{"schema": "metarl-results-2"}', "is damaged: it lacks 'adaptation'"),
        ('{"schema": "metarl-results-1"}', "is damaged: it lacks 'adaptation'"),
    ],
)
def test_a_damaged_file_is_one_sentence(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json' ") as caught:
        Evaluation.read(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", [1, 2])
def test_whatever_is_missing_or_wrong_in_a_file_is_one_sentence(schema: int, one: Evaluation) -> None:
    document = OLDER if schema == 1 else json.loads(json.dumps(one.to_json()))
    not_needed = {"level", "statistic", "units", "timesteps", "counted", "settings", "oracle", "seeds", "iteration"}
    found = []
    for key in document:
        for value in (None, "nonsense", [], [[1, [2]]], {}):
            if value is None and key not in not_needed:
                changed = {name: entry for name, entry in document.items() if name != key}
            else:
                changed = {**document, key: value}
            try:
                Evaluation.from_json(changed)
            except ValueError as error:
                found.append(str(error))
    assert len(found) > len(document)
    assert all(text.startswith(("is damaged", "holds no results")) and "\n" not in text for text in found)
