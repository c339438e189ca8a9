"""A short interface: fit on tasks, evaluate on tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from stable_baselines3.common.policies import ActorCriticPolicy

from metarl.checkpoints import Allowed
from metarl.envs.registry import FamilyLike
from metarl.envs.tasks import whole_number
from metarl.learner import BaseLearner
from metarl.learners.registry import find_learner, load_learner
from metarl.results import Evaluation


class MetaLearner:
    """Any meta-learner behind the methods ``fit`` and ``evaluate``.

    Args:
        pretrained_model: a PPO or A2C model of stable-baselines3 to start from, the path of one, or None.
        family: the id of an environment family.
        learner: the meta-learner's name, as listed by ``metarl learners``.
        arguments: further arguments of the meta-learner: ``family_kwargs``, ``learning``, ``inner``, ``outer``, ...

    Attributes:
        learner: the meta-learner itself.

    Raises:
        ValueError: an unknown learner or family, a model that does not fit the family, or wrong settings.
    """

    learner: BaseLearner

    def __init__(
        self,
        pretrained_model: Any = None,
        family: FamilyLike = "metarl/Navigation2D-v0",
        *,
        learner: str = "maml",
        **arguments: Any,
    ) -> None:
        kind = find_learner(learner)
        if pretrained_model is None:
            self.learner = kind(family=family, **arguments)
        else:
            self.learner = kind.from_pretrained(pretrained_model, family, **arguments)

    def fit(self, tasks: Any, *, epochs: int = 5) -> Self:
        """Meta-train on a batch of tasks, one meta-iteration for each epoch.

        Raises:
            ValueError: tasks that are not in the family's task space, or a count that is not positive.
        """
        epochs = whole_number("epochs", epochs)
        self.learner.learn(iterations=epochs, tasks=tasks, reset_num_timesteps=False)
        return self

    def evaluate(self, tasks: Any) -> Evaluation:
        """Return the mean return on a batch of tasks after 0, 1, ... adaptation steps.

        A warning says how many of the tasks the learner was fitted to.

        Raises:
            ValueError: tasks that are not in the family's task space.
        """
        return self.learner.evaluate(tasks=tasks)

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
        short.learner = load_learner(path, device=device, policy_kwargs=policy_kwargs, allow=allow)
        return short
