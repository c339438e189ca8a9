"""Recommendation: how users click, what a slate is, what is recommended, and a classical recommender beside it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.envs.recommending.thompson import LinearThompson, play_thompson

FAMILY = "metarl/Recommend-v0"
TASTE = np.array([1.0, -0.5, 0.25, 0.0], np.float32)


def visits(taste: Any, action: Any, count: int = 4000, **kwargs: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Play visits with always the same action; return the environments, items shown and clicks [step, visit, place]."""
    vector = metarl.make_vec(FAMILY, count, **kwargs).unwrapped
    vector.reset(seed=0, options={"tasks": np.tile(taste, (count, 1))})
    shown, clicked = [], []
    for _ in range(vector.slates):
        vector.step(np.tile(np.asarray(action, np.float32), (count, 1)))
        shown.append(vector.shown.copy())
        clicked.append(vector.clicked.copy())
    return vector, np.array(shown), np.array(clicked)


def test_items_are_clicked_as_often_as_the_equations_say() -> None:
    vector, shown, clicked = visits(TASTE, TASTE)
    assert (shown == shown[:, :1]).all()
    showings = np.zeros(40)
    for items, clicks_of_slate in zip(shown[:, 0], clicked, strict=True):
        for place, item in enumerate(items):
            liking = vector.features[item] @ TASTE
            odds = -3 + 6 * liking - 0.5 * showings[item]
            chance = (place + 1) ** -0.5 / (1 + np.exp(-odds))
            assert clicks_of_slate[:, place].mean() == pytest.approx(chance, abs=0.035)
        showings[items] += 1
    assert showings.max() > 1  # boredom was tested


def test_a_slate_has_the_items_that_the_believed_user_would_click() -> None:
    vector, shown, _ = visits(TASTE, [0.3, 0.3, -1.0, 0.2], count=1)
    liking = vector.features @ np.array([0.3, 0.3, -1.0, 0.2])
    assert shown[0, 0].tolist() == np.argsort(-liking)[:4].tolist()
    assert all(len(set(slate)) == 4 for slate in shown[:, 0])
    assert len(set(shown.ravel())) > 4  # what was shown makes room for others
    _, everything, _ = visits(TASTE, TASTE, count=2, items=4)
    assert sorted(everything[0, 0]) == [0, 1, 2, 3]


def test_observations_tell_of_the_last_slate_and_not_of_the_taste() -> None:
    env = metarl.make(FAMILY)
    for taste in (TASTE, -TASTE):
        assert env.reset(seed=1, options={"task": taste})[0].tolist() == [0.0] * 8
    observation, reward, *_ = env.step(TASTE)
    batch = env.unwrapped.batch
    features = env.unwrapped.features[batch.shown[0]]
    np.testing.assert_allclose(observation[4:], features.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(observation[:4], features[batch.clicked[0]].sum(axis=0) / 4, atol=1e-6)
    assert reward == batch.clicked.sum()


def test_no_other_belief_is_better_than_the_taste() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        taste = rng.uniform(-1, 1, 4).astype(np.float32)
        best = metarl.make(FAMILY).get_wrapper_attr("oracle_return")(taste)
        assert best > metarl.make(FAMILY, slates=7).get_wrapper_attr("oracle_return")(taste)
        for belief in (-taste, np.zeros(4), rng.uniform(-1, 1, 4)):
            _, _, clicked = visits(taste, belief, count=400)
            assert clicked.sum(axis=(0, 2)).mean() < best


def test_wrong_arguments_are_one_sentence() -> None:
    for wrong, message in (
        ({"items": 3}, "slate is 4, and the catalogue has 3 items; expected at most as many"),
        ({"items": 0}, "items is 0; expected a whole number of at least 1"),
        ({"slate": 41}, "slate is 41, and the catalogue has 40 items"),
        ({"slate": 0}, "slate is 0; expected a whole number of at least 1"),
        ({"slates": 1.5}, "slates is 1.5; expected a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            metarl.make(FAMILY, **wrong)


def test_thompson_sampling_finds_the_taste() -> None:
    tastes = np.random.default_rng(1).uniform(-1, 1, (200, 4)).astype(np.float32)
    returns = play_thompson(tastes, visits=6, seed=0)
    assert returns.shape == (6, 200)
    oracle = metarl.make(FAMILY).get_wrapper_attr("oracle_return")
    best = np.mean([oracle(taste) for taste in tastes])
    assert returns[0].mean() > 0.5 * best
    assert returns[0].mean() + 1.0 < returns[5].mean() <= best
    sampler = LinearThompson(np.eye(2), users=1)
    for _ in range(300):
        sampler.update(np.array([[0, 1]]), np.array([[True, False]]))
    rng = np.random.default_rng(0)
    drawn = np.array([np.subtract(*sampler.beliefs(rng)[0]) for _ in range(50)])
    assert drawn.min() >= 0.0
    assert drawn.mean() > 0.5


class Silent(gymnasium.Wrapper):
    """A user who never clicks."""

    def step(self, action: Any) -> Any:
        observation, _, *ends = self.env.step(action)
        return (np.concatenate([np.zeros(4, np.float32), observation[4:]]), 0.0, *ends)


@pytest.mark.parametrize("learner", ["maml", "rl2"])
def test_recommending_ranks_the_catalogue_for_a_user(learner: str) -> None:
    few = {"evaluation": {"episodes": 2, "steps": 1}} if learner == "maml" else {}
    model = metarl.MetaLearner(None, FAMILY, learner=learner, policy_kwargs={"hidden_sizes": (8,)}, **few)
    task = metarl.sample_tasks(FAMILY, 1, split="test")[0]
    ranked = model.recommend(task, 40)
    assert sorted(ranked) == list(range(40))
    assert model.recommend(task, k=5) == model.learner.recommend(task, 5) == ranked[:5]
    assert len(model.recommend(metarl.make(FAMILY, task=task), 3)) == 3
    for wrong, message in (
        (41, "k is 41, but the catalogue has 40 items; ask for at most 40"),
        (0, "k is 0; expected a whole number of at least 1"),
        (2.5, "k is 2.5; expected a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            model.recommend(task, wrong)
    adapter = model.learner.adapter(Silent(metarl.make(FAMILY, task=task)))
    unknown = model.recommend(adapter, 4)
    adapter.play()
    with pytest.warns(UserWarning, match="clicked on nothing in 1 episodes"):
        assert len(model.recommend(adapter, 4)) == len(unknown) == 4


def test_recommending_follows_what_the_adapter_has_seen() -> None:
    model = metarl.MAML("MlpPolicy", FAMILY, inner={"step_size": 1.0}, policy_kwargs={"hidden_sizes": (8,)})
    tops = []
    for taste in (TASTE, -TASTE):
        adapter = model.adapter(metarl.make(FAMILY, task=taste), episodes=20)
        before = model.recommend(adapter, 40)
        while adapter.updates < 1:
            adapter.play()
        after = model.recommend(adapter, 40)
        action, _ = adapter.policy.predict(np.zeros(8, np.float32), deterministic=True)
        assert after == metarl.make(FAMILY).unwrapped.rank_items(action).tolist()
        assert after != before
        tops.append(after)
    assert tops[0] != tops[1]


@pytest.mark.parametrize("order", [["a", "b"], [1, 1, 0], [-1, 0, 1], [0.0, 1.0], None, [1, 2, 3], [[0, 1]]])
def test_a_catalogue_that_is_ranked_wrongly_is_refused(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = metarl.MAML("MlpPolicy", FAMILY, policy_kwargs={"hidden_sizes": (8,)})
    monkeypatch.setattr(type(metarl.make(FAMILY).unwrapped), "rank_items", lambda env, action: order)
    with pytest.raises(ValueError, match=r"rank_items\(action\) returns .*; expected each number from 0 to below"):
        model.recommend(TASTE, 1)


def test_a_family_without_a_catalogue_recommends_nothing() -> None:
    model = metarl.MetaLearner(None, "metarl/BernoulliBandit-v0")
    with pytest.raises(ValueError, match=r"has no items to recommend; .* rank_items\(action\)"):
        model.recommend([0.5] * 5)
