"""MinAtar's games with other controls, ``MinAtar-v0``."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.families.remapped import draw_permutations, interval, permutations_of, refuse_no_permutation

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
LEVELS = 4  # of difficulty at the start of an episode
# For the games that become harder: what is counted down with each level, to which least value; the second of two only
# with every other level, as the games do.
RAMPS: dict[str, tuple[tuple[str, int], ...]] = {
    "asterix": (("spawn_speed", 1), ("move_speed", 1)),
    "seaquest": (("e_spawn_speed", 1), ("move_speed", 2)),
    "space_invaders": (("enemy_move_interval", 6),),
}
PALETTE = np.array(
    [[230, 230, 230], [230, 80, 60], [120, 60, 40], [80, 150, 220], [240, 190, 60], [90, 190, 110], [170, 110, 200],
     [240, 140, 180], [110, 210, 210], [150, 150, 60]], np.uint8,
)  # fmt: skip
CELL = 16  # pixels of a picture


def load_game(name: str) -> Any:
    """Return a new game of MinAtar, which becomes harder by the levels of a task only.

    Raises:
        ValueError: there is no such game.
        ImportError: the package is not installed.
    """
    if name not in GAMES:
        raise ValueError(f"game is {name!r}; expected one of {', '.join(GAMES)}")
    try:
        return importlib.import_module(f"minatar.environments.{name}").Env(ramping=False)
    except ImportError as error:
        raise ImportError(f"MinAtar needs the extra [games]: pip install 'metarl-suite[games]' ({error})") from error


class MinAtarEnv(gymnasium.Env[Any, Any]):
    """A game of MinAtar whose controls are rewired (``metarl/MinAtar-v0``).

    - **What varies** (the task): what each button does (``controls``: the number of the game's action, by button);
      ``sticky``, the probability that a button press is ignored and the last action repeated; ``level``, how hard the
      game is at the start of an episode, in asterix, seaquest and space_invaders. **Hidden**: all of it; the images
      show what happens.
    - **Arguments**: ``game="breakout"`` (or ``asterix``, ``freeway``, ``seaquest``, ``space_invaders``);
      ``sticky=[0, 0.25]``, a probability or the ends of a range; ``levels=4``, of difficulty, from 0. They need the
      extra ``[games]``.
    - **Observation**: 10 x 10 cells, one channel of 0 and 1 for each kind of object, ``Box(0, 1, (channels, 10, 10))``;
      the policy ``SmallCnnPolicy`` is for such images.
    - **Action**: the button, ``Discrete``: as many as the game has actions that differ (3 in breakout and freeway, 4 in
      space_invaders, 5 in asterix, 6 in seaquest).
    - **Reward**: the game's: 1 for a brick, a treasure, a crossing, an alien or a fish.
    - **Ends**: terminates when the game is over; truncated after 100 steps.
    - **Optimum**: not known.
    - **Splits**: a fifth of the permutations of buttons is only for testing and another for validation; breakout and
      freeway have only six, which all splits share.
    - **Source**: MinAtar, Young and Tian 2019; rewired controls are of this package.
    - **Versions**: v0, the first.

    Attributes:
        game: MinAtar's own object of the game.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]
    ranges_are_limits = True

    def __init__(
        self, render_mode: str | None = None, game: str = "breakout", sticky: Any = (0.0, 0.25), levels: int = LEVELS
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        self.render_mode = render_mode
        low, high = interval("sticky", sticky)
        levels = task_tools.whole_number("levels", levels)
        self.game = load_game(game)
        self._ramp = RAMPS.get(game, ())
        self._actions = [int(number) for number in self.game.minimal_action_set()]
        count = len(self._actions)
        height, width, channels = self.game.state_shape()
        self.observation_space = spaces.Box(0.0, 1.0, (channels, height, width), np.float32)
        self.action_space = spaces.Discrete(count)
        self.task_space = spaces.Dict(
            {
                "controls": spaces.MultiDiscrete([count] * count),
                "sticky": spaces.Box(low, high, (), np.float32),
                **({"level": spaces.Discrete(levels)} if self._ramp else {}),
            }
        )
        self.splits_share_tasks = low == high and len(permutations_of(count, "train")) < count * (count + 1)
        self.default_task: dict[str, Any] = {"controls": np.arange(count), "sticky": np.array(low, np.float32)}
        if self._ramp:
            self.default_task["level"] = np.int64(0)
        self._task = self.default_task
        self._last, self._started = 0, False

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Return a batch of n tasks, with permutations of the buttons that belong to the split."""
        batch = task_tools.uniform_tasks(self.task_space, n, rng)
        return {**batch, "controls": draw_permutations(len(self._actions), n, rng, split)}

    def check_task(self, task: Any) -> None:
        """Raise a ``ValueError`` if two buttons do the same."""
        refuse_no_permutation("controls", task["controls"])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given."""
        super().reset(seed=seed)
        if options is not None and options.get("task") is not None:
            self._task = task_tools.as_task(self, options["task"])
        if seed is not None or not self._started:
            # The games draw from numpy's older generator.
            self.game.random = np.random.RandomState(int(self.np_random.integers(2**31)))
        self._started, self._last = True, 0
        self.game.reset()
        for level in range(int(self._task.get("level", 0))):
            for index, (name, least) in enumerate(self._ramp):
                if index == 0 or level % 2:
                    setattr(self.game, name, max(least, getattr(self.game, name) - 1))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Press a button.

        Raises:
            ValueError: there is no such button.
        """
        if not self.action_space.contains(action):
            raise ValueError(
                f"the action is {action!r}; expected a button, a whole number from 0 to {len(self._actions) - 1}"
            )
        if self.np_random.random() >= self._task["sticky"]:
            self._last = self._actions[int(self._task["controls"][int(action)])]
        reward, ended = self.game.act(self._last)
        return self._seen(), float(reward), bool(ended), False, {}

    def _seen(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(np.moveaxis(self.game.state(), -1, 0), dtype=np.float32)

    def render(self) -> Any:
        """Return a picture of the game, ``[height, width, 3]``, or None where ``render_mode`` is None."""
        if self.render_mode is None:
            return None
        seen = self._seen()
        picture = np.full((*seen.shape[1:], 3), 20, np.uint8)
        for channel, colour in zip(seen, PALETTE, strict=False):
            picture[channel > 0] = colour
        return np.kron(picture, np.ones((CELL, CELL, 1), np.uint8))
