"""Protocols: what is played after which experience, on which tasks, and what is refused."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from small import LENGTHS_DIFFER, NAVIGATION, SIGN, remembering, small

import metarl
from metarl import seeding
from metarl.envs import tasks as task_tools
from metarl.envs.registry import OWN
from metarl.learners.registry import find_learner
from metarl.protocols.pearl import TEST_TASKS
from metarl.results.selection import region

CART = {"family": "metarl/CartPoleParams-v0", "family_kwargs": {"max_episode_steps": 8}}
PARAMETERIZED = {
    "family": "metarl/Parameterized-v0",
    "family_kwargs": {
        "env": "Pendulum-v1",
        "parameters": {"g": [5.0, 15.0], "max_torque": {"choices": [1.0, 2.0]}},
        "max_episode_steps": 5,
    },
}


def test_steps_is_the_default_and_a_setting_chooses_another() -> None:
    model = small()
    assert model.evaluate(n_tasks=3).protocol == "steps"
    np.testing.assert_array_equal(
        model.evaluate(n_tasks=3).returns, model.evaluate_rollouts("test", n_tasks=3)[0].returns
    )
    other = small(evaluation={"protocol": "k-shot"})
    assert other.evaluate(n_tasks=3).protocol == "k-shot"
    assert other.evaluate(n_tasks=3, protocol="steps").protocol == "steps"
    assert other.evaluate_rollouts("validation")[0].protocol == "steps", "validation is by steps"


def test_k_shot_counts_the_experience_of_each_k_from_scratch() -> None:
    model = small(family=LENGTHS_DIFFER, evaluation={"shots": [4, 1]})
    found = model.evaluate(n_tasks=3, episodes=5, protocol="k-shot")
    assert found.points == (0, 1, 4)
    assert found.counted == "earlier episodes"
    assert found.metrics["return"].shape == (1, 3, 3, 5)
    np.testing.assert_array_equal(found.episodes_before, np.broadcast_to([0.0, 1.0, 4.0], (1, 3, 3)))
    assert found.steps_before is not None
    seen = found.steps_before[0]
    assert (seen[:, 0] == 0).all()
    assert (seen[:, 1] >= 1).all()
    assert (seen[:, 1] <= 6).all()
    assert (seen[:, 2] >= 4).all()
    # A K has the same episodes whatever the other Ks are, and however tasks are grouped.
    alone = small(family=LENGTHS_DIFFER, learning={"tasks": 2}, evaluation={"shots": [4]})
    np.testing.assert_array_equal(
        alone.evaluate(n_tasks=3, episodes=5, protocol="k-shot").metrics["return"][:, :, 1],
        found.metrics["return"][:, :, 2],
    )


def test_k_shot_adapts_to_the_episodes_that_it_saw() -> None:
    def after(learner: str) -> np.ndarray:
        found: np.ndarray = small(learner, family=SIGN).evaluate(n_tasks=4, protocol="k-shot").means()
        return found

    adapting, still = after("scratch"), after("task-aware")
    assert (adapting[:, :, 1:] != still[:, :, 1:]).any()
    assert np.isfinite(adapting).all()


def test_k_shot_with_memory_is_a_trial() -> None:
    model = remembering(evaluation={"shots": [1, 3]})
    found = model.evaluate(n_tasks=3, episodes=4, protocol="k-shot")
    trial = model.evaluate(n_tasks=3, episodes=4, steps=3)
    assert found.points == (0, 1, 3)
    np.testing.assert_array_equal(found.returns, trial.returns[[0, 1, 3]])
    assert found.steps_before is not None
    assert trial.steps_before is not None
    np.testing.assert_allclose(found.steps_before, trial.steps_before[:, :, [0, 1, 3]])


def test_pearl_scores_a_later_episode_without_noise() -> None:
    model = small(family=LENGTHS_DIFFER, evaluation={"exploration": 3})
    found = model.evaluate(n_tasks=4, episodes=2, protocol="pearl")
    assert found.points == (0, 3)
    assert found.metric == "return_deterministic"
    assert {"return", "return_deterministic", "length", "length_deterministic"} == set(found.metrics)
    exploration = found.metrics["return"]
    assert exploration.shape == (1, 4, 2, 6)
    assert np.isfinite(exploration[:, :, 0]).all(), "two times three exploratory episodes"
    assert np.isnan(exploration[:, :, 1]).all()
    score = found.metrics["return_deterministic"]
    assert np.isfinite(score[..., :2]).all()
    assert np.isnan(score[..., 2:]).all()
    np.testing.assert_array_equal(found.episodes_before, np.broadcast_to([0.0, 3.0], (1, 4, 2)))
    assert found.steps_before is not None
    np.testing.assert_allclose(found.steps_before[0, :, 1], found.metrics["length"][0, :, 0].sum(axis=1) / 2)
    document = found.to_json()
    assert document["metric"] == "return_deterministic"
    assert "deterministic policy" in document["statistic"]
    assert "most likely actions" in document["units"]["return_deterministic"]
    assert "return" in document["adaptation"][0]
    assert "return" not in document["adaptation"][1], "no such episode was played"
    assert "return_deterministic" in found.table()


@pytest.mark.parametrize("actions", ["standard box", "multi", "matrix"])
def test_without_noise_the_policy_acts_as_stable_baselines3_does(actions: str) -> None:
    model = small(family=SIGN, family_kwargs={"actions": actions})
    env = metarl.make(SIGN, actions=actions)
    task = np.array([0.5], dtype=np.float32)
    tasks = task_tools.stack_tasks(model.env.get_wrapper_attr("task_space"), [task])
    rollouts = model.collect(
        model.state, model.parameters, tasks, seeding.streams(1, 99, tasks=range(1)), episodes=2, deterministic=True
    )
    observation, _ = env.reset(seed=3, options={"task": task})
    for step in range(3):
        action, _ = model.policy.predict(observation, deterministic=True)
        for episode in range(2):
            played = rollouts.actions[0, episode, step].numpy()
            np.testing.assert_allclose(played if actions == "multi" else np.clip(played, -1, 1), action, atol=1e-6)
        observation, *_ = env.step(action)


def test_pearl_has_the_task_counts_of_its_paper() -> None:
    found = small(evaluation={"test_tasks": 3}).evaluate(episodes=1, protocol="pearl")
    assert found.n_tasks == TEST_TASKS[NAVIGATION] == 20
    assert small().evaluate(n_tasks=2, episodes=1, protocol="pearl").n_tasks == 2
    assert small(family=SIGN).evaluate(episodes=1, protocol="pearl").n_tasks == 3, "other families: the setting"
    assert set(TEST_TASKS) <= set(gymnasium.registry)


@pytest.mark.parametrize("arguments", [CART, PARAMETERIZED, {}], ids=["constants", "parameters", "goals"])
def test_generalization_plays_within_and_beyond_the_ranges(arguments: dict[str, Any]) -> None:
    model = small(**arguments, evaluation={"beyond": 0.25})
    found = model.evaluate(n_tasks=4, episodes=2, protocol="generalization")
    assert found.regions is not None
    assert {name: found.regions.count(name) for name in found.regions} == {
        "interpolation": 4, "default": 4, "extrapolation": 4,
    }  # fmt: skip
    space = model.env.get_wrapper_attr("task_space")
    tasks = {name: region(found, name).runs[0].tasks for name in found.regions}
    for name, contained in (("interpolation", True), ("default", True), ("extrapolation", False)):
        for task in tasks[name] or ():
            try:
                task_tools.as_task(model.env, task)
                inside = True
            except ValueError:
                inside = False
            assert inside == contained, (name, task)
    default = task_tools.plain(model.env.get_wrapper_attr("default_task"))
    assert list(tasks["default"] or ()) == [default] * 4
    assert space.contains(task_tools.as_task(model.env, default))
    np.testing.assert_array_equal(
        region(found, "interpolation").returns, model.evaluate(n_tasks=4, episodes=2, protocol="steps").returns
    )
    assert "extrapolation:" in found.table()
    assert found.to_json()["regions"] == list(found.regions)
    assert set(found.to_frame()["region"]) == {"interpolation", "default", "extrapolation"}


def test_what_a_learner_or_family_cannot_do_is_one_sentence() -> None:
    for model, protocol, words in (
        (remembering(), "pearl", "explores and acts in one trial"),
        (small("random"), "pearl", "has no most likely actions"),
        (small(family="metarl/BernoulliBandit-v0", family_kwargs={}), "generalization", "have no ranges of numbers"),
        (small(family="metarl/CornerNavigation2D-v0", family_kwargs={}), "generalization", "have no ranges of numbers"),
        (small(), "maze", "unknown protocol 'maze'; expected one of steps, pearl, k-shot, generalization"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            model.evaluate(protocol=protocol)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="steps is 2, but the protocol 'k-shot' says itself"):
        small().evaluate(protocol="k-shot", steps=2)
    with pytest.raises(ValueError, match=r"evaluation\.protocol"):
        small(evaluation={"protocol": "maze"})


@pytest.mark.parametrize("learner", ["maml", "task-aware", "anil", "cavia", "meta-sgd", "scratch", "reptile"])
@pytest.mark.parametrize("protocol", ["pearl", "k-shot", "generalization"])
def test_learners_that_adapt_by_steps_do_all_protocols(learner: str, protocol: str) -> None:
    model = small(find_learner(learner))
    found = model.evaluate(n_tasks=2, episodes=1, protocol=protocol)
    assert np.isfinite(found.means()).all()
    np.testing.assert_array_equal(found.returns, model.evaluate(n_tasks=2, episodes=1, protocol=protocol).returns)
    model.close()


def test_with_memory_generalization_plays_trials() -> None:
    model = remembering()
    found = model.evaluate(n_tasks=2, episodes=3, protocol="generalization")
    assert found.metrics["return"].shape == (1, 6, 2, 3)
    np.testing.assert_array_equal(
        region(found, "interpolation").returns, model.evaluate(n_tasks=2, episodes=3, protocol="steps").returns
    )


FEW_TASKS = {"CornerNavigation2D-v0", "HalfCheetahDir-v0", "AntDir-v0"}  # and the same in all splits
INFINITE = [name for name, _, _ in OWN if name not in FEW_TASKS]


def test_families_with_few_tasks_say_that_splits_share_them() -> None:
    assert {
        name for name, _, _ in OWN if task_tools.attribute(metarl.make(f"metarl/{name}"), "splits_share_tasks", False)
    } == FEW_TASKS


@pytest.mark.parametrize("name", [*INFINITE, "Parameterized-v0"])
def test_training_validation_and_test_share_no_task_where_there_are_infinitely_many(name: str) -> None:
    family = f"metarl/{name}"
    model = small(family=family, family_kwargs={})
    env = model.env

    def plain(tasks: Any) -> set[str]:
        return {repr(task_tools.plain(task)) for task in tasks}

    space = task_tools.task_space(env)
    trained = plain(
        task for number in range(1, 30) for task in task_tools.unstack_tasks(space, model.training_tasks(number))
    )
    drawn = {split: plain(metarl.sample_tasks(family, 60, seed=1, split=split)) for split in ("validation", "test")}
    assert len(trained) == 29 * 3
    assert len(drawn["test"]) == len(drawn["validation"]) == 60
    assert not trained & drawn["test"]
    assert not trained & drawn["validation"]
    assert not drawn["test"] & drawn["validation"]


def test_a_seed_of_evaluation_gives_all_runs_the_same_test_tasks() -> None:
    own = [small(seed=seed, evaluation={"seed": "run"}).evaluate(n_tasks=3).runs[0] for seed in (1, 2)]
    common = [small(seed=seed, evaluation={"seed": 5}).evaluate(n_tasks=3).runs[0] for seed in (1, 2)]
    usual = [small(seed=seed).evaluate(n_tasks=3).runs[0] for seed in (1, 2)]
    assert own[0].tasks != own[1].tasks
    assert common[0].tasks == common[1].tasks
    assert usual[0].tasks == usual[1].tasks == own[0].tasks
    assert [run.evaluation_seed for run in (*own, *common, *usual)] == [1, 2, 5, 5, 1, 1]
