"""The part of an agent that recommends items to a user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np

from metarl.envs import Trial, own_env
from metarl.envs import tasks as task_tools
from metarl.envs.actions import standard_actions


class Recommender(Protocol):
    """The part of an agent that recommending needs."""

    remembers: ClassVar[bool]

    @property
    def env(self) -> gymnasium.Env[Any, Any]:
        """A single environment of the family."""

    def adapt(self, task: Any) -> Any:
        """Return a policy of stable-baselines3's kind, adapted to a task or an environment."""

    def say_once(self, sentence: str) -> None:
        """Give a warning."""


class Recommended:
    """What all agents have in common that recommend; ``MetaAgent`` has what it needs."""

    def recommend(self: Recommender, user: Any, k: int = 10) -> list[int]:
        """Return the numbers of the ``k`` items that a user is believed to like best, the best first.

        The family has to have a catalogue, as ``metarl/Recommend-v0`` has: a method ``rank_items(action)``, which
        returns all items in the order in which an action prefers them. The action is the most likely one at the start
        of an episode. The learner does not change.

        Args:
            user: an adapter (``adapter(env)``) that has seen episodes of the user; or a task or a ``gymnasium.Env``, to
                which ``adapt`` then adapts.
            k: how many items, at most all of the catalogue.

        Raises:
            ValueError: the family has no catalogue or ranks it wrongly, ``k`` is below 1 or more than there are items,
            or see ``adapt``.
        """
        own = own_env(self.env)
        rank = task_tools.attribute(own, "rank_items")
        if rank is None:
            raise ValueError(
                f"{task_tools.family_name(own)} has no items to recommend; the family needs a method "
                "rank_items(action), as metarl/Recommend-v0 has"
            )
        k = task_tools.whole_number("k", k)
        items = len(_ranked(rank, own.action_space.sample()))
        if k > items:
            raise ValueError(f"k is {k}, but the catalogue has {items} items; ask for at most {items}")
        adapter = hasattr(user, "observe") and hasattr(user, "policy")
        if adapter:
            returns = [value for played in user.returns for value in played]
            if returns and not any(returns):
                self.say_once(
                    f"the user clicked on nothing in {len(returns)} episodes, so the order is hardly better than that "
                    "for a user of whom nothing is known"
                )
        policy = user.policy if adapter else self.adapt(user)
        begun = Trial(self.env, 1) if self.remembers else self.env
        action, _ = policy.predict(begun.reset(seed=0)[0], deterministic=True)
        mapped = standard_actions(own.action_space)
        if mapped is not None and policy.action_space != own.action_space:
            action = mapped[1](action)
        return _ranked(rank, action)[:k]


def _ranked(rank: Callable[[Any], Any], action: Any) -> list[int]:
    """Return all items in the order that a family's ``rank_items`` gives for an action.

    Raises:
        ValueError: it returns other than the numbers of all items.
    """
    found = np.asarray(rank(action))
    if found.ndim != 1 or found.dtype.kind not in "iu" or sorted(found.tolist()) != list(range(len(found))):
        shown = " ".join(str(found).split())[:80]
        raise ValueError(
            f"rank_items(action) returns {shown}; expected each number from 0 to below the number of items once, the "
            "best item's first"
        )
    return [int(item) for item in found]
