"""Few-shot recognition as a contextual bandit, ``Labelled-v0``: which class a label stands for is hidden."""

from __future__ import annotations

import numbers
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.families.labelled_arrays import LabelledData, content, standard, varies
from metarl.envs.families.labelled_data import load_data
from metarl.envs.single import SingleFamily

HELD_OUT = ("auto", "classes", "rows")
TEST_SHARE = 0.4  # of the classes, for the split by classes
TRAINING, VALIDATION, TEST = range(3)  # the numbers of pools
FARTHEST = 10.0  # of observations, in standard deviations
WIDEST = 8.0  # of a clinic's gain; its inverse is the smallest


class Pools:
    """Which rows of data are for training, validation and test: those of held-out classes, or held-out rows.

    By classes, two fifths of the classes (``ways`` at least) are for testing, and a fifth of the rows of the others for
    validation. By rows, a fifth of the rows of each class is for testing and another for validation.

    Attributes:
        rows: ``[pool, class, n]``, numbers of rows, filled up with 0.
        counts: ``[pool, class]``, how many of these there are.
        by_classes: whether classes are held out.

    Raises:
        ValueError: there are too few classes or rows.
    """

    def __init__(self, data: LabelledData, ways: int, shots: int, held_out: str) -> None:
        classes = len(data.names)
        if ways > classes:
            raise ValueError(f"ways is {ways}, and the data have {classes} classes; take {classes} ways at most")
        if held_out not in HELD_OUT:
            raise ValueError(f"held_out is {held_out!r}; expected one of {', '.join(HELD_OUT)}")
        self.by_classes = held_out == "classes" or (held_out == "auto" and classes >= 2 * ways)
        rng = np.random.default_rng(0)
        own = [rng.permutation(np.flatnonzero(data.labels == number)) for number in range(classes)]
        tested: Any = rng.permutation(classes)[: max(ways, round(TEST_SHARE * classes))] if self.by_classes else []
        if self.by_classes and classes - len(tested) < ways:
            raise ValueError(
                f"{classes} classes are too few to hold some out, with {ways} ways: {2 * ways} are needed; take fewer "
                "ways, or held_out='rows'"
            )
        pools: list[list[NDArray[np.int64]]] = [[np.zeros(0, np.int64)] * classes for _ in range(3)]
        for number, rows in enumerate(own):
            if number in tested:
                pools[TEST][number] = rows
                continue
            fifth = max(1, len(rows) // 5)
            pools[VALIDATION][number] = rows[:fifth]
            if not self.by_classes:
                pools[TEST][number] = rows[fifth : 2 * fifth]
            pools[TRAINING][number] = rows[fifth if self.by_classes else 2 * fifth :]
        for number, rows in enumerate(own):
            least = max(shots, 2 if self.by_classes else 3)
            if len(rows) < least:
                raise ValueError(
                    f"class {data.names[number]!r} has {len(rows)} rows, and {least} are needed with {shots} shots; "
                    "take fewer shots, or leave the class out"
                )
        self.counts = np.array([[len(rows) for rows in pool] for pool in pools])
        self.rows = np.zeros((3, classes, self.counts.max()), np.int64)
        for pool, lists in enumerate(pools):
            for number, rows in enumerate(lists):
                self.rows[pool, number, : len(rows)] = rows

    def of(self, pool: int) -> NDArray[np.int64]:
        """Return the numbers of a pool's rows, class by class."""
        return np.concatenate([self.rows[pool, number, :count] for number, count in enumerate(self.counts[pool])])

    def classes(self, pool: int) -> NDArray[np.int64]:
        """Return the numbers of the classes with rows in a pool."""
        return np.flatnonzero(self.counts[pool]).astype(np.int64)


class LabelledVectorEnv(BatchedFamily):
    """``metarl/Labelled-v0``, batched in numpy; the data sheet is in ``LabelledEnv``."""

    ranges_are_limits = True  # of numbers of classes
    observation_reveals_task = True  # which classes there are, but not what the labels mean

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        data: str = "languages",
        ways: int = 5,
        shots: int = 5,
        held_out: str = "auto",
        shift: float = 0.0,
    ) -> None:
        self.ways = task_tools.whole_number("ways", ways, least=2)
        self.shots = task_tools.whole_number("shots", shots)
        given: Any = shift  # a number of numpy too
        if isinstance(given, bool) or not isinstance(given, numbers.Real) or not 0.0 <= float(given) <= 1.0:
            raise ValueError(f"shift is {shift!r}; expected a number from 0 to 1, in standard deviations")
        self.shift = float(shift)
        self.given = found = load_data(data)
        self.pools = Pools(found, self.ways, self.shots, held_out)
        self.inputs, self.names = self._standardised(found), found.names
        features = self.inputs.shape[1]
        self.single_observation_space = spaces.Box(-FARTHEST, FARTHEST, (features,), np.float32)
        self.single_action_space = spaces.Discrete(self.ways)
        parts: dict[str, spaces.Space[Any]] = {
            "classes": spaces.Box(0, len(found.names) - 1, (self.ways,), np.int64),
            "pool": spaces.Discrete(3),
        }
        if self.shift > 0.0:
            parts["gain"] = spaces.Box(1.0 / WIDEST, WIDEST, (features,), np.float32)
            parts["offset"] = spaces.Box(-FARTHEST, FARTHEST, (features,), np.float32)
        self.task_space = spaces.Dict(parts)
        self.default_task = {"classes": self.pools.classes(TRAINING)[: self.ways], "pool": np.int64(TRAINING)}
        if self.shift > 0.0:
            self.default_task |= {"gain": np.ones(features, np.float32), "offset": np.zeros(features, np.float32)}
        super().__init__(num_envs, max_episode_steps, render_mode)
        self._labels = np.zeros((self.num_envs, self.ways * self.shots), np.int64)
        self._rows = np.zeros_like(self._labels)
        self._right = np.zeros(self.num_envs, np.bool_)

    def _standardised(self, data: LabelledData) -> NDArray[np.float32]:
        """Return the inputs with mean 0 and deviation 1 over the training rows."""
        seen = data.inputs[self.pools.of(TRAINING)]
        mean, scale = standard(seen)
        scaled = (data.inputs - mean) / np.where(varies(seen, scale), scale, 1.0)
        result: NDArray[np.float32] = np.clip(scaled, -FARTHEST, FARTHEST).astype(np.float32)
        return result

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Return a batch of n tasks: classes in random order, of the split's pool; with ``shift``, a clinic each."""
        pool = task_tools.SPLITS.index(split)
        own = self.pools.classes(pool)
        order = rng.random((n, len(own))).argsort(axis=1)[:, : self.ways]
        batch: dict[str, Any] = {"classes": own[order], "pool": np.full(n, pool, np.int64)}
        if self.shift > 0.0:
            features = self.inputs.shape[1]
            gain = np.exp(self.shift * rng.standard_normal((n, features)))
            offset = self.shift * rng.standard_normal((n, features))
            batch["gain"] = np.clip(gain, 1.0 / WIDEST, WIDEST).astype(np.float32)
            batch["offset"] = np.clip(offset, -FARTHEST, FARTHEST).astype(np.float32)
        return batch

    def check_task(self, task: Any) -> None:
        """Raise a ``ValueError`` if classes are named twice, or have no rows in the task's pool."""
        classes, pool = np.asarray(task["classes"]), int(task["pool"])
        if len(set(classes.tolist())) < len(classes):
            raise ValueError(f"the task's classes {classes.tolist()} are not different; name each class once")
        empty = [number for number in classes.tolist() if self.pools.counts[pool, number] == 0]
        if empty:
            raise ValueError(
                f"class {empty[0]} ({self.names[empty[0]]}) has no rows for {task_tools.SPLITS[pool]}, pool {pool}; "
                f"the classes with such rows are {self.pools.classes(pool).tolist()}"
            )

    def validate_tasks(self, batch: Any) -> None:
        """Refuse a batch with a task that ``check_task`` refuses."""
        for classes, pool in zip(batch["classes"], batch["pool"], strict=True):
            self.check_task({"classes": classes, "pool": pool})

    def start_episodes(self, indices: EnvIndices) -> None:
        """Draw the rows that are shown: ``shots`` of each class, in random order."""
        questions = self.ways * self.shots
        drawn = self.streams.uniform(indices, 2 * questions)
        labels = drawn[:, :questions].argsort(axis=1) % self.ways
        classes = np.take_along_axis(self.tasks["classes"][indices], labels, axis=1)
        pools = self.tasks["pool"][indices][:, None]
        places = (drawn[:, questions:] * self.pools.counts[pools, classes]).astype(np.int64)
        self._labels[indices], self._rows[indices] = labels, self.pools.rows[pools, classes, places]

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pay 1 for the right label; the last question terminates the episode."""
        running, steps = np.arange(self.num_envs)[indices], self.elapsed_steps[indices]
        self._right[running] = right = actions == self._labels[running, steps]
        return right.astype(np.float64), steps + 1 == self._labels.shape[1]

    def infos(self, ended: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        """Return whether the last answer of an episode that ended was right."""
        return {"success": self._right & ended}

    def contents(self, pool: int) -> list[bytes]:
        """Return digests of the numbers of a pool's rows, as they were given."""
        return [content(row) for row in self.given.inputs[self.pools.of(pool)]]

    def questions(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what the current episodes show, ``[num_envs, question, feature]``, and the right labels."""
        return self._seen(self._rows), self._labels.copy()

    def observe(self) -> NDArray[np.float32]:
        """Return the features of the rows that are shown, ``[num_envs, feature]``."""
        at = np.minimum(self.elapsed_steps, self._rows.shape[1] - 1)
        return self._seen(self._rows[np.arange(self.num_envs), at][:, None])[:, 0]

    def _seen(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows ``[num_envs, n]`` as their clinics measure them, ``[num_envs, n, feature]``."""
        shown = self.inputs[rows]
        if self.shift > 0.0:
            shown = shown * self.tasks["gain"][:, None] + self.tasks["offset"][:, None]
        result: NDArray[np.float32] = np.clip(shown, -FARTHEST, FARTHEST).astype(np.float32)
        return result


class LabelledEnv(SingleFamily):
    """Name the class of what is shown, with labels whose meaning is hidden (``metarl/Labelled-v0``).

    - **What varies** (the task): which ``ways`` classes of the data there are and which label stands for which
      (``classes``, numbers of classes by label); ``pool``, which rows are shown: 0 those for training, 1 validation, 2
      test; with ``shift``, a gain and an offset of each feature, as between clinics. **Hidden**: only the rewards tell
      what the labels mean.
    - **Arguments**: ``data="languages"`` (``languages``, ``digits``, ``diagnosis``, or an ``.npz`` file with X and y),
      ``ways=5`` classes, ``shots=5`` rows of each class in an episode, ``held_out="auto"``, ``shift=0`` (gains are log-
      normal and offsets normal with this deviation, in standard deviations of a feature). The data sets need the extra
      ``[data]``; ``metarl.tasks_from_data`` takes arrays.
    - **Observation**: the features of a row, of mean 0 and deviation 1 over the training rows, ``Box(-10, 10,
      (features,))``.
    - **Action**: the label, ``Discrete(ways)``.
    - **Reward**: 1 for the right label, else 0; the return is the number of right answers of ``ways * shots``.
    - **Success**: the last answer of the episode was right, so the success rate is an accuracy.
    - **Ends**: terminates after ``ways * shots`` steps.
    - **Optimum**: not known; ``ways * shots`` is an upper bound.
    - **Splits**: by classes (``held_out="classes"``), two fifths of the classes are only for testing, and validation
      shows other rows of the training classes; by rows, all splits have all classes and other rows. ``auto`` holds
      classes out if there are twice ``ways`` of them.
    - **Source**: few-shot classification with bandit feedback, after Santoro et al. 2016 and Finn et al. 2017 (MAML).
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 4}  # type: ignore[misc]
    ranges_are_limits = True
    observation_reveals_task = True

    def __init__(
        self,
        render_mode: str | None = None,
        data: str = "languages",
        ways: int = 5,
        shots: int = 5,
        held_out: str = "auto",
        shift: float = 0.0,
    ) -> None:
        self.batch: LabelledVectorEnv
        arguments = {"data": data, "ways": ways, "shots": shots, "held_out": held_out, "shift": shift}
        super().__init__(LabelledVectorEnv(1, **arguments), render_mode)  # type: ignore[arg-type]

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Return a batch of n tasks; see the batched class."""
        return self.batch.sample_tasks(n, rng, split)

    def check_task(self, task: Any) -> None:
        """Raise a ``ValueError`` if the task makes no sense; see the batched class."""
        self.batch.check_task(task)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw the features that are shown as a square of grey pixels, row by row."""
        features = self.batch.observe()[0]
        side = int(np.ceil(np.sqrt(len(features))))
        square = np.full(side * side, -2.0)
        square[: len(features)] = features
        grey = (255 - np.clip((square.reshape(side, side) + 2.0) / 4.0, 0.0, 1.0) * 255).astype(np.uint8)
        size = max(1, 256 // side)
        return np.repeat(np.kron(grey, np.ones((size, size), np.uint8))[:, :, None], 3, axis=2)
