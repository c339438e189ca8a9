"""Recommendation, ``Recommend-v0``: find out what a user likes from the clicks on what they were shown."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.batched import BatchedFamily, EnvIndices
from metarl.envs.families.drawing import Canvas
from metarl.envs.recommending import clicks
from metarl.envs.single import SingleFamily

ITEMS = 40
FEATURES = 4
SLATE = 4  # items of a slate
SLATES = 8  # slates of a visit


class RecommendVectorEnv(BatchedFamily):
    """``metarl/Recommend-v0``, batched in numpy; the data sheet is in ``RecommendEnv``.

    Attributes:
        features: of the catalogue's items, ``[item, feature]``.
        shown: the items of the last slates, ``[num_envs, position]``; before the first one they are all 0.
        clicked: which of them were clicked, ``[num_envs, position]``.
        showings: how often each item was shown in the visit, ``[num_envs, item]``.
    """

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        items: int = ITEMS,
        slate: int = SLATE,
        slates: int = SLATES,
    ) -> None:
        self.slate = task_tools.whole_number("slate", slate)
        self.slates = task_tools.whole_number("slates", slates)
        self.features = clicks.catalogue(task_tools.whole_number("items", items), FEATURES)
        if items < self.slate:
            raise ValueError(f"slate is {self.slate}, and the catalogue has {items} items; expected at most as many")
        self.single_observation_space = spaces.Box(-1.0, 1.0, (2 * FEATURES,), np.float32)
        self.single_action_space = spaces.Box(-1.0, 1.0, (FEATURES,), np.float32)
        self.task_space = spaces.Box(-1.0, 1.0, (FEATURES,), np.float32)
        self.default_task = np.array([0.5, -0.5, 0.5, -0.5], dtype=np.float32)
        super().__init__(num_envs, max_episode_steps, render_mode)
        self.shown = np.zeros((self.num_envs, self.slate), dtype=np.intp)
        self.clicked = np.zeros((self.num_envs, self.slate), dtype=np.bool_)
        self.showings = np.zeros((self.num_envs, len(self.features)))
        self._noise = np.zeros((self.num_envs, self.slates, self.slate))
        self._observations = np.zeros((self.num_envs, 2 * FEATURES), dtype=np.float32)

    def start_episodes(self, indices: EnvIndices) -> None:
        """Begin visits: nothing was shown, and the noise of all clicks is drawn."""
        self.showings[indices] = 0.0
        self.shown[indices] = 0
        self.clicked[indices] = False
        self._observations[indices] = 0.0
        noise = self.streams.uniform(indices, self.slates * self.slate)
        self._noise[indices] = noise.reshape(-1, self.slates, self.slate)

    def apply_actions(
        self, actions: NDArray[Any], indices: EnvIndices | slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Show slates to users, who click; the last slate terminates the visit."""
        running, steps = np.arange(self.num_envs)[indices], self.elapsed_steps[indices]
        showings, rows = self.showings[running], np.arange(len(running))[:, None]
        believed = np.clip(actions.astype(np.float64), -1.0, 1.0)
        shown = clicks.best_slates(clicks.log_odds(self.features, believed, showings), self.slate)
        odds = clicks.log_odds(self.features, self.tasks[running], showings)[rows, shown]
        clicked = self._noise[running, steps] < clicks.click_probabilities(odds)
        self.shown[running], self.clicked[running] = shown, clicked
        self.showings[running[:, None], shown] += 1.0
        seen = self.features[shown]
        told = np.concatenate([(seen * clicked[:, :, None]).sum(axis=1), seen.sum(axis=1)], axis=1)
        self._observations[running] = told / self.slate
        return clicked.sum(axis=1).astype(np.float64), steps + 1 == self.slates

    def observe(self) -> NDArray[np.float32]:
        """Return the sums of the features clicked and shown in the last slates, ``[num_envs, 8]``."""
        return self._observations.copy()

    def rank_items(self, action: Any) -> NDArray[np.intp]:
        """Return all items in the order in which an action ``[feature]`` prefers them, the best first."""
        believed = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        return np.argsort(-(self.features @ believed), kind="stable")

    def oracle_return(self, task: Any) -> float:
        """Return the expected clicks of one who knows the taste and shows the best slate at each step."""
        slates = min(self.slates, self.max_episode_steps or self.slates)
        return clicks.myopic_clicks(self.features, task, self.slate, slates)


class RecommendEnv(SingleFamily):
    """Show a user what they like, which only their clicks tell (``metarl/Recommend-v0``).

    - **What varies** (the task): the user's taste, a vector of four numbers, each uniform over [-1, 1]. **Hidden**:
      only clicks tell of it. The catalogue is always the same: 40 items whose features are vectors of length 1
      (``features``); the user's liking of an item is the product of taste and features.
    - **Arguments**: ``items=40``, ``slate=4`` (items shown at once), ``slates=8`` (of a visit, which is an episode).
    - **Observation**: of the last slate, the sum of the features of the items that were clicked, and of all its
      items, both divided by ``slate``, ``Box(-1, 1, (8,))``; zeros at the start of a visit.
    - **Action**: ``Box(-1, 1, (4,))``, clipped to it: what the user's taste is believed to be. The items that such a
      user would most likely click on are shown, the likeliest first; the shop counts what was shown in the visit.
    - **Clicks**: the user looks at position j with probability j ** -0.5, and clicks on an item there if -3 +
      6 * liking - 0.5 * showings + noise is above 0; ``showings`` is how often the item was shown before in the visit
      (boredom), the noise is standard logistic, drawn anew for each showing.
    - **Reward**: the number of clicks on the slate.
    - **Ends**: terminates after ``slates`` steps.
    - **Optimum**: ``oracle_return`` is the exact expected return of one who knows the taste and shows the best slate at
      each step. A plan over the whole visit could gain a little (less than 4 % on average), since it may keep a good
      item for a better position.
    - **Splits**: the same distribution with disjoint seeds.
    - **Source**: the equations are metarl's own: matrix factorisation with logistic noise (Koren, Bell and Volinsky
      2009), and the position bias of Joachims, Swaminathan and Schnabel 2017.
    - **Versions**: v0, the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}  # type: ignore[misc]

    def __init__(
        self, render_mode: str | None = None, items: int = ITEMS, slate: int = SLATE, slates: int = SLATES
    ) -> None:
        self.batch: RecommendVectorEnv
        super().__init__(RecommendVectorEnv(1, items=items, slate=slate, slates=slates), render_mode)
        self.features = self.batch.features

    def rank_items(self, action: Any) -> NDArray[np.intp]:
        """Return all items in the order in which an action ``[feature]`` prefers them, the best first."""
        return self.batch.rank_items(action)

    def oracle_return(self, task: Any) -> float:
        """Return the expected clicks of one who knows the taste; see the batched class."""
        return self.batch.oracle_return(task)

    def draw_picture(self) -> NDArray[np.uint8]:
        """Draw two features of all items: liked ones dark, the last slate orange, green where clicked; taste red."""
        canvas = Canvas(size=256, extent=1.15)
        likes = clicks.log_odds(self.features, self.task, 0.0)
        for place, odds in zip(self.features, likes, strict=True):
            grey = int(225 - 150 / (1.0 + np.exp(-odds)))
            canvas.disc(place[:2], 0.04, (grey, grey, grey))
        if self.batch.elapsed_steps[0] > 0:
            for item, clicked in zip(self.batch.shown[0], self.batch.clicked[0], strict=True):
                canvas.disc(self.features[item, :2], 0.06, (40, 150, 60) if clicked else (240, 150, 40))
        canvas.line(np.stack([np.zeros(2), np.asarray(self.task[:2], dtype=np.float64)]), (200, 40, 40))
        return canvas.pixels
