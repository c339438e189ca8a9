"""minigrid's worlds with other controls and layouts, ``MiniGrid-v0``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.families.remapped import draw_permutations, refuse_no_permutation

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
OBJECTS, COLOURS, STATES = 11, 6, 3  # kinds that minigrid's images distinguish; STATES: of doors
CHANNELS = OBJECTS + COLOURS + STATES
LAYOUTS = 1000  # of a split


def open_world(env: str, render_mode: str | None = None, **kwargs: Any) -> Any:
    """Return a world of minigrid, without its own wrappers.

    Raises:
        ValueError: there is no such world, or it is not one of minigrid's.
        ImportError: the package is not installed.
    """
    try:
        importlib.import_module("minigrid")
    except ImportError as error:
        raise ImportError(f"minigrid needs the extra [games]: pip install 'metarl-suite[games]' ({error})") from error
    kind = importlib.import_module("minigrid.minigrid_env").MiniGridEnv
    example = "expected a world of minigrid, as in 'MiniGrid-Empty-Random-5x5-v0' or 'BabyAI-GoToLocal-v0'"
    try:
        made = gymnasium.make(env, render_mode=render_mode, disable_env_checker=True, **kwargs).unwrapped
    except (gymnasium.error.Error, TypeError) as error:
        raise ValueError(f"env is {env!r}; {example} ({error})") from error
    if not isinstance(made, kind):
        raise ValueError(f"env is {env!r}, a {type(made).__name__}; {example}")
    return made


def channels_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return minigrid's image ``[x, y, 3]`` as channels of 0 and 1, ``[channel, x, y]``: objects, colours, door states.

    Colours and states are those of cells with a thing, and not of the floor and of what is out of sight.
    """
    kinds, colours, states = image[..., 0], image[..., 1], image[..., 2]
    seen = np.zeros((CHANNELS, *kinds.shape), np.float32)
    places = np.indices(kinds.shape)
    x, y = places[0], places[1]
    seen[kinds, x, y] = 1.0
    things = kinds > 1
    seen[OBJECTS + colours[things], x[things], y[things]] = 1.0
    doors = kinds == 4
    seen[OBJECTS + COLOURS + states[doors], x[doors], y[doors]] = 1.0
    return seen


class MiniGridEnv(gymnasium.Env[Any, Any]):
    """A world of minigrid with rewired controls and an unknown layout (``metarl/MiniGrid-v0``).

    - **What varies** (the task): what each button does (``controls``: the number of the action in ``actions``, by
      button); ``layout``, the seed from which the world is drawn, the same in each episode of a task. **Hidden**: both;
      the agent sees the cells before it.
    - **Arguments**: ``env="MiniGrid-Empty-Random-5x5-v0"`` (any world of minigrid or BabyAI, which need the extra
      ``[games]``); ``actions=["left", "right", "forward", "done"]``, those of minigrid that there are buttons for
      (also ``pickup``, ``drop`` and ``toggle``; ``done`` does nothing in most worlds); ``env_kwargs``,
      arguments of the world.
    - **Observation**: the 7 x 7 cells before the agent, as channels of 0 and 1: 11 kinds of object, 6 colours, 3 states
      of doors, ``Box(0, 1, (20, 7, 7))``; the policy ``SmallCnnPolicy`` is for such images.
    - **Action**: the button, ``Discrete(len(actions))``.
    - **Reward**: the world's: ``1 - 0.9 * steps / max_steps`` at the goal, else 0; ``max_steps`` is its own limit.
    - **Success**: the episode was terminated with a reward.
    - **Ends**: as the world does; truncated after 50 steps, or by the world's own limit.
    - **Optimum**: not known; 1 is an upper bound.
    - **Splits**: 1,000 layouts each; with four buttons or more, a fifth of the permutations is only for testing and
      another for validation.
    - **Source**: minigrid, Chevalier-Boisvert et al. 2023; rewired controls are of this package.
    - **Versions**: v0, the first.

    Attributes:
        world: minigrid's own environment.
        buttons: the numbers of minigrid's actions in ``actions``.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]
    ranges_are_limits = True
    observation_reveals_task = True  # the layout before the agent, but not the controls

    def __init__(
        self,
        render_mode: str | None = None,
        env: str = "MiniGrid-Empty-Random-5x5-v0",
        actions: Sequence[str] = ("left", "right", "forward", "done"),
        env_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        self.render_mode = render_mode
        names = [actions] if isinstance(actions, str) else list(actions)
        if unknown := [name for name in names if name not in ACTIONS]:
            raise ValueError(f"actions has {unknown[0]!r}; expected some of {', '.join(ACTIONS)}")
        if len(set(names)) < max(2, len(names)):
            raise ValueError(f"actions is {names}; expected two or more different ones of {', '.join(ACTIONS)}")
        self.world = open_world(env, render_mode, **(env_kwargs or {}))
        self.buttons = [ACTIONS.index(name) for name in names]
        count, view = len(names), self.world.agent_view_size
        self.observation_space: spaces.Space[Any] = spaces.Box(0.0, 1.0, (CHANNELS, view, view), np.float32)
        self.action_space = spaces.Discrete(count)
        self.task_space = spaces.Dict(
            {
                "controls": spaces.MultiDiscrete([count] * count),
                "layout": spaces.Box(0, 3 * LAYOUTS - 1, (), np.int64),
            }
        )
        self.default_task: dict[str, Any] = {"controls": np.arange(count), "layout": np.array(0)}
        self._task: dict[str, Any] = self.default_task

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Return a batch of n tasks, with permutations of the buttons and layouts that belong to the split."""
        batch = task_tools.uniform_tasks(self.task_space, n, rng)
        layouts = task_tools.SPLITS.index(split) * LAYOUTS + rng.integers(LAYOUTS, size=n)
        return {**batch, "controls": draw_permutations(len(self.buttons), n, rng, split), "layout": layouts}

    def check_task(self, task: Any) -> None:
        """Raise a ``ValueError`` if two buttons do the same."""
        refuse_no_permutation("controls", task["controls"])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, of ``options["task"]`` where it is given."""
        super().reset(seed=seed)
        if options is not None and options.get("task") is not None:
            self._task = task_tools.as_task(self, options["task"])
        seen, _ = self.world.reset(seed=self.world_seed())
        return self.seen(seen), {}

    def world_seed(self) -> int:
        """Return the seed with which the world is drawn for the next episode."""
        return int(self._task["layout"])

    def seen(self, observation: dict[str, Any]) -> Any:
        """Return the observation that the policy gets for one of minigrid's."""
        return channels_of(observation["image"])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Press a button.

        Raises:
            ValueError: there is no such button.
        """
        if not self.action_space.contains(action):
            raise ValueError(
                f"the action is {action!r}; expected a button, a whole number from 0 to {len(self.buttons) - 1}"
            )
        seen, reward, terminated, truncated, _ = self.world.step(self.act(int(action)))
        success = bool(terminated and reward > 0)
        return self.seen(seen), float(reward), bool(terminated), bool(truncated), {"success": success}

    def act(self, button: int) -> int:
        """Return minigrid's action of a button."""
        return self.buttons[int(self._task["controls"][button])]

    def render(self) -> Any:
        """Return a picture of the world, ``[height, width, 3]``, or None where ``render_mode`` is None."""
        return self.world.render() if self.render_mode is not None else None
