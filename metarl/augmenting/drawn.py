"""The training tasks of a learner: drawn or given, all or a few, and augmented."""

from __future__ import annotations

from typing import Any

import gymnasium

from metarl import seeding
from metarl.augmenting import tasks as augmented_tasks
from metarl.augmenting.refusals import refuse_unfit
from metarl.envs import tasks as task_tools
from metarl.settings import Settings

TRIED = 100  # tasks that are augmented before training, to see whether they stay within the family's


class TrainingTasks:
    """The part of a learner that draws training tasks and the random streams of their episodes."""

    name: str
    _env: gymnasium.Env[Any, Any]
    _given_tasks: Any

    @property
    def settings(self) -> Settings:
        """All settings of a run."""
        raise NotImplementedError

    @property
    def dealt_tasks(self) -> int:
        """How many tasks an iteration deals to several processes (``task_axis.own_tasks``); 0 if it cannot deal any."""
        return self.settings.learning.tasks

    def training_tasks(self, iteration: int) -> Any:
        """Return an iteration's batch of tasks: newly drawn or those given to ``learn``, and augmented."""
        given = self._given_tasks
        tasks = self.drawn_tasks(iteration, self.settings.learning.tasks) if given is None else given
        return self.augmented(tasks, iteration)

    def drawn_tasks(self, iteration: int, count: int) -> Any:
        """Return tasks of the split ``train``, new in each iteration; or of the first ``learning.train_tasks``.

        These are ``metarl.sample_tasks(family, learning.train_tasks, seed)``.
        """
        seed, limit = self.settings.seed, self.settings.learning.train_tasks
        rng = task_tools.task_rng(seed, "train", iteration)
        if not limit:
            return task_tools.draw_tasks(self._env, count, rng, "train")
        pool = task_tools.draw_tasks(self._env, limit, task_tools.task_rng(seed, "train"), "train")
        return augmented_tasks.fewer_tasks(pool, count, rng)

    def augmented(self, tasks: Any, iteration: int) -> Any:
        """Return a batch of training tasks that ``[augment]`` makes of another.

        Raises:
            ValueError: one lies outside the task space, or the family refuses it.
        """
        augment = self.settings.augment
        if not augment.changes_tasks:
            return tasks
        space = task_tools.task_space(self._env)
        rng = seeding.augmentation(self.settings.seed, iteration)
        if augment.mirror:
            mirror = task_tools.attribute(self._env, "mirror_tasks")
            tasks = augmented_tasks.mirrored(tasks, augment.mirror, mirror, rng)
        if augment.mix:
            tasks = augmented_tasks.mixed(space, tasks, augment.mix, rng)
        if augment.perturb:
            tasks = augmented_tasks.perturbed(space, tasks, augment.perturb, rng)
        for task in task_tools.unstack_tasks(space, tasks):
            try:
                task_tools.as_task(self._env, task)
            except ValueError as error:
                raise ValueError(
                    f"augmentation leaves the task space: {error}; lower or leave out what [augment] does to tasks "
                    "(augment.mix, augment.perturb, augment.mirror)"
                ) from error
        return tasks

    def check_augmentation(self) -> None:
        """Check that the family has what ``[augment]`` is to change, and that its tasks remain tasks.

        Raises:
            ValueError: they do not.
        """
        refuse_unfit(self.settings.augment, self._env, self.settings.learning.train_tasks)
        if self.settings.augment.changes_tasks:
            self.augmented(self.drawn_tasks(0, TRIED), 0)

    def refuse_given_tasks(self, reason: str) -> None:
        """Raise an error if tasks were given to ``learn``, for learners that choose their own.

        Raises:
            ValueError: tasks were given.
        """
        if self._given_tasks is not None:
            raise ValueError(f"learner {self.name} {reason}; leave tasks out")

    def refuse_few_tasks(self) -> None:
        """Raise an error if ``learning.train_tasks`` is set, where tasks are given to ``learn``.

        Raises:
            ValueError: it is set.
        """
        if count := self.settings.learning.train_tasks:
            raise ValueError(
                f"learning.train_tasks is {count}, and tasks are given, which are trained on as they are; leave one of "
                "them out"
            )

    def training_streams(self, tasks: Any, iteration: int, step: int) -> list[seeding.Stream]:
        """Return each task's random stream for the episodes after ``step`` inner steps of an iteration."""
        numbers = range(task_tools.count_tasks(tasks))
        return seeding.streams(self.settings.seed, seeding.TRAINING, iteration, step, tasks=numbers)
