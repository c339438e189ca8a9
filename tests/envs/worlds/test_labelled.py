"""Few-shot recognition: what is shown and paid, which rows and classes are held out, data however they are given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.envs.families.labelled import Pools
from metarl.envs.families.labelled_arrays import are_data, arrays_of, labelled
from metarl.envs.families.labelled_data import as_text, load_data

pytest.importorskip("sklearn")
FAMILY = "metarl/Labelled-v0"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 3)).astype(np.float32)
Y = np.arange(90) % 9
X[:, 0] += 5.0 * Y


def test_the_right_label_pays_one_and_each_class_is_shown_as_often() -> None:
    env = metarl.make_vec(metarl.tasks_from_data(X, Y, ways=3, shots=4), 6).unwrapped
    tasks = metarl.sample_tasks(metarl.tasks_from_data(X, Y, ways=3, shots=4), 6, seed=2)
    observations, _ = env.reset(seed=1, options={"tasks": tasks})
    inputs, labels = env.questions()
    assert labels.shape == (6, 12)
    assert all((np.bincount(row) == 4).all() for row in labels)
    for step in range(12):
        np.testing.assert_array_equal(observations, inputs[:, step])
        given = (labels[:, step] + np.arange(6)) % 3
        observations, rewards, terminated, _, info = env.step(given)
        np.testing.assert_array_equal(rewards, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
        np.testing.assert_array_equal(info["success"], (rewards > 0) & terminated)
        assert terminated.all() == (step == 11)


def test_success_is_whether_the_last_answer_is_right() -> None:
    env = metarl.make(metarl.tasks_from_data(X, Y, ways=2, shots=2))
    found = set()
    for seed in range(8):
        env.reset(seed=seed)
        steps = [env.step(0) for _ in range(4)]
        assert [step[4]["success"] for step in steps] == [False] * 3 + [steps[3][1] == 1.0]
        found.add(steps[3][1])
    assert found == {0.0, 1.0}


def test_what_a_label_means_follows_from_the_task() -> None:
    family = metarl.tasks_from_data(X, Y, ways=2, shots=3)
    env = metarl.make_vec(family, 1).unwrapped
    task = metarl.sample_tasks(family, 1, seed=3)[0]
    for classes in (task["classes"], task["classes"][::-1]):
        env.reset(seed=1, options={"tasks": {"classes": classes[None], "pool": np.array([task["pool"]])}})
        inputs, labels = env.questions()
        # The first feature grows with the number of the class.
        means = [inputs[0, labels[0] == label, 0].mean() for label in (0, 1)]
        assert (means[0] < means[1]) == (classes[0] < classes[1])


@given(
    st.integers(2, 12), st.integers(2, 4), st.integers(1, 3), st.sampled_from(["auto", "classes", "rows"]),
    st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_row_of_a_split_is_in_another(classes: int, ways: int, shots: int, split: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=15 * classes)])
    data = labelled(rng.normal(size=(len(labels), 2)), labels)
    if ways > classes or (split == "classes" and classes < 2 * ways):
        with pytest.raises(ValueError, match=r"ways is|too few to hold some out"):
            Pools(data, ways, shots, split)
        return
    if np.bincount(labels).min() < 3:
        return
    pools = Pools(data, ways, shots, split)
    seen = [
        [int(row) for number in range(classes) for row in pools.rows[pool, number, : pools.counts[pool, number]]]
        for pool in range(3)
    ]
    together = [row for rows in seen for row in rows]
    assert sorted(together) == list(range(len(labels)))
    trained, held_out = set(pools.classes(0)), set(pools.classes(2))
    assert trained == set(pools.classes(1))
    assert trained.isdisjoint(held_out) if pools.by_classes else trained == held_out
    assert min(len(trained), len(held_out)) >= ways


def test_the_shipped_data_sets() -> None:
    shapes = {name: load_data(name).inputs.shape for name in ("digits", "diagnosis")}
    assert shapes == {"digits": (1797, 64), "diagnosis": (569, 30)}
    assert load_data("diagnosis").names == ("benign", "malignant")
    pytest.importorskip("babel")
    words = load_data("languages")
    assert len(words.names) > 40
    assert {"fi", "hu", "sw"} <= set(words.names)
    assert (np.bincount(words.labels) == 120).all()


def test_each_clinic_has_its_own_scale() -> None:
    family = metarl.tasks_from_data("diagnosis", ways=2, shift=0.5)
    tasks = metarl.sample_tasks(family, 200, seed=1)
    batch = tasks.batch
    assert np.log(batch["gain"]).std() == pytest.approx(0.5, abs=0.02)
    assert batch["offset"].mean() == pytest.approx(0.0, abs=0.02)
    assert {tuple(row) for row in batch["classes"].tolist()} == {(0, 1), (1, 0)}
    plain = metarl.sample_tasks(metarl.tasks_from_data("diagnosis", ways=2), 1)[0]
    assert set(plain) == {"classes", "pool"}


def bunch() -> Any:
    import sklearn.utils

    return sklearn.utils.Bunch(data=X, target=Y, target_names=np.array([f"c{n}" for n in range(9)]))


def pairs() -> Any:
    return torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


@pytest.mark.parametrize(
    "given",
    [(X, Y), [X.tolist(), Y.tolist()], bunch(), pairs(), torch.utils.data.DataLoader(pairs(), batch_size=7)],
    ids=["pair", "lists", "bunch", "dataset", "loader"],
)
def test_data_are_taken_however_they_are_given(given: Any) -> None:
    inputs, labels = arrays_of(given)
    np.testing.assert_array_equal(np.asarray(inputs, np.float32), X)
    assert len(set(np.asarray(labels).tolist())) == 9
    assert are_data(given)
    env = metarl.make(metarl.tasks_from_data(given, ways=2))
    assert env.observation_space.shape == (3,)
    again = load_data(as_text(labelled(inputs, labels)))
    np.testing.assert_array_equal(again.inputs, X)
    np.testing.assert_array_equal(again.labels, Y)


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1e-200, 0.0), (1e30, 0.0), (1.0, 1.7e9), (1e-3, -5e6)])
def test_numbers_of_any_magnitude_are_standardised(scale: float, offset: float) -> None:
    plain = X.astype(np.float64)
    shown = [
        metarl.make_vec(FAMILY, 1, data=as_text(labelled(inputs, Y)), ways=3).unwrapped.inputs
        for inputs in (plain, plain * scale + offset)
    ]
    np.testing.assert_allclose(shown[1], shown[0], atol=1e-3)
    assert shown[0].std(axis=0).min() > 0.5


def test_features_that_do_not_vary_are_zero() -> None:
    for constant in (np.float32(0.1), 0.1, 3e8):
        inputs = np.concatenate([np.full((90, 1), constant), X], axis=1)
        shown = metarl.make_vec(metarl.tasks_from_data(inputs, Y, ways=3), 1).unwrapped.inputs
        np.testing.assert_array_equal(shown[:, 0], 0.0)
        assert shown[:, 1:].std() > 0.5


def test_what_is_held_out_does_not_depend_on_the_order_of_rows_or_the_type_of_labels() -> None:
    order = np.random.default_rng(1).permutation(90)
    wide = torch.from_numpy(X.astype(np.float64)).requires_grad_()
    first = metarl.tasks_from_data(X, Y, ways=2).kwargs
    for inputs, labels in (
        (X[order], Y[order]), (wide, Y.astype(np.float64)), (X, Y[:, None]), (X.tolist(), Y.astype(np.bytes_)),
    ):  # fmt: skip
        assert metarl.tasks_from_data(inputs, labels, ways=2).kwargs == first


def test_tasks_are_no_data() -> None:
    for family in ("metarl/Navigation2D-v0", metarl.tasks_from_data(X, Y, ways=2)):
        tasks = metarl.sample_tasks(family, 2)
        for some in (tasks, tasks.batch, list(tasks), tuple(tasks), "digits", 3):
            assert not are_data(some)
    assert not are_data([[0.1, 0.2], [0.3, 0.4]])
    assert not are_data([X, Y, X])


def test_sparse_inputs_become_arrays() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    np.testing.assert_array_equal(labelled(sparse.csr_matrix(X), Y).inputs, X)


def test_a_wrong_argument_is_told_without_the_data() -> None:
    family = metarl.tasks_from_data(X, Y, ways=2)
    with pytest.raises(ValueError, match="unexpected keyword argument 'way'") as caught:
        metarl.make(family, way=3)
    assert len(str(caught.value)) < 600 < len(family.kwargs["data"])


def test_a_file_of_arrays_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", X=X.reshape(90, 3, 1), y=Y)
    env = metarl.make(FAMILY, data=str(tmp_path / "own.npz"), ways=3)
    assert env.observation_space.shape == (3,)
    assert metarl.tasks_from_data(tmp_path / "own.npz", ways=3).kwargs["data"] == str(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", X=X[:, :2], y=Y)  # is not the same file any more
    assert metarl.make(FAMILY, data=str(tmp_path / "own.npz"), ways=3).observation_space.shape == (2,)
    with pytest.raises(ValueError, match=r"none\.npz' does not exist; np\.savez"):
        metarl.make(FAMILY, data=str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"bad\.npz' cannot be read"):
        metarl.make(FAMILY, data=str(tmp_path / "bad.npz"))


@pytest.mark.parametrize(
    ("inputs", "labels", "arguments", "sentence"),
    [
        (X, np.zeros(90), {}, "all labels are 0; expected two classes at least"),
        (X, Y[:50], {}, r"y has shape \(50,\) and X 90 rows; expected a label for each row"),
        (np.where(X > 40, np.nan, X), Y, {"ways": 2}, "X is not finite in .* of 90 rows, first in row"),
        (1e300 * X.astype(np.float64), Y, {}, r"X has a number of magnitude 4.*e\+301; expected at most 1e100; divide"),
        (X, np.where(Y > 7, np.nan, Y), {}, "y is not finite in 10 rows"),
        (np.ma.masked_greater(X, 40.0), Y, {}, "X has [0-9]+ masked entries; leave their rows out or fill them"),
        (X, np.ma.masked_equal(Y, 3), {}, "y has 10 masked entries"),
        (X + 1j, Y, {}, "X is of type complex.*; expected real numbers"),
        (X, Y + 0j, {}, "y is of a complex type; expected classes"),
        (X.astype("datetime64[s]"), Y, {}, r"X is of type datetime64\[s\]; expected real numbers"),
        (
            (X * 1e3).astype(np.int64) + 2**60,
            Y,
            {},
            r"whole numbers up to 1.15e\+18, of which the last digits would be",
        ),
        ([[10**400]], [1], {}, "X cannot be turned into numbers"),
        ([[1, 2], [3]], [0, 1], {}, "X cannot be turned into an array .* expected rows of one length"),
        (X, np.eye(9)[Y], {}, r"y has shape \(90, 9\) .* y.argmax\(axis=1\) makes labels of one-hot rows"),
        ({"X": X, "y": Y}, None, {}, "the data are of type dict; expected arrays X and y"),
        (X, Y + 0.25, {}, "y is 0.25 in row 0; expected classes, as whole numbers or texts; cut what is measured"),
        (X, [None, *Y[1:].tolist()], {}, "y has no label in 1 rows, first in row 0; leave them out"),
        (X[:0], Y[:0], {}, r"X has shape \(0, 3\); expected at least one row"),
        ([["a", "b"]], [1], {}, "X cannot be turned into numbers"),
        (X, Y, {"ways": 10}, "ways is 10, and the data have 9 classes; take 9 ways at most"),
        (X, Y, {"ways": 1}, "ways is 1; expected"),
        (X, Y, {"shots": 0}, "shots is 0; expected"),
        (X, Y, {"ways": 2, "shots": 11}, "class '0' has 10 rows, and 11 are needed with 11 shots; take fewer shots"),
        (X[:12], Y[:12], {"ways": 2, "shots": 1}, "class '3' has 1 rows, and 2 are needed with 1 shots"),
        (X, Y, {"ways": 5, "held_out": "classes", "shots": 1}, "9 classes are too few to hold some out, with 5 ways"),
        (X, Y, {"held_out": "half"}, "held_out is 'half'; expected one of auto, classes, rows"),
        (X, Y, {"shift": -0.1}, "shift is -0.1; expected a number from 0 to 1"),
        (3, None, {}, "the data are of type int; expected arrays X and y"),
        ("iris", None, {}, "the data are 'iris'; expected arrays, digits, languages, diagnosis"),
        ([1, 2, 3], None, {}, "the data give int where a pair"),
    ],
)
def test_data_that_cannot_be_learned_from_are_one_sentence_each(
    inputs: Any, labels: Any, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        metarl.tasks_from_data(inputs, labels, **arguments)


def test_tasks_that_make_no_sense_are_refused() -> None:
    family = metarl.tasks_from_data(X, Y, ways=2, shots=2)
    env, batch = metarl.make(family), metarl.sample_tasks(family, 2)
    one = batch[0]
    with pytest.raises(ValueError, match="are not different; name each class once"):
        env.reset(options={"task": {**one, "classes": [1, 1]}})
    with pytest.raises(ValueError, match="has no rows for test, pool 2; the classes with such rows are"):
        env.reset(options={"task": {**one, "pool": 2}})
    with pytest.raises(ValueError, match="has no rows for test"):
        metarl.make_vec(family, 2).reset(options={"tasks": {**batch.batch, "pool": np.array([0, 2])}})


@pytest.mark.parametrize(("module", "data"), [("sklearn", "digits"), ("sklearn", "diagnosis"), ("babel", "languages")])
def test_a_missing_package_is_named_with_the_command(module: str, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    labelled_data = sys.modules[load_data.__module__]
    monkeypatch.setitem(labelled_data.DATA_SETS, "unread", labelled_data.DATA_SETS[data])  # the others may be known
    with pytest.raises(ValueError, match=r"needs the extra \[data\]: pip install 'metarl-suite\[data\]'"):
        metarl.make(FAMILY, data="unread")


def test_arrays_in_place_of_a_name_are_told_what_takes_them() -> None:
    with pytest.raises(ValueError, match=r"data is of type ndarray; .*tasks_from_data\(X, y\) takes arrays"):
        metarl.make(FAMILY, data=X)
