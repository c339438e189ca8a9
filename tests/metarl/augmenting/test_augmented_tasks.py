"""More tasks from a few: mixed, perturbed and mirrored ones stay tasks of the family."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import small
from gymnasium import spaces
from numpy.typing import NDArray

import metarl
from metarl.augmenting.tasks import fewer_tasks, mirrored, mixed, perturbed, reflected
from metarl.envs import make_vec
from metarl.envs import tasks as task_tools

SPACE = spaces.Dict(
    {
        "mass": spaces.Box(1.0, 3.0, (2,), np.float32),
        "legs": spaces.Box(2, 8, (), np.int64),
        "place": spaces.Tuple((spaces.Discrete(5), spaces.Text(3))),
    }
)


class Ring(gymnasium.Env[Any, Any]):
    """A family whose tasks are two numbers on a ring, and whose symmetry is none."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, mirror: float = -1.0, bounded: bool = True) -> None:
        self.task_space = spaces.Box(-1.0 if bounded else -np.inf, 1.0, (2,), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._mirror = mirror

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> NDArray[np.float32]:
        angles = rng.uniform(0.0, 2.0 * np.pi, n)
        return np.stack([0.9 * np.cos(angles), 0.9 * np.sin(angles)], axis=1).astype(np.float32)

    def check_task(self, task: Any) -> None:
        if not 0.8 < np.hypot(*task) < 1.0:
            raise ValueError(f"the task {task.tolist()} is not on the ring")

    def mirror_tasks(self, tasks: Any, rng: np.random.Generator) -> NDArray[np.float32]:
        return np.asarray(self._mirror * tasks, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(action[0]), True, False, {}


def batch(rng: np.random.Generator, count: int = 40) -> Any:
    return task_tools.uniform_tasks(SPACE, count, rng)


def test_mixed_numbers_lie_between_two_tasks_and_choices_are_of_either() -> None:
    tasks = task_tools.take_tasks(batch(np.random.default_rng(0), 2), np.array([0, 1]))
    tasks["mass"] = np.array([[1.0, 3.0], [2.0, 2.5]], np.float32)
    seen = [mixed(SPACE, tasks, 1.0, np.random.default_rng(seed)) for seed in range(20)]
    for found in seen:
        weight = found["mass"][0, 0] - 1.0
        assert 0.0 < weight < 1.0
        assert found["mass"][0, 1] == pytest.approx(3.0 - 0.5 * weight, abs=1e-6)
        assert found["mass"].dtype == np.float32
        assert set(found["legs"]) <= set(tasks["legs"])
        assert set(found["place"][1]) <= set(tasks["place"][1])
    assert len({int(found["place"][0][0]) for found in seen}) == len(set(tasks["place"][0].tolist()))


@pytest.mark.parametrize("change", [mixed, perturbed])
def test_changed_tasks_stay_in_the_space_and_unchanged_ones_keep_every_bit(change: Any) -> None:
    tasks = batch(np.random.default_rng(1), 200)
    same = change(SPACE, tasks, 0.0, np.random.default_rng(2))
    assert task_tools.plain(same) == task_tools.plain(tasks)
    other = change(SPACE, tasks, 1.0, np.random.default_rng(2))
    assert task_tools.plain(other) != task_tools.plain(tasks)
    assert all(SPACE.contains(task) for task in task_tools.unstack_tasks(SPACE, other))
    assert task_tools.plain(other) == task_tools.plain(change(SPACE, tasks, 1.0, np.random.default_rng(2)))


def test_a_share_of_the_tasks_is_mixed() -> None:
    space = spaces.Box(0.0, 1.0, (), np.float64)
    tasks = np.random.default_rng(0).random(2000)
    changed = mixed(space, tasks, 0.3, np.random.default_rng(1)) != tasks
    assert changed.mean() == pytest.approx(0.3, abs=0.03)


def test_noise_is_as_wide_as_said_and_reflected_at_the_ends() -> None:
    space = spaces.Box(np.float32(-1.0), np.float32(3.0), (2,), np.float32)
    middle = np.ones((4000, 2), np.float32)
    found = perturbed(space, middle, 0.05, np.random.default_rng(3))
    assert found.std() == pytest.approx(0.05 * 4.0, rel=0.05)
    at_end = perturbed(space, 3.0 * middle, 0.05, np.random.default_rng(3))
    assert at_end.max() <= 3.0
    assert at_end.mean() == pytest.approx(3.0 - 0.2 * np.sqrt(2.0 / np.pi), abs=0.01)
    low, high = np.float64(2.0), np.float64(2.0)
    assert reflected(np.array([1.0, 2.0, 5.0]), low, high).tolist() == [2.0, 2.0, 2.0]


def test_a_few_tasks_come_equally_often() -> None:
    pool = np.arange(5.0)
    found = fewer_tasks(pool, 12, np.random.default_rng(0))
    counts = np.bincount(found.astype(int), minlength=5)
    assert counts.sum() == 12
    assert counts.max() - counts.min() <= 1
    assert set(fewer_tasks(pool, 3, np.random.default_rng(1))) <= set(pool)


def test_training_tasks_are_a_few_of_those_that_sample_tasks_draws() -> None:
    model = small.small(seed=4, learning={"train_tasks": 2})
    pool = {tuple(task) for task in metarl.sample_tasks(small.NAVIGATION, 2, seed=4).batch.tolist()}
    found = [model.training_tasks(iteration).tolist() for iteration in (1, 2)]
    assert all({tuple(task) for task in tasks} == pool for tasks in found)
    trials = small.remembering(seed=4, learning={"train_tasks": 2}).training_tasks(1)
    assert {tuple(task) for task in trials.tolist()} == pool
    components = small.small("multi-task", seed=4, learning={"train_tasks": 2}, outer={"components": 4})
    assert {tuple(task) for task in components.component_tasks(components.state).astype(np.float32).tolist()} == pool


@pytest.mark.parametrize("family", ["metarl/Navigation2D-v0", "metarl/HalfCircleNavigation2D-v0"])
def test_a_mirrored_task_is_the_task_with_positions_and_actions_mirrored(family: str) -> None:
    plain = metarl.sample_tasks(family, 30, seed=1).batch
    env: Any = make_vec(family, 30)
    tasks = env.unwrapped.mirror_tasks(plain, np.random.default_rng(0))
    goals, others = env.unwrapped.goals(plain), env.unwrapped.goals(tasks)
    # Each symmetry as a matrix, found from what it does to the goal among those of the square.
    signs = [np.diag([x, y]) for x in (1.0, -1.0) for y in (1.0, -1.0)]
    group = [*signs, *(matrix[::-1] for matrix in signs)]
    chosen = [min(group, key=lambda m: float(np.abs(m @ goals[i] - others[i]).max())) for i in range(30)]
    assert len({matrix.tobytes() for matrix in chosen}) == (8 if family == small.NAVIGATION else 2)
    rng, rewards = np.random.default_rng(1), {}
    actions = rng.uniform(-1.5, 1.5, (5, 30, 2)).astype(np.float32)
    turned = np.einsum("nij,tnj->tni", np.stack(chosen), actions).astype(np.float32)
    for name, batch_of, done in (("plain", plain, actions), ("mirrored", tasks, turned)):
        env.reset(seed=0, options={"tasks": batch_of})
        rewards[name] = [env.step(action)[1] for action in done]
    env.close()
    np.testing.assert_allclose(rewards["mirrored"], rewards["plain"], atol=1e-6)


def test_mirrored_bandits_have_their_arms_in_another_order() -> None:
    env = metarl.make("metarl/BernoulliBandit-v0")
    tasks = metarl.sample_tasks("metarl/BernoulliBandit-v0", 10).batch
    mirrored = env.get_wrapper_attr("mirror_tasks")(tasks, np.random.default_rng(0))
    assert (mirrored != tasks).any()
    np.testing.assert_array_equal(np.sort(mirrored), np.sort(tasks))


def test_augmented_tasks_are_new_and_those_of_validation_and_test_are_not() -> None:
    augment = {"mix": 1.0, "perturb": 0.1, "mirror": 1.0}
    plain, model = (small.small(augment=one, learning={"train_tasks": 2}) for one in (None, augment))
    assert not np.isin(model.training_tasks(1), plain.training_tasks(1)).any()
    np.testing.assert_array_equal(model.training_tasks(1), model.training_tasks(1))
    assert (model.training_tasks(1) != model.training_tasks(2)).all()
    ours, theirs = model.evaluate(), plain.evaluate()
    np.testing.assert_array_equal(ours.metrics["return"], theirs.metrics["return"])


def test_given_tasks_are_augmented_too() -> None:
    model = small.small(small.Still, augment={"mirror": 1.0}, evaluation={"every": 5})
    model.learn(iterations=1, tasks=[[0.1, 0.2], [0.3, 0.4]])
    found = np.sort(np.abs(model.training_tasks(3)), axis=1)
    np.testing.assert_allclose(found, [[0.1, 0.2], [0.3, 0.4]], atol=1e-6)
    assert (model.training_tasks(3) != model.training_tasks(4)).any()


@pytest.mark.parametrize(
    ("augment", "kwargs", "words"),
    [
        (
            {"mix": 1.0},
            {},
            r"augmentation leaves the task space: the task \[.*\] is not on the ring; lower or leave out",
        ),
        ({"perturb": 0.5}, {}, "augmentation leaves the task space: .* is not on the ring"),
        ({"mirror": 1.0}, {"mirror": 2.0}, "augmentation leaves the task space: task .* is outside its space"),
        ({"perturb": 0.1}, {"bounded": False}, "augment.perturb is 0.1 widths of the range, but .* without ends"),
    ],
)
def test_augmentation_that_leaves_the_task_space_is_refused_before_training(
    augment: dict[str, float], kwargs: dict[str, Any], words: str
) -> None:
    model = small.small(family=Ring, family_kwargs={**kwargs, "max_episode_steps": 3}, augment=augment)
    with pytest.raises(ValueError, match=words) as caught:
        model.learn(iterations=1)
    assert "\n" not in str(caught.value)
    assert model.iteration == 0


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        (lambda tasks: tasks[:1], "returns a batch of shape (1, 2) for tasks of shape (3, 2); expected the same shape"),
        (lambda tasks: tasks[0], "returns a batch of shape (2,) for tasks of shape (3, 2)"),
        (lambda tasks: tasks[:, :1], "returns a batch of shape (3, 1) for tasks of shape (3, 2)"),
        (lambda tasks: {"goal": tasks}, "returns a batch of shape {'goal': (3, 2)} for tasks of shape (3, 2)"),
        (lambda tasks: None, "returns a batch of shape () for tasks of shape (3, 2)"),
    ],
)
def test_a_symmetry_of_another_shape_is_refused(mirror: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        mirrored(np.zeros((3, 2)), 0.5, lambda tasks, rng: mirror(tasks), np.random.default_rng(0))


def test_a_symmetry_may_change_what_it_is_given() -> None:
    def mirror(tasks: Any, rng: np.random.Generator) -> Any:
        tasks *= -1.0
        return tasks

    given = np.arange(1.0, 101.0)
    found = mirrored(given, 0.5, mirror, np.random.default_rng(0))
    np.testing.assert_array_equal(given, np.arange(1.0, 101.0))
    np.testing.assert_array_equal(np.abs(found), given)
    assert 30 < (found < 0.0).sum() < 70


def test_tasks_beside_a_number_of_tasks_are_refused() -> None:
    model = metarl.MAML(learning={"train_tasks": 3, "tasks": 2, "episodes": 2})
    with pytest.raises(ValueError, match=r"learning\.train_tasks is 3, and tasks are given, .* leave one of them out"):
        model.learn(iterations=1, tasks=metarl.sample_tasks("metarl/Navigation2D-v0", 3))


def test_a_symmetry_that_keeps_the_ring_is_taken() -> None:
    model = small.small(family=Ring, family_kwargs={"max_episode_steps": 3}, augment={"mirror": 0.5})
    drawn = model.drawn_tasks(1, 3)
    turned = (model.training_tasks(1) == -drawn).all(axis=1)
    kept = (model.training_tasks(1) == drawn).all(axis=1)
    assert (turned | kept).all()
