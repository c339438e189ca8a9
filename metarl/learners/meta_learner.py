"""A short interface: fit on tasks, evaluate on tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.checkpoints import Allowed
from metarl.envs import make, tasks_from_data
from metarl.envs.families.from_data import DRAWING, LABELLED
from metarl.envs.families.labelled import TEST, TRAINING
from metarl.envs.families.labelled_arrays import are_data, arrays_of, labelled
from metarl.envs.registry import FamilyLike
from metarl.envs.tasks import whole_number
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner, load_learner
from metarl.results import Evaluation
from metarl.sb3.models_in import read_source

NAVIGATION = "metarl/Navigation2D-v0"
MOST_WAYS = 5  # of data for which nobody has said how many classes a task has
# An answer changes no later question, so no later reward is due to it.
FOR_DATA = {"learning": {"gamma": 0.0, "gae_lambda": 1.0}, "inner": {"step_size": 0.5}}


class MetaLearner:
    """Any meta-learner behind the methods ``fit`` and ``evaluate``, on tasks or on labelled data.

    Args:
        pretrained_model: a PPO or A2C model of stable-baselines3 to start from, the path of one, or None.
        family: the id of an environment family; default: few-shot recognition (``metarl/Labelled-v0``) of labelled data
            if the first that ``fit`` is given are such, else 2-D navigation.
        learner: the meta-learner's name, as listed by ``metarl learners``.
        arguments: further arguments of the meta-learner: ``family_kwargs``, ``learning``, ``inner``, ``outer``, ...
            Of data without a family, ``family_kwargs`` may give ``ways``, ``shots``, ``held_out`` and ``shift``; the
            default of ``ways`` is the number of the model's choices, or at most five of the classes and at most half;
            ``learning.gamma`` is 0 and ``inner.step_size`` 0.5, unless they are given.

    Raises:
        ValueError: an unknown learner or family, a model that does not fit the family, or wrong settings.
    """

    _unnamed = False  # whether data may still choose the family

    def __init__(
        self,
        pretrained_model: Any = None,
        family: FamilyLike | None = None,
        *,
        learner: str = "maml",
        **arguments: Any,
    ) -> None:
        kind = find_learner(learner)
        self._learner: BaseLearner | None = None
        self._unnamed = family is None
        self._kwargs: dict[str, Any] = arguments.get("family_kwargs") or {}
        self._start: Callable[..., BaseLearner] = kind
        if pretrained_model is not None:
            self._start = functools.partial(kind.from_pretrained, pretrained_model)
        self._arguments = arguments
        self._ways: int | None = None
        if family is None and pretrained_model is not None:
            count = read_source(pretrained_model, arguments.get("policy_kwargs") or {}).spaces["action_space"].get("n")
            self._ways = None if count is None else int(count)
        if family is not None or (self._ways is None and not self._kwargs):
            self._learner = self._make(family or NAVIGATION)

    def _make(self, family: FamilyLike, **defaults: dict[str, Any]) -> BaseLearner:
        """Return a learner of a family; ``defaults`` are settings by section, for those that were not given."""
        given = {name: {**values, **(self._arguments.get(name) or {})} for name, values in defaults.items()}
        return self._start(family=family, **{**self._arguments, **given})

    @property
    def learner(self) -> BaseLearner:
        """The meta-learner itself.

        Raises:
            ValueError: it waits for data, since it started from a model of choices without a family.
        """
        if self._learner is None and self._ways is None:
            self._learner = self._make(NAVIGATION)
        if self._learner is None:
            raise ValueError(
                f"the model chooses one of {self._ways}, and no family was given; give one, as in MetaLearner(model, "
                "'metarl/CartPoleParams-v0'), or labelled data first, as in fit((X, y))"
            )
        return self._learner

    def fit(self, tasks: Any, *, epochs: int = 5) -> Self:
        """Meta-train, one meta-iteration for each epoch.

        Args:
            tasks: a batch of tasks; or labelled data, from which each epoch draws new tasks: a pair ``(X, y)``, a
                scikit-learn Bunch, or a ``torch.utils.data`` dataset or DataLoader of pairs. Classes, or rows, that
                ``metarl/Labelled-v0`` holds out of them are not learned from.
            epochs: how many.

        Raises:
            ValueError: tasks that are not in the family's task space, data that cannot be learned from, or a count that
                is not positive.
        """
        epochs = whole_number("epochs", epochs)
        if self._are_data(tasks):
            before, self._learner, tasks = self._learner, self._on_data(tasks), None
            self._unnamed = False
            if before is not None:
                before.close()
        self.learner.learn(iterations=epochs, tasks=tasks, reset_num_timesteps=False)
        return self

    def evaluate(self, tasks: Any) -> Evaluation:
        """Return the mean return on a batch of tasks after 0, 1, ... adaptation steps.

        Of labelled data, as for ``fit``, the tasks are draws of the classes, or rows, that are held out for testing. A
        warning says how many of the tasks or rows, or which of the classes, the learner was fitted to.

        Raises:
            ValueError: tasks that are not in the family's task space, or data that cannot be learned from.
        """
        if not self._are_data(tasks):
            return self.learner.evaluate(tasks=tasks)
        other = self._on_data(tasks)
        if self._learner is not None and self._learner.iteration > 0:
            say_what_is_known(self._learner, other)
        try:
            return other.evaluate(split="test")
        finally:
            other.close()

    def _are_data(self, given: Any) -> bool:
        """Whether labelled data are given and not tasks.

        Raises:
            ValueError: they are data, and the learner's family has other tasks.
        """
        found = are_data(given)
        if not found or self._undecided or self.learner.settings.family == LABELLED:
            return found
        raise ValueError(
            f"labelled data are given, and the family is {self.learner.settings.family}, whose tasks are others; "
            "make the learner with family=metarl.tasks_from_data(X, y)"
        )

    @property
    def _undecided(self) -> bool:
        return self._unnamed and (self._learner is None or self._learner.iteration == 0)

    def _on_data(self, data: Any) -> BaseLearner:
        """Return a learner with the present one's settings and state, whose tasks are draws of other data."""
        pair = arrays_of(data)
        if self._undecided:
            unknown = sorted(set(self._kwargs) - set(DRAWING))
            if unknown:
                raise ValueError(f"family_kwargs has {unknown[0]!r}; of labelled data it may give {', '.join(DRAWING)}")
            ways = self._ways or max(2, min(MOST_WAYS, len(labelled(*pair).names) // 2))
            family = tasks_from_data(*pair, **{"ways": ways, **_drawing(self._kwargs)})
            return self._make(family, **FOR_DATA)
        learner = self.learner
        kwargs = learner.settings.family_kwargs
        family = tasks_from_data(*pair, **_drawing(kwargs))
        settings = replace(learner.given_settings, family_kwargs={**kwargs, **family.kwargs})
        found = make(family.id, **family.kwargs).observation_space
        if found != learner.observation_space:
            raise ValueError(
                f"the data have {found.shape} features and the learner was made for {learner.observation_space.shape}; "
                "make a new learner with family=metarl.tasks_from_data(X, y)"
            )
        other = type(learner).from_settings(settings, learner.policy_kwargs, learner.functional_policy.buffers())
        other.state, other.tasks_trained_on = learner.state, learner.tasks_trained_on
        other.verbose, other.tensorboard_log = learner.verbose, learner.tensorboard_log
        return other

    def adapt(self, task: Any) -> ActorCriticPolicy:
        """Return the policy adapted to one task, a stable-baselines3 policy; the learner does not change."""
        return self.learner.adapt(task)

    def recommend(self, user: Any, k: int = 10) -> list[int]:
        """Return the ``k`` items that a user is believed to like best; see ``MetaAgent.recommend``.

        Args:
            user: an adapter (``learner.adapter(env)``) that has seen episodes of the user, a task, or an environment.
            k: how many items.

        Raises:
            ValueError: the family has no catalogue, or ``k`` is below 1 or more than there are items.
        """
        return self.learner.recommend(user, k)

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        self.learner.save(path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        allow: Allowed = False,
    ) -> Self:
        """Return the meta-learner of a checkpoint; see ``BaseLearner.load``.

        Args:
            path: as given to ``save``, or a run's folder: the best on validation tasks so far.
            device: where updates run; default: the device in the checkpoint's settings.
            policy_kwargs: arguments that the file cannot hold (classes that are not torch's), as given to the class.
            allow: modules that may be imported besides those that need no permission, a name or several; True: any.

        Raises:
            ValueError: the file is not a checkpoint, is damaged, or names a module that may not be imported.
        """
        short = cls.__new__(cls)
        short._learner = load_learner(path, device=device, policy_kwargs=policy_kwargs, allow=allow)
        return short


def _drawing(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name in DRAWING}


def say_what_is_known(learner: BaseLearner, other: BaseLearner) -> None:
    """Warn of an evaluation on data of which the learner has learned the tested classes, by their names, or the rows.

    Args:
        learner: was trained on tasks of labelled data.
        other: is evaluated.
    """
    own, tested = (agent.env.unwrapped.batch for agent in (learner, other))  # type: ignore[attr-defined]
    if own.pools.by_classes:
        trained = {own.names[number] for number in own.pools.classes(TRAINING)}
        names = [tested.names[number] for number in tested.pools.classes(TEST)]
        known = [name for name in names if name in trained]
        what = f"{len(known)} of the tested classes are among those of training ({', '.join(known[:5])})"
    else:
        rows, seen = tested.contents(TEST), set(own.contents(TRAINING))
        known = [row for row in rows if row in seen]
        what = f"{len(known)} of {len(rows)} tested rows are among those of training"
    if known:
        new = "classes" if own.pools.by_classes else "rows"
        learner.say_once(
            f"{what}, so the returns on them do not show how the learner adapts to new {new}; evaluate on data of "
            f"other {new}"
        )
