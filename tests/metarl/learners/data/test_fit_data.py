"""``MetaLearner`` on labelled data: fit, evaluate, from a pretrained model, saved."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import metarl
from metarl import MetaLearner

datasets = pytest.importorskip("sklearn.datasets")
SMALL = {"learning": {"tasks": 6, "episodes": 2}, "evaluation": {"episodes": 2, "steps": 1, "test_tasks": 6}}


def test_a_pretrained_model_is_fitted_to_data_and_evaluated_on_held_out_classes(tmp_path: Path) -> None:
    data = datasets.load_digits()
    family = metarl.tasks_from_data(data, ways=3)
    ppo = PPO("MlpPolicy", metarl.make(family, task=metarl.sample_tasks(family, 1)[0]), n_steps=30, batch_size=30)
    model = MetaLearner(ppo, **SMALL)
    with pytest.raises(ValueError, match="the model chooses one of 3, and no family was given"):
        model.learner  # noqa: B018
    assert model.fit(data, epochs=2) is model
    assert model.learner.settings.family_kwargs["ways"] == 3
    assert (model.learner.iteration, model.learner.action_space.n) == (2, 3)
    evaluation = model.evaluate((data.data, data.target))
    assert (evaluation.split, evaluation.returns.shape) == ("test", (2, 6))
    batch = metarl.sample_tasks(
        model.learner.settings.family, 50, split="train", **model.learner.settings.family_kwargs
    )
    trained = set(np.ravel(batch.batch["classes"]).tolist())
    tested = {number for task in evaluation.runs[0].tasks for number in np.ravel(task["classes"]).tolist()}
    assert trained.isdisjoint(tested)
    model.save(tmp_path / "digits")
    loaded = MetaLearner.load(tmp_path / "digits")
    np.testing.assert_array_equal(loaded.evaluate(data).returns, evaluation.returns)
    model.learner.close()


def test_other_data_keep_what_was_learned() -> None:
    rng = np.random.default_rng(0)
    first, labels = rng.normal(size=(120, 4)), np.arange(120) % 6
    model = MetaLearner(None, metarl.tasks_from_data(first, labels, ways=2, shots=2), **SMALL)
    model.fit((first, labels), epochs=1)
    before = model.learner.parameters
    model.fit((first + 1.0, labels), epochs=1)
    assert model.learner.iteration == 2
    assert any((value != before[name]).any() for name, value in model.learner.parameters.items())
    iteration = model.learner.iteration
    model.evaluate((first, labels))
    assert model.learner.iteration == iteration
    with pytest.raises(ValueError, match=r"the data have \(3,\) features and the learner was made for \(4,\)"):
        model.fit((first[:, :3], labels))
    with pytest.raises(ValueError, match="all labels are 1; expected two classes"):
        model.evaluate((first, np.ones(120, int)))
    model.learner.close()


def test_a_warning_names_tested_classes_that_were_trained_on() -> None:
    data = datasets.load_digits()
    model = MetaLearner(family_kwargs={"ways": 3}, **SMALL).fit(data, epochs=1)
    pools, few = model.learner.env.unwrapped.batch.pools, data.target < 6
    with pytest.warns(UserWarning, match=r"of the tested classes are among those of training \([0-9, ]+\)") as said:
        model.evaluate((data.data[few], data.target[few]))
    named = {int(name) for name in str(said[0].message).partition("(")[2].partition(")")[0].split(", ")}
    assert named <= set(pools.classes(0).tolist())
    new = np.isin(data.target, pools.classes(2))
    assert model.evaluate((data.data[new], data.target[new])).returns.shape == (2, 6)
    model.learner.close()


def test_rows_that_are_held_out_stay_so_where_data_come_in_another_order() -> None:
    inputs, labels = datasets.load_iris(return_X_y=True)
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=True)
    model = MetaLearner(**SMALL).fit(loader, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.evaluate(loader).returns
    np.testing.assert_array_equal(model.evaluate((inputs, labels)).returns, found)
    with pytest.warns(UserWarning, match=r"[0-9]+ of 15 tested rows are among those of training"):
        model.evaluate((inputs[::2], labels[::2]))
    model.learner.close()


def test_an_argument_that_data_do_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="family_kwargs has 'wayz'; of labelled data it may give ways, shots"):
        MetaLearner(family_kwargs={"wayz": 2}, **SMALL).fit(datasets.load_iris(), epochs=1)


def test_data_for_another_family_are_refused() -> None:
    model = MetaLearner(None, "metarl/Navigation2D-v0")
    with pytest.raises(ValueError, match=r"labelled data are given, and the family is metarl/Navigation2D-v0"):
        model.fit(datasets.load_digits())
    model.learner.close()


def test_without_a_family_the_first_data_choose_it() -> None:
    data = datasets.load_iris()
    model = MetaLearner(family_kwargs={"shots": 2}, **SMALL)
    assert model.evaluate((data.data, data.target)).returns.shape == (2, 6)
    model.fit((data.data, data.target), epochs=1)
    kwargs = model.learner.settings.family_kwargs
    assert (model.learner.settings.family, kwargs["ways"], kwargs["shots"]) == ("metarl/Labelled-v0", 2, 2)
    settings = model.learner.settings
    assert (settings.learning.gamma, settings.learning.episodes, settings.inner.step_size) == (0.0, 2, 0.5)
    success = model.evaluate(data).metrics["success"]
    assert success.shape == (1, 6, 2, 2)
    assert set(np.unique(success)) == {0.0, 1.0}
    model.learner.close()


def test_settings_that_are_given_hold_for_data_too() -> None:
    model = MetaLearner(learning={"tasks": 4, "gamma": 0.5}, inner={"step_size": 0.2})
    model.fit(datasets.load_iris(), epochs=1)
    settings = model.learner.settings
    assert (settings.learning.gamma, settings.learning.gae_lambda, settings.inner.step_size) == (0.5, 1.0, 0.2)
    model.learner.close()


def test_without_a_family_other_tasks_are_those_of_navigation() -> None:
    model = MetaLearner(**SMALL)
    tasks = metarl.sample_tasks("metarl/Navigation2D-v0", 2)
    model.fit((tasks[0], tasks[1]), epochs=1)
    assert (model.learner.settings.family, model.learner.iteration) == ("metarl/Navigation2D-v0", 1)
    model.learner.close()
